//! Flows that match a filter, listed or counted, piece by piece of the tables.
//!
//! As in `connections`, the cursor that goes to the client and back is a place in the kernel's table, so nothing is kept
//! between two answers, and each one costs a bounded part of the tables, whatever matches.

use crate::actor::Director;
use crate::connections::{
    EMPTY_MAX, PAGE, Table, decode, encode, flow_protocol, flow_state, lives, real_port_be,
};
use crate::convert::{address, ip, socket};
use abi::{
    Address, FLOW_CONTROLLED, FLOW_INACTIVE, FLOW_TEMPLATE, FLOW_TRANSLATED, Flow, FlowKey,
    METHOD_MASQUERADE, METHOD_TUNNEL, REAL_LOCAL, Real,
};
use api::{
    EndpointFilter, FLOW_STATES, FlowCount, FlowFilter, FlowGroup, FlowPage, FlowRequest, FlowShow,
    FlowTable, FlowView, Forwarding, Refusal, RefusalKind,
};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

impl Director {
    /// The flows of one piece of the tables.
    pub(crate) fn flows(&self, request: &FlowRequest, now_ns: u64) -> Result<FlowPage, Refusal> {
        let invalid = |text: String| Refusal::new(RefusalKind::Invalid, text);
        let (mut table, mut place) = decode(request.cursor)
            .ok_or_else(|| invalid(format!("no answer had the cursor {}: begin with 0", request.cursor)))?;
        let wanted = Wanted::of(self, &request.filter)?;
        let mut page = FlowPage::default();
        let mut counts = HashMap::new();
        for _ in 0..EMPTY_MAX {
            if wanted.table(table) {
                let maps = self.datapath.tables();
                let read = table.of(maps).scan(&mut place, PAGE).map_err(crate::run::unreadable)?;
                for (key, flow) in read {
                    let real = self.tables.reals.get(&flow.real).copied().unwrap_or_default();
                    if lives(&flow, now_ns) && wanted.flow(&key, &flow, &real) {
                        page.matched += 1;
                        match request.show {
                            FlowShow::List => page.flows.push(self.flow(&key, &flow, &real, (table, now_ns))),
                            FlowShow::Count => {}
                            FlowShow::CountBy(by) => {
                                *counts.entry(group(by, &key, &flow, &real)).or_default() += 1
                            }
                        }
                    }
                }
            } else {
                place = kernel::Cursor::End;
            }
            page.next_cursor = encode(table, place);
            match page.next_cursor.and_then(decode) {
                Some(there) if page.flows.len() < PAGE => (table, place) = there,
                _ => break,
            }
        }
        let name = |group: Group| group.to_string();
        page.counts =
            counts.into_iter().map(|(group, flows)| FlowCount { name: name(group), flows }).collect();
        Ok(page)
    }

    fn flow(&self, key: &FlowKey, flow: &Flow, real: &Real, (table, now_ns): (Table, u64)) -> FlowView {
        const SECOND_NS: u64 = 1_000_000_000;
        let owner = self.layout.identify(flow.real);
        let is = |flag: u8| flow.flags & flag != 0;
        // The bits of a template mean other things.
        let is_template = is(FLOW_TEMPLATE);
        let source_port = if is_template { 0 } else { u16::from_be(flow.source_port_be) };
        FlowView {
            protocol: flow_protocol(key, flow),
            client: socket(&key.client, key.client_port_be),
            vip: socket(&key.virtual_address, key.virtual_port_be),
            real: real_end(key, flow, real),
            method: method(flow, real),
            service: owner.filter(|owner| owner.present).map(|owner| owner.service),
            state: flow_state(key, flow),
            expires_s: flow.expires_ns.saturating_sub(now_ns) / SECOND_NS,
            age_s: (now_ns / SECOND_NS).saturating_sub(flow.opened_s.into()),
            packets: flow.packets,
            table: match table {
                Table::Established => FlowTable::Established,
                Table::Embryonic => FlowTable::Embryonic,
                Table::Templates => FlowTable::Templates,
            },
            persistent: !is_template && is(FLOW_CONTROLLED),
            translated: !is_template && is(FLOW_TRANSLATED),
            source_port: (source_port != 0).then_some(source_port),
            inactive: !is_template && is(FLOW_INACTIVE),
            deleted: real.flags & abi::REAL_AVAILABLE == 0,
        }
    }
}

