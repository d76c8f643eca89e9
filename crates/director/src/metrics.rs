//! What the director counts, in the text format of Prometheus (OpenMetrics 1.0).

use api::{Counters, HealthView, Services, Standing, Status, SyncDaemons, SyncRole, SyncView, Verdicts};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// A gauge of a number with a fraction.
type Number = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServiceWay {
    service: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReal {
    service: String,
    real: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRealWay {
    service: String,
    real: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRealState {
    service: String,
    real: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVerdict {
    verdict: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTable {
    table: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRole {
    role: &'static str,
}

/// All of it.
pub(crate) fn render(
    status: &Status,
    services: &Services,
    health: &HealthView,
    verdicts: &Verdicts,
    sync: &SyncDaemons,
    (sent, dropped): (u64, u64),
) -> String {
    let mut registry = Registry::with_prefix("sluice");
    add_status(&mut registry, status);
    add_services(&mut registry, services);
    add_reals(&mut registry, services);
    add_health(&mut registry, health);
    let packets = Family::<OfVerdict, Counter>::default();
    registry.register("verdict_packets", "What became of packets", packets.clone());
    for it in &verdicts.verdicts {
        packets.get_or_create(&OfVerdict { verdict: it.name.clone() }).inc_by(it.packets);
    }
    let spans = Family::<OfResult, Counter>::default();
    registry.register("trace_spans", "Spans for the collector of --otlp", spans.clone());
    for (result, count) in [("sent", sent), ("dropped", dropped)] {
        spans.get_or_create(&OfResult { result }).inc_by(count);
    }
    add_sync(&mut registry, sync);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

fn add_sync(registry: &mut Registry, sync: &SyncDaemons) {
    let running = Family::<OfRole, Gauge>::default();
    let [messages, flows, refused, unknown] = [(); 4].map(|()| Family::<OfRole, Counter>::default());
    registry.register(
        "sync_running",
        "Whether the daemon of connection synchronisation runs",
        running.clone(),
    );
    registry.register("sync_messages", "Messages of connection synchronisation", messages.clone());
    registry.register("sync_flows", "Flows and templates in them", flows.clone());
    registry.register("sync_refused", "Messages not sent, or refused when they came", refused.clone());
    registry.register("sync_unknown", "Flows that were not taken over", unknown.clone());
    for SyncView { daemon, running: runs, counts } in &sync.daemons {
        let role = OfRole {
            role: match daemon.role {
                SyncRole::Master => "master",
                SyncRole::Backup => "backup",
            },
        };
        running.get_or_create(&role).set((*runs).into());
        messages.get_or_create(&role).inc_by(counts.messages);
        flows.get_or_create(&role).inc_by(counts.records);
        refused.get_or_create(&role).inc_by(counts.refused);
        unknown.get_or_create(&role).inc_by(counts.unknown);
    }
}

fn add_status(registry: &mut Registry, status: &Status) {
    let generation = Gauge::<i64>::default();
    generation.set(status.generation.cast_signed());
    registry.register("generation", "Number of the present configuration", generation);
    let uptime = Gauge::<i64>::default();
    uptime.set(status.uptime_s.cast_signed());
    registry.register_with_unit("uptime", "Since the daemon started", Unit::Seconds, uptime);
    let (now, most) = (Family::<OfTable, Gauge>::default(), Family::<OfTable, Gauge>::default());
    registry.register("flows", "Entries of a table, as of the last sweep", now.clone());
    registry.register("flows_max", "Room of a table", most.clone());
    for (table, entries, room) in [
        ("embryonic", status.embryonic_flows, status.embryonic_flows_max),
        ("established", status.established_flows, status.established_flows_max),
        ("templates", status.templates, status.templates_max),
    ] {
        now.get_or_create(&OfTable { table }).set(entries.cast_signed());
        most.get_or_create(&OfTable { table }).set(room.cast_signed());
    }
}

/// Packets and bytes, by direction.
fn ways(counters: &Counters) -> [(&'static str, u64, u64); 2] {
    [("in", counters.in_packets, counters.in_bytes), ("out", counters.out_packets, counters.out_bytes)]
}

fn add_services(registry: &mut Registry, services: &Services) {
    let connections = Family::<OfService, Counter>::default();
    let (packets, bytes) =
        (Family::<OfServiceWay, Counter>::default(), Family::<OfServiceWay, Counter>::default());
    registry.register("service_connections", "Connections that were scheduled", connections.clone());
    registry.register("service_packets", "Packets from (in) and to (out) clients", packets.clone());
    registry.register_with_unit(
        "service",
        "IP bytes from (in) and to (out) clients",
        Unit::Bytes,
        bytes.clone(),
    );
    for it in &services.services {
        let service = it.id.to_string();
        connections.get_or_create(&OfService { service: service.clone() }).inc_by(it.counters.connections);
        for (direction, packet_count, byte_count) in ways(&it.counters) {
            let of = OfServiceWay { service: service.clone(), direction };
            packets.get_or_create(&of).inc_by(packet_count);
            bytes.get_or_create(&of).inc_by(byte_count);
        }
    }
}

fn add_reals(registry: &mut Registry, services: &Services) {
    let connections = Family::<OfReal, Counter>::default();
    let (packets, bytes) = (Family::<OfRealWay, Counter>::default(), Family::<OfRealWay, Counter>::default());
    let weight = Family::<OfReal, Gauge>::default();
    let flows = Family::<OfRealState, Gauge>::default();
    registry.register("real_connections", "Connections that were given to it", connections.clone());
    registry.register("real_packets", "Packets from (in) and to (out) its clients", packets.clone());
    registry.register_with_unit(
        "real",
        "IP bytes from (in) and to (out) its clients",
        Unit::Bytes,
        bytes.clone(),
    );
    registry.register("real_weight", "Weight in the packet path", weight.clone());
    registry.register("real_flows", "Flows by state", flows.clone());
    for it in &services.services {
        for real_view in &it.reals {
            let (service, real) = (it.id.to_string(), real_view.id.to_string());
            let of = OfReal { service: service.clone(), real: real.clone() };
            connections.get_or_create(&of).inc_by(real_view.counters.connections);
            weight.get_or_create(&of).set(real_view.spec.weight.into());
            for (direction, packet_count, byte_count) in ways(&real_view.counters) {
                let of = OfRealWay { service: service.clone(), real: real.clone(), direction };
                packets.get_or_create(&of).inc_by(packet_count);
                bytes.get_or_create(&of).inc_by(byte_count);
            }
            for (state, count) in [
                ("active", real_view.active),
                ("inactive", real_view.inactive),
                ("persistent", real_view.persistent),
            ] {
                let of = OfRealState { service: service.clone(), real: real.clone(), state };
                flows.get_or_create(&of).set(count.into());
            }
        }
    }
}

fn add_health(registry: &mut Registry, health: &HealthView) {
    let up = Family::<OfReal, Gauge>::default();
    let latency = Family::<OfReal, Number>::default();
    let fallback = Family::<OfService, Gauge>::default();
    registry.register("real_up", "Whether its checks pass: 1 or 0", up.clone());
    registry.register_with_unit("real_check", "How long its last check took", Unit::Seconds, latency.clone());
    registry.register("service_fallback", "Whether the fallback has the work: 1 or 0", fallback.clone());
    for it in &health.services {
        let service = it.service.to_string();
        fallback.get_or_create(&OfService { service: service.clone() }).set(it.fallback.into());
        for real_view in &it.reals {
            let of = OfReal { service: service.clone(), real: real_view.real.to_string() };
            let passes = !matches!(real_view.standing, Standing::Down | Standing::Unknown);
            up.get_or_create(&of).set(passes.into());
            if let Some(milliseconds) = real_view.latency_ms {
                latency.get_or_create(&of).set(milliseconds / 1000.0);
            }
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
