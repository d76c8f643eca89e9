//! What was changed since, written into the text that was applied.

use super::document::{change_list, copy, kind, section, set, table as written};
use super::drift::{Drift, Servers as ServersDrift, drift, said_by, unsaid};
use crate::file::{File, Forward, Server, Service};
use crate::read::{Record as _, Section, Value as _};
use crate::render::{self, Checks, Known, PortSet, Servers, common_of, marks_of, ranges, unique};
use crate::resolve::{Resolver, read};
use crate::values::{Address, Many, Ports};
use api::{Family, Mark, MarkMatch, SETTINGS, ServiceId};
use indexmap::IndexMap;
use plan::Model;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use toml_edit::{DocumentMut, Item, TableLike};

/// The text with what differs of the model; `None` if it cannot be written so. Whoever asks reads it again.
pub(super) fn edited(text: &str, now: &Model) -> Option<String> {
    let is_canonical = crate::format(text).is_ok_and(|formatted| formatted == text);
    let text = with_drains(text, now)?;
    let file = read(&text)?;
    let base = Resolver::done(&file, &text, now.options());
    let checks: Vec<_> =
        file.check.iter().flat_map(|at| &at.value.0).map(|section| section.name.value.as_str()).collect();
    let checks = checks.iter().filter_map(|name| Some((*name, base.checks.get(name)?.as_ref()?)));
    let known = Known {
        servers: Servers::of(file.server.iter().flat_map(|at| &at.value.0)),
        checks: Checks::known(checks),
        ..Known::default()
    };
    let names = file.service.iter().flat_map(|at| &at.value.0).map(|it| it.name.value.clone()).collect();
    let mut editor =
        Editor { document: text.parse().ok()?, base: &base, now, known, names, marked: HashSet::new() };
    editor.general()?;
    let mut ids: HashMap<&str, Vec<ServiceId>> = HashMap::new();
    for (id, name) in &base.services {
        ids.entry(name).or_default().push(*id);
    }
    for section in file.service.iter().flat_map(|at| &at.value.0) {
        editor.service(section, ids.get(section.name.value.as_str()).map_or(&[], Vec::as_slice))?;
    }
    editor.new_services(&file)?;
    let text = editor.document.to_string();
    if is_canonical { crate::format(&text).ok() } else { Some(text) }
}

/// The text with the servers drained that are drained everywhere, and not those that are nowhere.
fn with_drains(text: &str, now: &Model) -> Option<String> {
    let file = read(text)?;
    let base = Resolver::done(&file, text, now.options());
    let sections: Vec<&Section<Server>> = file.server.iter().flat_map(|at| &at.value.0).collect();
    let servers = Servers::of(sections.iter().copied());
    let drained = |model: &Model| {
        let mut drained: HashMap<String, (usize, usize)> = HashMap::new();
        for (_, entry) in model.services() {
            for (real, _) in entry.reals() {
                let Some(section) = servers.at(real.address) else { continue };
                let (uses, drains) = drained.entry(section.name.value.clone()).or_default();
                *uses += 1;
                *drains += usize::from(entry.real_health(real).is_some_and(|health| health.drain));
            }
        }
        drained
    };
    let (before, after) = (drained(&base.model), drained(now));
    let mut document: DocumentMut = text.parse().ok()?;
    let mut changed = false;
    for it in sections {
        let name = it.name.value.as_str();
        let says = it.record.as_ref().is_some_and(|server| server.drain.as_ref().is_some_and(|at| at.value));
        let Some((uses, drains)) = after.get(name).copied() else { continue };
        if before.get(name) == Some(&(uses, drains))
            || (drains != 0 && drains != uses)
            || says == (drains > 0)
        {
            continue;
        }
        let table = section(&mut document, "server", name)?;
        if says {
            table.remove("drain");
        } else {
            set(table, "drain", "true")?;
        }
        changed = true;
    }
    Some(if changed { document.to_string() } else { text.to_owned() })
}

struct Editor<'a> {
    document: DocumentMut,
    /// The file as it was applied.
    base: &'a Resolver<'a>,
    now: &'a Model,
    known: Known<'a>,
    /// Names of services that are taken.
    names: HashSet<String>,
    /// Marks that tables of services say.
    marked: HashSet<MarkMatch>,
}