/// How packets of a flow go: by translation if it began so, whatever its real server's method is by now.
fn method(flow: &Flow, real: &Real) -> Forwarding {
    if flow.flags & FLOW_TEMPLATE == 0 && flow.flags & FLOW_TRANSLATED != 0 {
        Forwarding::Masquerade
    } else if real.flags & REAL_LOCAL != 0 {
        Forwarding::Local
    } else if real.method == METHOD_TUNNEL {
        Forwarding::Tunnel
    } else if flow.flags & FLOW_TEMPLATE != 0 && real.method == METHOD_MASQUERADE {
        Forwarding::Masquerade
    } else {
        Forwarding::DirectRouting
    }
}

fn real_end(key: &FlowKey, flow: &Flow, real: &Real) -> SocketAddr {
    SocketAddr::new(ip(&real.address), u16::from_be(real_port_be(key, flow, real)))
}

/// What flows are counted under.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Group {
    Client(Address),
    End(Address, u16),
    State(String),
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(client) => ip(client).fmt(f),
            Self::End(at, port_be) => socket(at, *port_be).fmt(f),
            Self::State(name) => f.write_str(name),
        }
    }
}

fn group(by: FlowGroup, key: &FlowKey, flow: &Flow, real: &Real) -> Group {
    match by {
        FlowGroup::Client => Group::Client(key.client),
        FlowGroup::Real => Group::End(real.address, real_port_be(key, flow, real)),
        FlowGroup::State => Group::State(flow_state(key, flow)),
        FlowGroup::Vip => Group::End(key.virtual_address, key.virtual_port_be),
    }
}

/// A filter in the terms of the tables.
struct Wanted<'a> {
    filter: &'a FlowFilter,
    /// Indices of the service's real servers.
    reals: Option<BTreeSet<u32>>,
    vip: Option<(Address, Option<u16>)>,
    real: Option<(Address, Option<u16>)>,
}

impl<'a> Wanted<'a> {
    fn of(director: &Director, filter: &'a FlowFilter) -> Result<Self, Refusal> {
        if let Some(state) = filter.state.as_deref()
            && !FLOW_STATES.contains(&state)
        {
            let text = format!("there is no state `{state}': one of {}", FLOW_STATES.join(", "));
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let reals = match filter.service {
            Some(service) if director.model.service(&service).is_none() => {
                let text = format!("there is no service {service}: `ipvsadm -Ln' lists them");
                return Err(Refusal::new(RefusalKind::NoSuchService, text));
            }
            Some(service) => Some(director.layout.reals_of(&service).collect()),
            None => None,
        };
        let end = |it: EndpointFilter| (address(it.address), it.port);
        Ok(Self { filter, reals, vip: filter.vip.map(end), real: filter.real.map(end) })
    }

    fn table(&self, table: Table) -> bool {
        match self.filter.table {
            Some(FlowTable::Established) => table == Table::Established,
            Some(FlowTable::Embryonic) => table == Table::Embryonic,
            Some(FlowTable::Templates) => table == Table::Templates,
            None => table != Table::Templates,
        }
    }

    fn flow(&self, key: &FlowKey, flow: &Flow, real: &Real) -> bool {
        let port_is = |wanted: Option<u16>, port_be: u16| wanted.is_none_or(|port| port.to_be() == port_be);
        let filter = self.filter;
        filter.protocol.is_none_or(|protocol| u32::from(protocol.number()) == key.protocol)
            && self.vip.is_none_or(|(address, port)| {
                address == key.virtual_address && port_is(port, key.virtual_port_be)
            })
            && self.real.is_none_or(|(address, port)| {
                address == real.address && port_is(port, real_port_be(key, flow, real))
            })
            && filter.client.is_none_or(|client| {
                port_is(client.port, key.client_port_be) && client.network.contains(&ip(&key.client))
            })
            && self.reals.as_ref().is_none_or(|reals| reals.contains(&flow.real))
            && filter.state.as_ref().is_none_or(|state| *state == flow_state(key, flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_that_can_be_asked_for_are_those_there_are() {
        let mut names: BTreeSet<String> = (0..=u8::MAX)
            .flat_map(|state| [6, 17, 132].map(|it| crate::connections::state_name(it, state)))
            .collect();
        names.extend(["NONE", "ASSURED"].map(str::to_owned));
        let asked: BTreeSet<String> = FLOW_STATES.into_iter().map(str::to_owned).collect();
        assert_eq!(asked, names);
        assert_eq!(asked.len(), FLOW_STATES.len());
    }
}
