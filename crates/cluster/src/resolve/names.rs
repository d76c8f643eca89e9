//! What names stand for, and whether there is something by each name that is used.

use super::Resolver;
use crate::file::{LogicalCluster, Server, Service, Use};
use crate::read::{At, Section, hint};
use crate::values::{Address, Many, Name, Short};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// The names of the file.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// Servers by name.
    pub(super) servers: HashMap<&'a str, &'a Section<Server>>,
    /// Templates by name.
    pub(super) templates: HashMap<&'a str, &'a Section<Service>>,
    checks: HashSet<&'a str>,
    /// Logical clusters by name.
    clusters: HashMap<&'a str, &'a Section<LogicalCluster>>,
    /// The server that has an address.
    by_address: HashMap<IpAddr, &'a str>,
    /// The logical cluster that a server is in.
    cluster_of: HashMap<&'a str, &'a str>,
    /// Names that are used: servers and checks.
    used: HashSet<(&'static str, &'a str)>,
}

impl<'a> Resolver<'a> {
    /// Collects the names, then looks at every place that uses one.
    pub(super) fn resolve_names(&mut self) {
        let file = self.file;
        let checks = file.check.iter().flat_map(|at| &at.value.0);
        self.names.checks = checks.map(|it| it.name.value.as_str()).collect();
        let templates = file.template.iter().flat_map(|at| &at.value.0);
        self.names.templates = templates.map(|it| (it.name.value.as_str(), it)).collect();
        let clusters = file.cluster.iter().flat_map(|at| &at.value.0);
        self.names.clusters = clusters.map(|it| (it.name.value.as_str(), it)).collect();
        for section in file.server.iter().flat_map(|at| &at.value.0) {
            self.collect_server(section);
        }
        for section in file.cluster.iter().flat_map(|at| &at.value.0) {
            for at in section.record.iter().flat_map(|cluster| &cluster.servers.value.0) {
                self.collect_member(&section.name.value, at);
            }
        }
        for section in file.director.iter().flat_map(|at| &at.value.0) {
            if let Some(director) = &section.record {
                self.one_of_each_family(&director.address);
            }
        }
        if let Some(first) = file.director.as_ref().and_then(|at| at.value.0.first()) {
            let message = "directors are for hot standby, which is not in this release: nothing follows from this table";
            self.warn(&first.name.span, message);
        }
        for section in file.template.iter().flat_map(|at| &at.value.0) {
            self.resolve_used(section);
        }
        self.resolve_template_cycles();
        for section in file.service.iter().flat_map(|at| &at.value.0) {
            self.resolve_used(section);
        }
    }

    fn collect_server(&mut self, section: &'a Section<Server>) {
        let name = section.name.value.as_str();
        if name.parse::<IpAddr>().is_ok() {
            let message = format!(
                "`{name}' is an address, not a name: an address needs no table; write it in `servers'"
            );
            self.error(&section.name.span, message);
        }
        self.names.servers.insert(name, section);
        let Some(server) = &section.record else { return };
        self.one_of_each_family(&server.address);
        for at in &server.address.value.0 {
            let other = *self.names.by_address.entry(at.value.0).or_insert(name);
            if other != name {
                let message =
                    format!("{} is the address of server `{other}': each server has its own", at.value.0);
                self.error(&at.span, message);
            }
        }
        self.resolve_check_names(server.checks.as_ref());
    }

    fn one_of_each_family(&mut self, addresses: &At<Many<Address>>) {
        let v4 = addresses.value.values().filter(|address| address.0.is_ipv4()).count();
        let v6 = addresses.value.0.len() - v4;
        if v4 > 1 || v6 > 1 || v4 + v6 == 0 {
            self.error(&addresses.span, "expected one address, or one of each family");
        }
    }

    fn collect_member(&mut self, cluster: &'a str, at: &'a At<Name>) {
        let name = at.value.0.as_str();
        if !self.names.servers.contains_key(name) {
            self.no_server(at);
            return;
        }
        let known = self.names.cluster_of.get(name).copied();
        self.names.cluster_of.entry(name).or_insert(cluster);
        match known {
            Some(other) if other == cluster => {
                self.error(&at.span, format!("server `{name}' is in this cluster twice: keep one"));
            }
            Some(other) => {
                let message = format!(
                    "server `{name}' is in cluster `{other}' already: clusters divide the servers, so that each is in one"
                );
                self.error(&at.span, message);
            }
            None => {}
        }
    }

    fn no_server(&mut self, at: &At<Name>) {
        let name = at.value.0.as_str();
        if let Ok(end) = name.parse::<SocketAddr>() {
            let (address, port) = (end.ip(), end.port());
            let message = format!(
                "`{name}' is an address with a port: write {{ server = \"{address}\", port = {port} }}"
            );
            self.error(&at.span, message);
            return;
        }
        if name.contains(['.', ':']) && name.chars().all(|c| c.is_ascii_hexdigit() || ".:/%".contains(c)) {
            let message = format!(
                "`{name}' is no address, and no server has this name: write one such as \"10.0.0.1\" or \"2001:db8::1\""
            );
            self.error(&at.span, message);
            return;
        }
        let hint = hint(
            &at.value.0,
            self.sorted_servers().iter().copied(),
            "there are none: declare it as [server.NAME]",
        );
        self.error(&at.span, format!("no server `{}': {hint}", at.value.0));
    }

