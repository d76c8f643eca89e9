//! A list of changes for people: what becomes of what, and which connections suffer.

use crate::model::Model;
use api::{
    Admission, Change, Check, Forwarding, Gone, HealthSpec, Mark, PlanAction, PlanLine, PolicyChoices,
    RealId, RealSpec, ServiceId, ServiceSpec, Tunnel,
};
use indexmap::IndexMap;

/// What is said of a list of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// What changes, service by service.
    pub lines: Vec<PlanLine>,
    /// What breaks connections.
    pub warnings: Vec<String>,
}

/// Describes changes to a model. `flows` says how many connections a real server has now.
#[must_use]
pub fn describe(now: &Model, changes: &[Change], flows: impl Fn(&ServiceId, &RealId) -> u32) -> Description {
    let mut describer = Describer {
        model: now.clone(),
        now,
        flows: &flows,
        general: Vec::new(),
        services: IndexMap::new(),
        warnings: Vec::new(),
    };
    for change in changes {
        describer.take(change);
        // What was worked out from the same model is not refused; if it were, it would be told when it is applied.
        let _ = describer.model.apply(change);
    }
    let mut lines = describer.general;
    for (service, part) in describer.services {
        let text = match (&part.action, &part.about) {
            (PlanAction::Change, _) => format!("service {service}"),
            (_, about) => format!("service {service}{about}"),
        };
        lines.push(PlanLine { action: part.action, level: 0, text });
        lines.extend(part.lines);
    }
    Description { lines, warnings: describer.warnings }
}

/// What happens to one service.
struct Part {
    action: PlanAction,
    about: String,
    lines: Vec<PlanLine>,
}

struct Describer<'a> {
    /// As it is after the changes so far.
    model: Model,
    /// As it is before all of them.
    now: &'a Model,
    flows: &'a dyn Fn(&ServiceId, &RealId) -> u32,
    general: Vec<PlanLine>,
    services: IndexMap<ServiceId, Part>,
    warnings: Vec<String>,
}

