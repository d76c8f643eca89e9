//! A master's part of the sweep: which of the flows that it meets are announced, and how they are told.

use crate::connections::real_port_be;
use crate::convert::socket;
use crate::sync::{Counts, count};
use abi::{
    FLOW_ASSURED, FLOW_INACTIVE, FLOW_NO_OUTPUT, FLOW_TEMPLATE, Flow, FlowKey, METHOD_DIRECT_ROUTING,
    METHOD_TUNNEL, REAL_LOCAL, Real, SERVICE_SIP, Settings, protocol,
};
use connsync::{
    Announcer, Candidate, Ends, FLAG_INACTIVE, FLAG_MASQUERADE, FLAG_NO_OUTPUT, FLAG_TEMPLATE, METHOD_LOCAL,
    Record, Writer,
};
use forward::{sctp_state, tcp_state};
use plan::Tables;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

const SECOND_NS: u64 = 1_000_000_000;
/// Everything is told at most once in this time, whoever asks.
const AGAIN_NS: u64 = 10 * SECOND_NS;

/// What a service's flows are told with.
#[derive(Clone, Copy, Debug)]
struct Of {
    mark: u32,
    persistence_s: u32,
    /// Templates are named by Call-IDs, for which the messages would need the text.
    by_call: bool,
}

/// Announces flows.
#[derive(Debug)]
pub(crate) struct Announcing {
    announcer: Announcer,
    writer: Writer,
    queue: mpsc::Sender<Vec<u8>>,
    counts: Arc<Counts>,
    services: BTreeMap<u32, Of>,
    /// Of the tables that the services were read from.
    version: Option<u64>,
    /// A backup has asked for everything.
    asked: Arc<AtomicBool>,
    /// When it may be told everything again.
    again_from_ns: u64,
}

impl Announcing {
    /// With messages put together by this writer, which go into this queue.
    pub(crate) fn new(
        writer: Writer,
        queue: mpsc::Sender<Vec<u8>>,
        counts: Arc<Counts>,
        asked: Arc<AtomicBool>,
    ) -> Self {
        Self {
            announcer: Announcer::default(),
            writer,
            queue,
            counts,
            services: BTreeMap::new(),
            version: None,
            asked,
            again_from_ns: 0,
        }
    }

    /// A slice of the sweep begins, with tables of this version.
    pub(crate) fn begin(&mut self, tables: &Tables, version: u64, now_ns: u64) {
        if now_ns >= self.again_from_ns && self.asked.swap(false, Ordering::Relaxed) {
            self.again_from_ns = now_ns.saturating_add(AGAIN_NS);
            self.announcer.forget();
        }
        if self.version == Some(version) {
            return;
        }
        self.version = Some(version);
        let of = |service: &abi::Service| Of {
            mark: service.mark,
            persistence_s: service.persistence_s,
            by_call: service.flags & SERVICE_SIP != 0,
        };
        self.services = tables.services.values().map(|service| (service.index, of(service))).collect();
    }

    /// A live flow or template.
    pub(crate) fn see(&mut self, tables: &Tables, key: &FlowKey, flow: &Flow) {
        let Some(real) = tables.reals.get(&flow.real) else { return };
        let Some(of) = self.services.get(&real.service).copied() else { return };
        let is_template = flow.flags & FLOW_TEMPLATE != 0;
        if is_template && of.by_call {
            return;
        }
        let timeout_ns = timeout_ns(&tables.settings, key, flow, of);
        // A full queue: it is due again in the next pass.
        if !self.announcer.is_due(&Candidate { key, flow, timeout_ns }) || self.queue.capacity() == 0 {
            return;
        }
        let record = record(key, flow, real, of.mark, timeout_ns);
        if !record.ends.are_of_one_family() {
            return;
        }
        let done = self.writer.add(&record);
        self.announcer.told(key, flow);
        count(&self.counts.records, 1);
        self.put(done);
    }

    /// A slice ends: nothing waits for the next one.
    pub(crate) fn flush(&mut self) {
        let done = self.writer.finish();
        self.put(done);
    }

    /// Every flow was met once.
    pub(crate) fn end_of_pass(&mut self) {
        self.announcer.end_of_pass();
    }

    /// A flow came from another director: it is not sent back.
    pub(crate) fn received(&mut self, key: &FlowKey, flow: &Flow) {
        self.announcer.told(key, flow);
    }

    fn put(&mut self, message: Option<Vec<u8>>) {
        let Some(message) = message else { return };
        if self.queue.try_send(message).is_err() {
            count(&self.counts.refused, 1);
        }
    }
}

/// The time-out of a flow's state.
fn timeout_ns(settings: &Settings, key: &FlowKey, flow: &Flow, of: Of) -> u64 {
    if flow.flags & FLOW_TEMPLATE != 0 {
        return u64::from(of.persistence_s) * SECOND_NS;
    }
    match u8::try_from(key.protocol) {
        Ok(protocol::TCP) => tcp_state::timeout_ns(settings, flow.state),
        Ok(protocol::SCTP) => sctp_state::timeout_ns(settings, flow.state),
        _ => settings.udp_timeout_ns,
    }
}

fn record(key: &FlowKey, flow: &Flow, real: &Real, mark: u32, timeout_ns: u64) -> Record {
    let is = |flag: u8| flow.flags & flag != 0;
    let is_template = is(FLOW_TEMPLATE);
    let method = if real.flags & REAL_LOCAL != 0 {
        METHOD_LOCAL
    } else if real.method == METHOD_TUNNEL {
        connsync::METHOD_TUNNEL
    } else if real.method == METHOD_DIRECT_ROUTING {
        connsync::METHOD_DIRECT_ROUTING
    } else {
        FLAG_MASQUERADE
    };
    let of = |holds: bool, flag: u32| if holds { flag } else { 0 };
    let flags = if is_template {
        method | FLAG_TEMPLATE | of(method != FLAG_MASQUERADE, FLAG_NO_OUTPUT)
    } else {
        method | of(is(FLOW_NO_OUTPUT), FLAG_NO_OUTPUT) | of(is(FLOW_INACTIVE), FLAG_INACTIVE)
    };
    let state = if is_template { is(FLOW_ASSURED).into() } else { flow.state.into() };
    Record {
        // Templates of marks have none.
        protocol: u8::try_from(key.protocol).unwrap_or_default(),
        flags,
        state,
        ends: Ends {
            client: socket(&key.client, key.client_port_be),
            vip: socket(&key.virtual_address, key.virtual_port_be),
            real: socket(&real.address, real_port_be(key, flow, real)),
        },
        mark,
        timeout_s: Some(u32::try_from(timeout_ns / SECOND_NS).unwrap_or(u32::MAX)),
    }
}