    fn sorted_servers(&self) -> Vec<&'a str> {
        self.file
            .server
            .iter()
            .flat_map(|at| &at.value.0)
            .map(|section| section.name.value.as_str())
            .collect()
    }

    /// Every name that a service or template uses.
    fn resolve_used(&mut self, section: &'a Section<Service>) {
        let Some(service) = &section.record else { return };
        let file = self.file;
        if let Some(at) = &service.template
            && !self.names.templates.contains_key(at.value.0.as_str())
        {
            let names = file.template.iter().flat_map(|it| &it.value.0).map(|it| it.name.value.as_str());
            let hint = hint(&at.value.0, names, "there are none: declare it as [template.NAME]");
            self.error(&at.span, format!("no template `{}': {hint}", at.value.0));
        }
        if let Some(at) = &service.cluster
            && !self.names.clusters.contains_key(at.value.0.as_str())
        {
            let names = file.cluster.iter().flat_map(|it| &it.value.0).map(|it| it.name.value.as_str());
            let hint = hint(&at.value.0, names, "there are none: declare it as [cluster.NAME]");
            self.error(&at.span, format!("no cluster `{}': {hint}", at.value.0));
        }
        for at in service.servers.iter().flat_map(|at| &at.value.0) {
            let Short(used) = &at.value;
            self.resolve_server_name(&used.server);
            self.resolve_check_names(used.checks.as_ref());
        }
        if let Some(at) = &service.fallback {
            self.resolve_server_name(&at.value.0.server);
        }
        self.resolve_check_names(service.checks.as_ref());
    }

    fn resolve_server_name(&mut self, at: &'a At<Name>) {
        let name = at.value.0.as_str();
        match name.parse::<IpAddr>() {
            Ok(address) => {
                if let Some(known) = self.names.by_address.get(&address) {
                    let message = format!("{name} is server `{known}': use its name");
                    self.error(&at.span, message);
                }
            }
            Err(_) if !self.names.servers.contains_key(name) => self.no_server(at),
            Err(_) => {
                self.names.used.insert(("server", name));
            }
        }
    }

    fn resolve_check_names(&mut self, checks: Option<&'a At<Many<Name>>>) {
        let file = self.file;
        for at in checks.iter().flat_map(|at| &at.value.0) {
            self.names.used.insert(("check", &at.value.0));
            if !self.names.checks.contains(at.value.0.as_str()) {
                let names = file.check.iter().flat_map(|it| &it.value.0).map(|it| it.name.value.as_str());
                let hint = hint(&at.value.0, names, "there are none: declare it as [check.NAME]");
                self.error(&at.span, format!("no check `{}': {hint}", at.value.0));
            }
        }
    }

    /// Whether a service of this cluster may use the server; if not, it is said.
    pub(super) fn check_membership(&mut self, cluster: &str, used: &At<Name>) -> bool {
        let name = used.value.0.as_str();
        let Some(is_in) = self.names.cluster_of.get(name).copied() else {
            // One that there is not was reported already.
            if self.names.servers.contains_key(name) || name.parse::<IpAddr>().is_ok() {
                let message = format!(
                    "server `{name}' is not in cluster `{cluster}': add it there, or use another one"
                );
                self.error(&used.span, message);
            }
            return false;
        };
        if is_in != cluster {
            let message =
                format!("server `{name}' is in cluster `{is_in}', so a service of `{cluster}' cannot use it");
            self.error(&used.span, message);
        }
        is_in == cluster
    }

    /// The servers of a cluster, in its order.
    pub(super) fn members(&mut self, cluster: &str) -> Vec<At<Short<Use>>> {
        let members = self.names.clusters.get(cluster).copied().and_then(|section| section.record.as_ref());
        let members: Vec<&'a At<Name>> = members.iter().flat_map(|it| &it.servers.value.0).collect();
        let known = members.into_iter().filter(|at| self.names.servers.contains_key(at.value.0.as_str()));
        let known: Vec<&'a At<Name>> = known.collect();
        self.names.used.extend(known.iter().map(|at| ("server", at.value.0.as_str())));
        known.into_iter().map(|at| At { value: Short(Use::of(at.clone())), span: at.span.clone() }).collect()
    }

    /// The names of the servers of a cluster.
    pub(crate) fn member_names(&self, cluster: &str) -> HashSet<&'a str> {
        let members = self.names.clusters.get(cluster).and_then(|section| section.record.as_ref());
        members.iter().flat_map(|it| it.servers.value.values()).map(|name| name.0.as_str()).collect()
    }

    /// Warns of what is declared and then not used.
    pub(super) fn warn_of_unused(&mut self) {
        let file = self.file;
        let servers = file.server.iter().flat_map(|at| &at.value.0).map(|it| ("server", &it.name));
        let checks = file.check.iter().flat_map(|at| &at.value.0).map(|it| ("check", &it.name));
        let unused =
            servers.chain(checks).filter(|(kind, name)| !self.names.used.contains(&(*kind, &name.value)));
        for (kind, name) in unused.collect::<Vec<_>>() {
            self.warn(&name.span, format!("{kind} `{}' is used by nothing", name.value));
        }
    }
}