impl Describer<'_> {
    fn part(&mut self, service: &ServiceId) -> &mut Part {
        self.services.entry(*service).or_insert_with(|| Part {
            action: PlanAction::Change,
            about: String::new(),
            lines: Vec::new(),
        })
    }

    fn say(&mut self, service: &ServiceId, action: PlanAction, text: String) {
        self.part(service).lines.push(PlanLine { action, level: 1, text });
    }

    fn generally(&mut self, action: PlanAction, text: String) {
        self.general.push(PlanLine { action, level: 0, text });
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::AddService { service, spec } => {
                let part = self.part(service);
                part.action = PlanAction::Add;
                part.about = format!(": {}", service_words(spec));
            }
            Change::EditService { service, spec } => self.edit_service(service, spec),
            Change::DeleteService { service } => self.delete_service(service),
            Change::Flush => {
                let all: Vec<ServiceId> = self.model.services().map(|(id, _)| *id).collect();
                for service in all {
                    self.delete_service(&service);
                }
            }
            Change::AddReal { service, real, spec } => {
                self.say(service, PlanAction::Add, format!("real server {real}: {}", real_words(spec)));
            }
            Change::EditReal { service, real, spec } => self.edit_real(service, real, spec),
            Change::DeleteReal { service, real } => {
                self.say(service, PlanAction::Remove, format!("real server {real}"));
                self.warn_of_loss(service, real);
            }
            Change::Zero { .. } => {}
            Change::SetPolicy { service: Some(service), choices, .. } => {
                self.say(service, PlanAction::Change, format!("policy: {}", policy_words(*choices)));
            }
            Change::SetPolicy { service: None, choices, .. } => {
                self.generally(
                    PlanAction::Change,
                    format!("policy of all services: {}", policy_words(*choices)),
                );
            }
            Change::SetSetting { name, value } => {
                let before = self.model.setting(name);
                self.generally(PlanAction::Change, format!("setting {name}: {before} -> {value}"));
            }
            Change::AddMark { matched, mark } => {
                self.generally(PlanAction::Add, format!("mark {mark} for {matched}"));
            }
            Change::DeleteMark { matched } => {
                let of = self.model.marks().find(|it| it.matched == *matched);
                let mark = of.map_or(String::new(), |Mark { mark, .. }| format!(" {mark}"));
                self.generally(PlanAction::Remove, format!("mark{mark} for {matched}"));
            }
            Change::SetAdmission { service, admission } => {
                self.say(service, PlanAction::Change, admission_words(admission));
            }
            Change::SetHealth { service, health } => self.set_health(service, health),
            Change::SetRealHealth { service, real, health } => {
                let checks = match &health.checks {
                    Some(checks) => format!("own checks: {}", check_words(checks)),
                    None => "checks of the service".to_owned(),
                };
                let drain = if health.drain { ", drained" } else { "" };
                self.say(service, PlanAction::Change, format!("real server {real}: {checks}{drain}"));
            }
            Change::SetDrain { service, real, drain } => {
                let word = if *drain { "drained" } else { "not drained any more" };
                self.say(service, PlanAction::Change, format!("real server {real}: {word}"));
            }
            Change::SetTimeouts { timeouts } => {
                let text = format!(
                    "time-outs: tcp {} s, tcp after FIN {} s, udp {} s",
                    timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s
                );
                self.generally(PlanAction::Change, text);
            }
        }
    }

    fn edit_service(&mut self, service: &ServiceId, spec: &ServiceSpec) {
        let before = self.model.service(service).map(|entry| service_words(entry.spec())).unwrap_or_default();
        self.say(service, PlanAction::Change, format!("{before} -> {}", service_words(spec)));
    }

    fn delete_service(&mut self, service: &ServiceId) {
        self.part(service).action = PlanAction::Remove;
        let entry = self.now.service(service);
        let reals: Vec<RealId> =
            entry.into_iter().flat_map(|entry| entry.reals()).map(|(id, _)| *id).collect();
        let lost: u64 = reals.iter().map(|real| u64::from((self.flows)(service, real))).sum();
        if lost > 0 {
            self.warnings.push(format!("{service} goes, and with it {lost} connections"));
        }
    }

    fn edit_real(&mut self, service: &ServiceId, real: &RealId, spec: &RealSpec) {
        let Some(before) = self.model.service(service).and_then(|it| it.real(real)).map(|it| it.spec) else {
            return;
        };
        let words = if before.weight != spec.weight && (RealSpec { weight: spec.weight, ..before }) == *spec {
            format!("weight {} -> {}", before.weight, spec.weight)
        } else {
            format!("{} -> {}", real_words(&before), real_words(spec))
        };
        self.say(service, PlanAction::Change, format!("real server {real}: {words}"));
        let flows = (self.flows)(service, real);
        let is_other_way = before.forwarding != spec.forwarding || before.tunnel != spec.tunnel;
        if is_other_way && flows > 0 {
            self.warnings.push(format!(
                "{real} of {service} is reached by another method: {flows} connections break unless the server takes both"
            ));
        }
    }

    fn warn_of_loss(&mut self, service: &ServiceId, real: &RealId) {
        let flows = (self.flows)(service, real);
        if flows == 0 {
            return;
        }
        let policy = self.model.service(service).map(|entry| self.model.policy(entry)).unwrap_or_default();
        let fate = match policy.gone {
            Gone::Keep => "they hang until their clients give up",
            Gone::Reschedule => "they hang until their clients open new ones",
            Gone::Reset => "they are reset at their next packet",
        };
        self.warnings.push(format!(
            "{real} of {service} goes with {flows} connections: {fate}; `sluice drain' lets them end first"
        ));
    }

    fn set_health(&mut self, service: &ServiceId, health: &HealthSpec) {
        let text = if health.checks.is_empty() {
            "health: no checks".to_owned()
        } else {
            format!("health: {}", check_words(&health.checks))
        };
        let fallback = health.fallback.map_or(String::new(), |it| format!(", fallback {}", it.real));
        self.say(service, PlanAction::Change, text + &fallback);
    }
}

fn admission_words(admission: &Admission) -> String {
    let Admission { allow, deny, connections_per_client, rate_per_client } = admission;
    let mut parts = Vec::new();
    for (word, networks) in [("allowed", allow), ("denied", deny)] {
        match networks.as_slice() {
            [] => {}
            [one] => parts.push(format!("{word} {one}")),
            [first, ..] => parts.push(format!("{word} {} networks, {first} the first", networks.len())),
        }
    }
    if *connections_per_client != 0 {
        parts.push(format!("{connections_per_client} connections a client"));
    }
    if *rate_per_client != 0 {
        parts.push(format!("{rate_per_client} new connections a client and second"));
    }
    if parts.is_empty() { "clients: all".to_owned() } else { format!("clients: {}", parts.join(", ")) }
}

fn service_words(spec: &ServiceSpec) -> String {
    let mut words = format!("scheduler {}", spec.scheduler);
    if spec.scheduler_flags.any() {
        words += " with flags";
    }
    if let Some(persistence) = &spec.persistence {
        words += &format!(", persistent {} s", persistence.timeout_s);
    }
    if let Some(engine) = &spec.persistence_engine {
        words += &format!(" by {engine}");
    }
    if spec.one_packet {
        words += ", one packet";
    }
    words
}

