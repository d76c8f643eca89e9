//! A backup's part: what another director announces becomes flows and templates of this one [`ip_vs_sync.c`, `ip_vs_proc_conn`].
//!
//! The real server and its method are those of the configuration here. What names a service or a real server that is not in it is not
//! taken over; the master announces again what goes on.

use crate::actor::{Director, log_error};
use crate::convert::address;
use crate::sync::{Ready, count};
use abi::{
    FLOW_ASSURED, FLOW_EMBRYONIC, FLOW_INACTIVE, FLOW_KEEPS_PORT, FLOW_NO_OUTPUT, FLOW_OVERFLOW,
    FLOW_TEMPLATE, FLOW_TRANSLATED, Flow, FlowKey, Load, METHOD_MASQUERADE, REAL_AVAILABLE, REAL_LOCAL,
    REAL_TRANSLATE_SOURCE, Real, Reply, SCTP_STATES, Settings, TcpState, protocol,
};
use api::{Family, Protocol, RealId, Refusal, ServiceId, SyncRole};
use connsync::{FLAG_INACTIVE, FLAG_MASQUERADE, FLAG_METHOD, FLAG_TEMPLATE, Record};
use forward::{real_side, sctp_state, tcp_state};
use kernel::{HashTable, Put, TableError};

const SECOND_NS: u64 = 1_000_000_000;
/// Life of a template of version 0, whose records tell none.
const OLD_TEMPLATE_S: u64 = 180;
/// FTP's control port, whose service has the data connections too; its data port; and the first that its users may open.
const FTP: u16 = 21;
const FTP_DATA: u16 = 20;
const UNPRIVILEGED: u16 = 1024;

impl Director {
    /// Lets a daemon run.
    pub(crate) fn start_sync(&mut self, ready: Ready) -> Result<(), Refusal> {
        if let Some(announcing) = self.sync.start(ready)? {
            self.sweep.announcing = Some(announcing);
        }
        Ok(())
    }

    /// Ends a daemon.
    pub(crate) fn stop_sync(&mut self, role: SyncRole) -> Result<(), Refusal> {
        self.sync.stop(role)?;
        if role == SyncRole::Master {
            self.sweep.announcing = None;
        }
        Ok(())
    }

    /// Takes over what another director announces.
    pub(crate) fn synchronise(&mut self, records: &[Record], now_ns: u64) {
        let mut unknown = 0;
        for record in records {
            match self.take_over(record, now_ns) {
                Ok(true) => {}
                Ok(false) => unknown += 1,
                Err(error) if error.is_full() => unknown += 1,
                Err(error) => log_error("a flow of another director could not be taken over", &error),
            }
        }
        if let Some(counts) = self.sync.backup_counts() {
            count(&counts.records, records.len());
            count(&counts.unknown, unknown);
        }
    }

    /// One record. `false` when nothing here corresponds to it.
    fn take_over(&mut self, record: &Record, now_ns: u64) -> Result<bool, TableError> {
        let Some(index) = self.real_of(record) else { return Ok(false) };
        let Some(real) = self.tables.reals.get(&index).copied() else { return Ok(false) };
        let key = key_of(record);
        let taken = if record.flags & FLAG_TEMPLATE != 0 {
            self.take_over_template(&key, record, index, now_ns)?
        } else {
            self.take_over_flow(&key, record, (index, &real), now_ns)?
        };
        let Some(flow) = taken else { return Ok(false) };
        if let Some(announcing) = &mut self.sweep.announcing {
            announcing.received(&key, &flow);
        }
        Ok(true)
    }

    /// The real server here that a record names.
    fn real_of(&self, record: &Record) -> Option<u32> {
        let ends = &record.ends;
        let service = self.service_of(record)?;
        let entry = self.model.service(&service)?;
        let port = ends.real.port();
        let is_masqueraded = record.flags & FLAG_METHOD == FLAG_MASQUERADE;
        // What is reached by its own address has the packet's port, however it was added.
        let ports = if record.mark != 0 && !is_masqueraded { [0, port] } else { [port, 0] };
        let mut reals = ports.into_iter().map(|port| RealId { address: ends.real.ip(), port });
        let real = reals.find(|real| entry.real(real).is_some()).or_else(|| {
            // A template of all ports tells none of its real server's.
            let is_of_all = record.flags & FLAG_TEMPLATE != 0 && port == 0;
            let mut all = entry.reals().map(|(id, _)| *id);
            if is_of_all { all.find(|id| id.address == ends.real.ip()) } else { None }
        })?;
        self.layout.real_index(&service, &real)
    }

    fn service_of(&self, record: &Record) -> Option<ServiceId> {
        let vip = record.ends.vip;
        if record.mark != 0 {
            let family = if vip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
            let service = ServiceId::Fwmark { mark: record.mark, family };
            return self.model.service(&service).map(|_| service);
        }
        let protocol = Protocol::from_number(record.protocol)?;
        let port = vip.port();
        let may_be_ftp = protocol == Protocol::Tcp && (port == 0 || port == FTP_DATA || port >= UNPRIVILEGED);
        let ports = [Some(port), may_be_ftp.then_some(FTP), Some(0)].into_iter().flatten();
        let at = |port| ServiceId::Address { protocol, address: vip.ip(), port };
        ports.map(at).find(|service| self.model.service(service).is_some())
    }