/// Services of one table that are alike.
struct Piece {
    ids: Vec<ServiceId>,
    drift: Drift,
    /// VIPs and ports, if they are not those of the table; `None` within: of none.
    place: Option<Option<(String, String)>>,
}

impl<'a> Editor<'a> {
    /// Sets or takes away a key of a table that is there once.
    fn general_key(&mut self, table: &str, key: &str, text: Option<String>) -> Option<()> {
        match text {
            Some(text) => {
                let item = self.document.entry(table).or_insert_with(|| Item::Table(toml_edit::Table::new()));
                set(item.as_table_like_mut()?, key, &text)
            }
            None => {
                if let Some(it) = self.document.get_mut(table).and_then(Item::as_table_like_mut) {
                    it.remove(key);
                }
                Some(())
            }
        }
    }

    /// Time-outs, policy, settings.
    fn general(&mut self) -> Option<()> {
        let (before, now) = (&self.base.model, self.now);
        let mut changed = Vec::new();
        let mut compare = |table, old: Vec<(&'static str, String)>, new: Vec<(&'static str, String)>| {
            let all: BTreeSet<&'static str> = old.iter().chain(&new).map(|(key, _)| *key).collect();
            for key in all {
                let text = |pairs: &[(&str, String)]| {
                    pairs.iter().find(|(it, _)| *it == key).map(|(_, text)| text.clone())
                };
                if text(&old) != text(&new) {
                    changed.push((table, key, text(&new)));
                }
            }
        };
        let timeouts = |model| render::timeouts(model).map(|it| it.pairs()).unwrap_or_default();
        compare("timeouts", timeouts(before), timeouts(now));
        let policy = |model: &Model| {
            render::policy(model.default_policy_choices()).map(|it| it.pairs()).unwrap_or_default()
        };
        compare("policy", policy(before), policy(now));
        let settings = |model: &Model| {
            let changed = SETTINGS.iter().filter(|it| model.setting(it.name) != it.default);
            changed.map(|it| (it.name, model.setting(it.name).to_string())).collect()
        };
        compare("settings", settings(before), settings(now));
        changed.into_iter().try_for_each(|(table, key, text)| self.general_key(table, key, text))
    }

    /// One table of `[service]` and the services that it stood for.
    fn service(&mut self, section: &Section<Service>, ids: &[ServiceId]) -> Option<()> {
        let base = self.base;
        let (filled, _) = base.filled(section)?;
        let name = section.name.value.as_str();
        let mut groups: IndexMap<Drift, Vec<ServiceId>> = IndexMap::new();
        let mut is_whole = true;
        for id in ids {
            let (before, common) = (base.model.service(id)?, said_by(id, &filled)?);
            match self.now.service(id) {
                Some(now) => {
                    let drift = drift(id, before, now, &common, &mut self.known);
                    groups.entry(drift).or_default().push(*id);
                }
                None => is_whole = false,
            }
        }
        // What is as it was keeps the table.
        groups.sort_by_cached_key(|drift, _| *drift != Drift::default());
        let pieces = match &filled.mark {
            Some(mark) => self.marked_pieces(&filled, mark.value.0, groups, is_whole),
            None => pieces(groups, is_whole),
        };
        if pieces.is_empty() {
            kind(&mut self.document, "service")?.remove(name);
            return Some(());
        }
        let original = kind(&mut self.document, "service")?.get(name)?.clone();
        for (n, piece) in pieces.into_iter().enumerate() {
            let name = if n == 0 { name.to_owned() } else { unique(name, &mut self.names) };
            if n > 0 {
                kind(&mut self.document, "service")?.insert(&name, copy(&original));
            }
            self.write(&name, section, &filled, &piece)?;
        }
        Some(())
    }