fn real_words(spec: &RealSpec) -> String {
    let method = match (spec.forwarding, spec.tunnel) {
        (Forwarding::Masquerade, _) => "NAT".to_owned(),
        (Forwarding::Local, _) => "local".to_owned(),
        (Forwarding::DirectRouting, _) => "direct routing".to_owned(),
        (Forwarding::Tunnel, Tunnel::Ipip) => "tunnel ipip".to_owned(),
        (Forwarding::Tunnel, Tunnel::Gue { port, .. }) => format!("tunnel gue to port {port}"),
        (Forwarding::Tunnel, Tunnel::Gre { .. }) => "tunnel gre".to_owned(),
    };
    let mut words = format!("weight {}, {method}", spec.weight);
    if spec.upper_threshold > 0 {
        words += &format!(", at most {} connections", spec.upper_threshold);
    }
    words
}

fn check_words(checks: &[Check]) -> String {
    let one = |check: &Check| {
        format!("{} every {} s", check.kind.name(), f64::from(check.rhythm.interval_ms) / 1000.0)
    };
    match checks {
        [] => "none".to_owned(),
        checks => checks.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn policy_words(choices: PolicyChoices) -> String {
    let switch = |on| if on { "on" } else { "off" };
    let words = [
        choices.gone.map(|it| format!("gone {}", it.name())),
        choices.rescue.map(|it| format!("rescue {}", switch(it))),
        choices.source_nat.map(|it| format!("source-nat {}", switch(it))),
        choices.placement.map(|it| format!("placement {}", it.name())),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { "as for all".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::samples::{real_spec, service, service_spec};
    use api::{CheckKind, Rhythm};

    fn real(number: u8) -> RealId {
        RealId { address: format!("10.0.0.{number}").parse().expect("address"), port: 80 }
    }

    fn text(description: &Description) -> Vec<String> {
        let line = |it: &PlanLine| {
            format!("{:indent$}{} {}", "", it.action.sign(), it.text, indent = usize::from(it.level) * 2)
        };
        description.lines.iter().map(line).collect()
    }

    #[test]
    fn a_plan_goes_service_by_service_and_warns_of_lost_connections() {
        let mut now = Model::new(Options::default());
        for change in [
            Change::AddService { service: service(0), spec: service_spec("rr") },
            Change::AddReal { service: service(0), real: real(1), spec: real_spec(1) },
            Change::AddReal { service: service(0), real: real(2), spec: real_spec(1) },
            Change::AddService { service: service(1), spec: service_spec("rr") },
            Change::AddReal { service: service(1), real: real(1), spec: real_spec(1) },
        ] {
            now.apply(&change).expect("a change");
        }
        let check = Check { kind: CheckKind::Tcp, address: None, port: None, rhythm: Rhythm::default() };
        let health = HealthSpec { checks: vec![check], ..HealthSpec::default() };
        let changes = [
            Change::DeleteService { service: service(1) },
            Change::SetSetting { name: "conn_reuse_mode".to_owned(), value: 3 },
            Change::EditService { service: service(0), spec: service_spec("wlc") },
            Change::DeleteReal { service: service(0), real: real(1) },
            Change::EditReal { service: service(0), real: real(2), spec: real_spec(7) },
            Change::SetHealth { service: service(0), health },
            Change::AddService { service: service(2), spec: service_spec("sh") },
            Change::AddReal { service: service(2), real: real(3), spec: real_spec(2) },
        ];
        let description =
            describe(&now, &changes, |_, real| if real.address.to_string() == "10.0.0.1" { 12 } else { 0 });
        let (first, second, third) = (service(0), service(1), service(2));
        assert_eq!(
            text(&description),
            [
                "~ setting conn_reuse_mode: 1 -> 3".to_owned(),
                format!("- service {second}"),
                format!("~ service {first}"),
                "  ~ scheduler rr -> scheduler wlc".to_owned(),
                "  - real server 10.0.0.1:80".to_owned(),
                "  ~ real server 10.0.0.2:80: weight 1 -> 7".to_owned(),
                "  ~ health: tcp every 2 s".to_owned(),
                format!("+ service {third}: scheduler sh"),
                "  + real server 10.0.0.3:80: weight 2, direct routing".to_owned(),
            ]
        );
        assert_eq!(
            description.warnings,
            [
                format!("{second} goes, and with it 12 connections"),
                format!(
                    "10.0.0.1:80 of {first} goes with 12 connections: they hang until their clients open new ones; `sluice \
                     drain' lets them end first"
                ),
            ]
        );
    }
}