    fn take_over_template(
        &mut self,
        key: &FlowKey,
        record: &Record,
        index: u32,
        now_ns: u64,
    ) -> Result<Option<Flow>, TableError> {
        let maps = self.datapath.tables();
        let life_s = record.timeout_s.map_or(OLD_TEMPLATE_S, u64::from);
        let before = maps.templates.get(key)?;
        let kept = before.filter(|before| before.real == index);
        let assured = if record.state != 0 { FLOW_ASSURED } else { 0 };
        let opened_s = u32::try_from(now_ns / SECOND_NS).unwrap_or(u32::MAX);
        let fresh = Flow { real: index, flags: FLOW_TEMPLATE, opened_s, ..Flow::default() };
        let base = kept.unwrap_or(fresh);
        let flow = Flow {
            expires_ns: now_ns.saturating_add(life_s * SECOND_NS),
            flags: base.flags | assured,
            ..base
        };
        self.replace(Place { table: &maps.templates, key }, before.as_ref(), &flow)?;
        Ok(Some(flow))
    }

    fn take_over_flow(
        &mut self,
        key: &FlowKey,
        record: &Record,
        (index, real): (u32, &Real),
        now_ns: u64,
    ) -> Result<Option<Flow>, TableError> {
        let Some(timeout_ns) = timeout_ns(&self.tables.settings, record) else { return Ok(None) };
        let maps = self.datapath.tables();
        let is_translated = real.method == METHOD_MASQUERADE && real.flags & REAL_LOCAL == 0;
        if real.flags & REAL_AVAILABLE == 0 || is_translated && real.flags & REAL_TRANSLATE_SOURCE != 0 {
            return Ok(None);
        }
        let established = maps.established.get(key)?;
        let before = match established {
            Some(before) => Some(before),
            None => maps.embryonic.get(key)?,
        };
        let is_inactive = record.flags & FLAG_INACTIVE != 0;
        if before.is_some_and(|before| before.real != index) && is_inactive {
            // The one that is here may be newer than what has ended there.
            return Ok(None);
        }
        let kept = before.filter(|before| before.real == index);
        let way = if is_translated { FLOW_TRANSLATED } else { FLOW_NO_OUTPUT };
        let is_other_port =
            record.ends.real.port() == record.ends.vip.port() && real.port_be != key.virtual_port_be;
        let keeps_port = if is_other_port && real.port_be != 0 { FLOW_KEEPS_PORT } else { 0 };
        let opened_s = u32::try_from(now_ns / SECOND_NS).unwrap_or(u32::MAX);
        let fresh = Flow { real: index, flags: way | keeps_port, opened_s, ..Flow::default() };
        let base = kept.unwrap_or(fresh);
        let flow = Flow {
            expires_ns: now_ns.saturating_add(timeout_ns),
            state: u8::try_from(record.state).unwrap_or_default(),
            flags: base.flags & !(FLOW_INACTIVE | FLOW_EMBRYONIC | FLOW_OVERFLOW)
                | if is_inactive { FLOW_INACTIVE } else { 0 },
            ..base
        };
        if flow.flags & FLOW_TRANSLATED != 0 {
            self.keep_way_back(key, &flow, real)?;
        }
        self.replace(Place { table: &maps.established, key }, before.as_ref(), &flow)?;
        if established.is_none() && before.is_some() {
            maps.embryonic.delete(key)?;
        }
        Ok(Some(flow))
    }

    /// Where replies of a masqueraded real server go. The routing table knows the way to the client.
    fn keep_way_back(&self, key: &FlowKey, flow: &Flow, real: &Real) -> Result<(), TableError> {
        let reply = Reply {
            client: key.client,
            virtual_address: key.virtual_address,
            client_port_be: key.client_port_be,
            virtual_port_be: key.virtual_port_be,
            real: flow.real,
            ..Reply::default()
        };
        let ends = real_side(key, real, 0, flow.flags & FLOW_KEEPS_PORT != 0);
        self.datapath.tables().replies.put(&ends, &reply, Put::Any)
    }

    /// Writes an entry and counts it for its real server. A packet that changes the old one at this moment is forgotten, as
    /// if it had not come: the sweep repairs what that does to the counts.
    fn replace(&self, at: Place<'_>, before: Option<&Flow>, flow: &Flow) -> Result<(), TableError> {
        at.table.put(at.key, flow, Put::Any)?;
        let loads = &self.datapath.tables().loads;
        if let Some(before) = before {
            loads.add(before.real, Load::of(before).negated())?;
        }
        loads.add(flow.real, Load::of(flow))
    }
}

/// An entry of a table.
struct Place<'a> {
    table: &'a HashTable<FlowKey, Flow>,
    key: &'a FlowKey,
}

fn key_of(record: &Record) -> FlowKey {
    let ends = &record.ends;
    FlowKey {
        client: address(ends.client.ip()),
        virtual_address: address(ends.vip.ip()),
        client_port_be: ends.client.port().to_be(),
        virtual_port_be: ends.vip.port().to_be(),
        protocol: record.protocol.into(),
    }
}

/// The time-out of a flow; `None` when there is no such state.
fn timeout_ns(settings: &Settings, record: &Record) -> Option<u64> {
    let state = u8::try_from(record.state).ok()?;
    let of_table = match record.protocol {
        protocol::TCP if usize::from(state) < TcpState::ALL.len() => tcp_state::timeout_ns(settings, state),
        protocol::SCTP if usize::from(state) < SCTP_STATES.len() => sctp_state::timeout_ns(settings, state),
        protocol::UDP if state == 0 => settings.udp_timeout_ns,
        _ => return None,
    };
    Some(record.timeout_s.map_or(of_table, |timeout_s| u64::from(timeout_s) * SECOND_NS))
}