    /// The services of a table with a mark; which packets have it may have changed too.
    fn marked_pieces(
        &mut self,
        filled: &Service,
        mark: u32,
        groups: IndexMap<Drift, Vec<ServiceId>>,
        is_whole: bool,
    ) -> Vec<Piece> {
        let (Some(vips), Some(ports)) = (&filled.vip, &filled.ports) else {
            return groups.into_iter().map(|(drift, ids)| Piece { ids, drift, place: None }).collect();
        };
        let marks: HashMap<MarkMatch, u32> = self.now.marks().map(|it| (it.matched, it.mark)).collect();
        let declared = |family: &dyn Fn(IpAddr) -> bool| -> Vec<MarkMatch> {
            let vips = vips.value.values().filter(|vip| family(vip.0));
            let all = vips.flat_map(|vip| {
                ports.value.values().map(|it| MarkMatch {
                    protocol: it.protocol,
                    address: vip.0,
                    ports: it.ports,
                })
            });
            all.collect()
        };
        let holds = |all: &[MarkMatch]| all.iter().all(|it| marks.get(it) == Some(&mark));
        let all = declared(&|_| true);
        if groups.len() == 1 && is_whole && holds(&all) {
            self.marked.extend(all);
            return groups.into_iter().map(|(drift, ids)| Piece { ids, drift, place: None }).collect();
        }
        let mut pieces = Vec::new();
        for (drift, ids) in groups {
            for id in ids {
                let own = |address| Family::of(address) == id.family();
                let all = declared(&own);
                let place = holds(&all).then(|| {
                    let vips = vips.value.values().filter(|vip| own(vip.0)).copied();
                    (Many::of(vips).write(), ports.value.write())
                });
                if place.is_some() {
                    self.marked.extend(all);
                }
                pieces.push(Piece { ids: vec![id], drift: drift.clone(), place: Some(place) });
            }
        }
        pieces
    }

    /// Writes what differs into a table: key by key, or, where its templates are in the way, all of it without them.
    fn write(
        &mut self,
        name: &str,
        section: &Section<Service>,
        filled: &Service,
        piece: &Piece,
    ) -> Option<()> {
        let templates = self.base.chain(section)?;
        let inherited: HashSet<&str> = templates
            .iter()
            .filter_map(|template| template.record.as_ref())
            .flat_map(|record| record.pairs())
            .map(|(key, _)| key)
            .collect();
        let leaves = self.leaves_cluster(filled, piece);
        let id = *piece.ids.first()?;
        let entry = self.now.service(&id)?;
        let common = common_of(&id, entry);
        let plain = render::table(&id, entry, &common, &mut self.known);
        let table = self::section(&mut self.document, "service", name)?;
        let is_in_the_way = piece.drift.keys.iter().any(|(key, text)| {
            text.is_none() && inherited.contains(key) && unsaid(key).is_none()
                || *key == "source_nat"
                    && filled.forward.as_ref().is_some_and(|at| at.value == Forward::FullNat)
        });
        let loses_place =
            piece.place == Some(None) && (inherited.contains("vip") || inherited.contains("ports"));
        if is_in_the_way || loses_place || leaves && inherited.contains("cluster") {
            write_plainly(table, &plain, filled)?;
        } else {
            if leaves {
                table.remove("cluster");
            }
            for (key, text) in &piece.drift.keys {
                match text.as_deref().or_else(|| unsaid(key).filter(|_| inherited.contains(key))) {
                    Some(text) => set(table, key, text)?,
                    None => drop(table.remove(key)),
                }
            }
            if let Some(ServersDrift { slots, added, whole }) = &piece.drift.servers
                && change_list(table, "servers", slots, added).is_none()
            {
                set(table, "servers", whole)?;
            }
        }
        match &piece.place {
            None => {}
            Some(Some((vip, ports))) => {
                set(table, "vip", vip)?;
                set(table, "ports", ports)?;
            }
            Some(None) => {
                table.remove("vip");
                table.remove("ports");
                if id.family() == Family::Ipv6 {
                    set(table, "family", "\"ipv6\"")?;
                }
            }
        }
        Some(())
    }

    /// Whether it uses servers now that are not in its cluster.
    fn leaves_cluster(&self, filled: &Service, piece: &Piece) -> bool {
        let Some(cluster) = &filled.cluster else { return false };
        let members = self.base.member_names(&cluster.value.0);
        let is_member = |address| {
            self.known.servers.at(address).is_some_and(|it| members.contains(it.name.value.as_str()))
        };
        let entries = piece.ids.iter().filter_map(|id| self.now.service(id));
        entries.flat_map(|entry| entry.reals()).any(|(real, _)| !is_member(real.address))
    }

