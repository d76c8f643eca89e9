//! What the director shows of itself.

use crate::actor::{Director, log_error};
use crate::convert::mac;
use abi::Verdict;
use api::{
    ConfiguredStatus, Counters, HealthStatus, InterfaceStatus, Policies, RealView, ServicePolicy,
    ServiceView, Services, Status, TrafficStatus, VerdictCount, Verdicts,
};
use kernel::TableError;

impl Director {
    /// What the director does, in a sentence for the service manager.
    pub(crate) fn summary(&self) -> String {
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!(
            "balancing {} over {} on {}, configuration {}",
            count(self.declared.services().len(), "service"),
            count(self.declared.reals_len(), "real server"),
            count(self.datapath.attachments().len(), "interface"),
            self.generation
        )
    }

    pub(crate) fn status(&self) -> Status {
        let names = kernel::interface_names();
        let interfaces = self.datapath.attachments().iter().map(|attachment| InterfaceStatus {
            name: names.get(&attachment.interface).cloned().unwrap_or_else(|| "(gone)".to_owned()),
            index: attachment.interface,
            mode: attachment.mode.name().to_owned(),
        });
        let (found, limits) = (self.sweep.found(), self.datapath.limits());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            generation: self.generation,
            uptime_s: self.started.elapsed().as_secs(),
            adopted: self.adopted,
            tables_changed: self.tables_changed,
            interfaces: interfaces.collect(),
            embryonic_flows: found.embryonic,
            embryonic_flows_max: limits.embryonic_flows_max.into(),
            established_flows: found.established,
            established_flows_max: limits.established_flows_max.into(),
            templates: found.templates,
            templates_max: limits.templates_max.into(),
            configured: self.configured_status(),
            health: self.health_status(),
            traffic: self.traffic_status(),
        }
    }

    fn configured_status(&self) -> ConfiguredStatus {
        let pending = self.history.pending().unwrap_or_else(|error| {
            log_error("what is to be confirmed could not be read", &error);
            None
        });
        let reals = self.declared.services().map(|(_, entry)| entry.reals().count() as u64);
        ConfiguredStatus {
            services: self.declared.services().len() as u64,
            real_servers: reals.sum(),
            confirm_until_ms: pending.map(|pending| pending.deadline_ms),
        }
    }

    fn health_status(&self) -> HealthStatus {
        let mut status = HealthStatus::default();
        for service in self.health_view().services {
            status.panicking_services += u64::from(service.panic);
            status.services_on_fallback += u64::from(service.fallback);
            for real in service.reals {
                *status.standings.entry(real.standing.name().to_owned()).or_default() += 1;
            }
        }
        status
    }

    fn traffic_status(&self) -> TrafficStatus {
        let services = self.model.services().filter_map(|(id, _)| self.layout.service_index(id));
        let counters =
            services.fold(Counters::default(), |sum, index| add(sum, self.statistics.service(index)));
        let counts = self.counted_verdicts().unwrap_or_else(|error| {
            log_error("verdicts not read", &error);
            Vec::new()
        });
        let drops =
            Verdict::ALL.into_iter().filter(|it| !it.is_forward() && !it.is_pass() && !it.is_answer());
        let dropped = drops.filter_map(|it| counts.get(it.number() as usize));
        TrafficStatus { counters, dropped_packets: dropped.sum(), capturing: self.capture.is_busy() }
    }

    pub(crate) fn policies(&self) -> Policies {
        let services = self.model.services().map(|(id, entry)| ServicePolicy {
            service: *id,
            policy: self.model.policy(entry),
            chosen: entry.policy_choices(),
        });
        Policies { default: self.model.default_policy(), services: services.collect() }
    }

    pub(crate) fn services(&self) -> Result<Services, TableError> {
        let names = kernel::interface_names();
        let mut services = Vec::new();
        for (id, entry) in self.model.services() {
            let mut reals = Vec::new();
            for (real, it) in entry.reals() {
                let index = self.layout.real_index(id, real);
                let load = match index {
                    Some(index) => self.datapath.tables().loads.get(index)?.unwrap_or_default(),
                    None => abi::Load::default(),
                };
                let (active, inactive) = load.clamped();
                let neighbour = self.neighbours.get(&real.address).map(|next_hop| {
                    let interface = names.get(&next_hop.ifindex).map_or("(gone)", String::as_str);
                    format!("{} dev {interface}", mac(&next_hop.destination_mac))
                });
                reals.push(RealView {
                    id: *real,
                    spec: it.spec,
                    active,
                    inactive,
                    persistent: load.persistent.max(0).cast_unsigned(),
                    neighbour,
                    counters: index.map(|index| self.statistics.real(index)).unwrap_or_default(),
                });
            }
            let index = self.layout.service_index(id);
            let counters = index.map(|index| self.statistics.service(index)).unwrap_or_default();
            services.push(ServiceView { id: *id, spec: entry.spec().clone(), counters, reals });
        }
        Ok(Services {
            connection_table_size: self.datapath.limits().established_flows_max,
            timeouts: self.model.timeouts(),
            services,
        })
    }

    /// What the packet path counted, by number of the verdict; the commonest one is not among it.
    pub(crate) fn counted_verdicts(&self) -> Result<Vec<u64>, TableError> {
        self.datapath.tables().verdicts.fold_range(0, abi::VERDICTS_MAX, u64::wrapping_add)
    }

    /// Packets by verdict. The packet path does not count those of known flows: they are the packets of the real servers less
    /// those counted under another forwarding verdict.
    pub(crate) fn verdicts(&self) -> Result<Verdicts, TableError> {
        let mut counts = self.counted_verdicts()?;
        let packets: u64 = self.counters()?.iter().map(|counters| counters.in_packets).sum();
        let at = |verdict: Verdict| verdict.number() as usize;
        let counted = Verdict::ALL.into_iter().filter(|verdict| verdict.is_counted_forward());
        let elsewhere: u64 = counted.filter_map(|verdict| counts.get(at(verdict))).sum();
        if let Some(known) = counts.get_mut(at(Verdict::ForwardKnown)) {
            // The counters go on while they are read, so the difference may be off by what came in between.
            *known = known.wrapping_add(packets).wrapping_sub(elsewhere);
            // What was taken back makes the counter itself less than nothing; so may the race.
            *known = if known.cast_signed() < 0 { 0 } else { *known };
        }
        let verdicts = Verdict::ALL.into_iter().map(|verdict| VerdictCount {
            number: verdict.number(),
            name: verdict.name().to_owned(),
            sentence: verdict.sentence().to_owned(),
            packets: counts.get(at(verdict)).copied().unwrap_or_default(),
        });
        Ok(Verdicts { verdicts: verdicts.collect() })
    }
}

fn add(a: Counters, b: Counters) -> Counters {
    Counters {
        connections: a.connections + b.connections,
        in_packets: a.in_packets + b.in_packets,
        out_packets: a.out_packets + b.out_packets,
        in_bytes: a.in_bytes + b.in_bytes,
        out_bytes: a.out_bytes + b.out_bytes,
        connections_per_s: a.connections_per_s + b.connections_per_s,
        in_packets_per_s: a.in_packets_per_s + b.in_packets_per_s,
        out_packets_per_s: a.out_packets_per_s + b.out_packets_per_s,
        in_bytes_per_s: a.in_bytes_per_s + b.in_bytes_per_s,
        out_bytes_per_s: a.out_bytes_per_s + b.out_bytes_per_s,
    }
}
