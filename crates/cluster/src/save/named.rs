//! All of a model written anew, with the names of a file: for what cannot be written into the file itself.

use crate::file::{File, LogicalCluster, Server};
use crate::read::{At, Section, Sections};
use crate::render::{Checks, Known, Servers, render_with};
use crate::resolve::{Resolver, read};
use plan::{Model, ServiceEntry};
use std::collections::{HashMap, HashSet};

/// The model with the names of servers, services, checks and clusters in this text.
pub(super) fn named(text: &str, model: &Model) -> Option<String> {
    let file = read(text)?;
    let base = Resolver::done(&file, text, model.options());
    let servers = servers(&file, model);
    let named = Servers::of(servers.iter());
    let clusters = clusters(&file, &servers);
    let mut services: HashMap<_, _> = base.services.iter().cloned().collect();
    services.retain(|id, _| model.service(id).is_some());
    let own_cluster: HashMap<&str, &str> =
        clusters.iter().flat_map(|it| members(it).map(|member| (member, it.name.value.as_str()))).collect();
    let cluster_of = |entry: &ServiceEntry| {
        let of = |address| Some(own_cluster.get(named.at(address)?.name.value.as_str())?.to_owned());
        let mut reals = entry.reals().map(|(real, _)| of(real.address));
        let first = reals.next()??;
        reals.all(|other| other == Some(first)).then(|| first.to_owned())
    };
    let was_in: HashSet<&str> = file
        .service
        .iter()
        .flat_map(|at| &at.value.0)
        .filter(|section| base.filled(section).is_some_and(|(it, _)| it.cluster.is_some()))
        .map(|section| section.name.value.as_str())
        .collect();
    let in_clusters = model
        .services()
        .filter(|(id, _)| services.get(*id).is_some_and(|name| was_in.contains(name.as_str())));
    let in_clusters = in_clusters.filter_map(|(id, entry)| Some((*id, cluster_of(entry)?))).collect();
    let checks = base.checks.iter().filter_map(|(name, check)| Some((*name, check.as_ref()?)));
    let mut checks: Vec<_> = checks.collect();
    checks.sort_by_key(|(name, _)| *name);
    let known = Known {
        services,
        clusters: in_clusters,
        checks: Checks::known(checks.into_iter()),
        servers: Servers::of(servers.iter()),
    };
    let rest = File {
        director: file.director.clone(),
        server: (!servers.is_empty()).then(|| Sections(servers.clone()).into()),
        cluster: (!clusters.is_empty()).then(|| Sections(clusters).into()),
        ..File::default()
    };
    Some(render_with(model, known, rest))
}

/// The servers with their addresses alone, but for those whose names would stand for another address somewhere.
fn servers(file: &File, model: &Model) -> Vec<Section<Server>> {
    let sections: Vec<&Section<Server>> = file.server.iter().flat_map(|at| &at.value.0).collect();
    let named = Servers::of(sections.iter().copied());
    let mut wrong: HashSet<&str> = HashSet::new();
    for (id, entry) in model.services() {
        let fallback = entry.health().fallback.as_ref().map(|it| (it.real.address, it.spec.forwarding));
        let reals = entry.reals().map(|(real, it)| (real.address, it.spec.forwarding));
        for (address, forwarding) in reals.chain(fallback) {
            if let Some(section) = named.at(address)
                && named.named(address, id.family(), forwarding).is_none()
            {
                wrong.insert(&section.name.value);
            }
        }
    }
    let good = sections.iter().filter(|section| !wrong.contains(section.name.value.as_str()));
    let bare = good.filter_map(|section| {
        let address = section.record.as_ref()?.address.clone();
        let server = Server {
            address,
            weight: None,
            upper_threshold: None,
            lower_threshold: None,
            forward: None,
            tunnel: None,
            checks: None,
            drain: None,
        };
        Some(Section { record: Some(server), ..(*section).clone() })
    });
    bare.collect()
}

fn members(section: &Section<LogicalCluster>) -> impl Iterator<Item = &str> {
    section.record.iter().flat_map(|cluster| cluster.servers.value.values()).map(|name| name.0.as_str())
}

/// The clusters, of servers that there are.
fn clusters(file: &File, servers: &[Section<Server>]) -> Vec<Section<LogicalCluster>> {
    let there: HashSet<&str> = servers.iter().map(|section| section.name.value.as_str()).collect();
    let mut sections: Vec<Section<LogicalCluster>> =
        file.cluster.iter().flat_map(|at| &at.value.0).cloned().collect();
    for cluster in sections.iter_mut().filter_map(|section| section.record.as_mut()) {
        let At { value: members, .. } = &mut cluster.servers;
        members.0.retain(|at| there.contains(at.value.0.as_str()));
    }
    sections
}