    /// Services, checks and marks that the file has not.
    fn new_services(&mut self, file: &File) -> Option<()> {
        let (base, marked) = (&self.base.model, &self.marked);
        let marks: Vec<Mark> = self.now.marks().filter(|it| !marked.contains(&it.matched)).collect();
        let is_new = |id: &ServiceId| base.service(id).is_none();
        let (sections, left) =
            render::services(self.now, marks.into_iter(), &mut self.known, &mut self.names, is_new);
        if !sections.is_empty() {
            let services = kind(&mut self.document, "service")?;
            for section in sections {
                services.insert(&section.name.value, written(section.record.as_ref()?)?);
            }
        }
        let checks = self.known.checks.new_sections();
        if !checks.is_empty() {
            let tables = kind(&mut self.document, "check")?;
            for section in checks {
                tables.insert(&section.name.value, written(section.record.as_ref()?)?);
            }
        }
        let was = file.marks.iter().flat_map(|at| &at.value.0);
        let was: Vec<(u32, MarkMatch)> =
            was.flat_map(|(mark, all)| all.values().map(|it| (mark.value, it.0))).collect();
        let is: Vec<(u32, MarkMatch)> = left
            .iter()
            .flat_map(|table| {
                table.0.iter().flat_map(|(mark, all)| all.values().map(|it| (mark.value, it.0)))
            })
            .collect();
        let of = |all: &[(u32, MarkMatch)], mark: u32| -> Vec<MarkMatch> {
            all.iter().filter(|(it, _)| *it == mark).map(|(_, matched)| *matched).collect()
        };
        let marks: BTreeSet<u32> = was.iter().chain(&is).map(|(mark, _)| *mark).collect();
        for mark in marks {
            let (old, new) = (of(&was, mark), of(&is, mark));
            if old.len() == new.len() && old.iter().all(|it| new.contains(it)) {
                continue;
            }
            let table = marks_of(new.iter().map(|it| (mark, *it)));
            let text = table.and_then(|it| it.0.first().map(|(_, all)| all.write()));
            self.general_key("marks", &mark.to_string(), text)?;
        }
        Some(())
    }
}

/// The services of a table without a mark, by what became of them.
fn pieces(groups: IndexMap<Drift, Vec<ServiceId>>, is_whole: bool) -> Vec<Piece> {
    if groups.len() == 1 && is_whole {
        return groups.into_iter().map(|(drift, ids)| Piece { ids, drift, place: None }).collect();
    }
    let mut pieces = Vec::new();
    for (drift, ids) in groups {
        let mut ports: IndexMap<IpAddr, PortSet> = IndexMap::new();
        for id in &ids {
            if let ServiceId::Address { protocol, address, port } = *id {
                ports.entry(address).or_default().insert((protocol, port));
            }
        }
        let mut vips: IndexMap<PortSet, Vec<IpAddr>> = IndexMap::new();
        for (address, ports) in ports {
            vips.entry(ports).or_default().push(address);
        }
        for (ports, vips) in vips {
            let at = |address: IpAddr, protocol, port| ServiceId::Address { protocol, address, port };
            let own =
                vips.iter().flat_map(|vip| ports.iter().map(|(protocol, port)| at(*vip, *protocol, *port)));
            let place: (Many<Address>, Many<Ports>) =
                (Many::of(vips.iter().copied().map(Address)), Many::of(ranges(&ports)));
            pieces.push(Piece {
                ids: own.collect(),
                drift: drift.clone(),
                place: Some(Some((place.0.write(), place.1.write()))),
            });
        }
    }
    pieces
}

/// A table that says everything itself.
fn write_plainly(table: &mut dyn TableLike, plain: &Service, filled: &Service) -> Option<()> {
    let keys: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        table.remove(&key);
    }
    let place = Service {
        vip: filled.vip.clone(),
        ports: filled.ports.clone(),
        mark: filled.mark.clone(),
        family: filled.family.clone(),
        ..plain.clone()
    };
    place.pairs().into_iter().try_for_each(|(key, text)| set(table, key, &text))
}
