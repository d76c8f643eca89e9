//! What is exported is what is documented, and what the dashboard and the alert rules ask for.

use super::*;
use api::{RealHealthView, RealId, ServiceHealth, VerdictCount};

use std::collections::{BTreeMap, BTreeSet};

type Metrics = BTreeMap<String, BTreeSet<String>>;

/// A director with a bit of everything.
fn sample() -> String {
    let status: Status = serde_json::from_str(concat!(
        r#"{"version":"0","pid":1,"generation":7,"uptime_s":61,"adopted":false,"interfaces":[],"#,
        r#""embryonic_flows":3,"embryonic_flows_max":10,"established_flows":4,"established_flows_max":20}"#
    ))
    .expect("a status");
    let services: Services = serde_json::from_str(concat!(
        r#"{"connection_table_size":20,"timeouts":{"tcp_s":900,"tcp_fin_s":120,"udp_s":300},"services":[{"id":"#,
        r#"{"address":{"protocol":"tcp","address":"192.0.2.1","port":80}},"spec":{"scheduler":"rr"},"counters":"#,
        r#"{"connections":5,"in_packets":9,"out_packets":0,"in_bytes":900,"out_bytes":0,"connections_per_s":0,"#,
        r#""in_packets_per_s":0,"out_packets_per_s":0,"in_bytes_per_s":0,"out_bytes_per_s":0},"reals":[{"id":{"address":"10.0.0.1","port":80},"#,
        r#""spec":{"forwarding":"direct_routing","weight":3},"active":1,"inactive":2,"persistent":0,"neighbour":null,"counters":"#,
        r#"{"connections":5,"in_packets":9,"out_packets":0,"in_bytes":900,"out_bytes":0,"connections_per_s":0,"#,
        r#""in_packets_per_s":0,"out_packets_per_s":0,"in_bytes_per_s":0,"out_bytes_per_s":0}}]}]}"#
    ))
    .expect("services");
    let service = services.services[0].id;
    let real = RealHealthView {
        real: RealId { address: [10, 0, 0, 1].into(), port: 80 },
        standing: Standing::Up,
        reason: String::new(),
        declared_weight: 1,
        weight: Some(1),
        since_ms: 0,
        latency_ms: Some(1.5),
    };
    let health = HealthView {
        services: vec![ServiceHealth { service, panic: false, fallback: false, reals: vec![real] }],
    };
    let verdict =
        VerdictCount { number: 1, name: "forward_new".to_owned(), sentence: String::new(), packets: 12 };
    let sync: SyncDaemons = serde_json::from_str(concat!(
        r#"{"daemons":[{"daemon":{"role":"backup","interface":"eth1"},"running":true,"#,
        r#""counts":{"messages":8,"records":300,"refused":1,"unknown":2}}]}"#
    ))
    .expect("daemons");
    render(&status, &services, &health, &Verdicts { verdicts: vec![verdict] }, &sync, (2, 1))
}

#[test]
fn names_and_labels_are_as_documented() {
    let text = sample();
    for line in [
        "sluice_generation 7",
        "sluice_uptime_seconds 61",
        "sluice_flows{table=\"established\"} 4",
        "sluice_flows_max{table=\"established\"} 20",
        "sluice_service_connections_total{service=\"TCP 192.0.2.1:80\"} 5",
        "sluice_service_packets_total{service=\"TCP 192.0.2.1:80\",direction=\"in\"} 9",
        "sluice_service_bytes_total{service=\"TCP 192.0.2.1:80\",direction=\"in\"} 900",
        "sluice_real_up{service=\"TCP 192.0.2.1:80\",real=\"10.0.0.1:80\"} 1",
        "sluice_real_check_seconds{service=\"TCP 192.0.2.1:80\",real=\"10.0.0.1:80\"} 0.0015",
        "sluice_verdict_packets_total{verdict=\"forward_new\"} 12",
        "sluice_trace_spans_total{result=\"dropped\"} 1",
        "sluice_sync_flows_total{role=\"backup\"} 300",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
}

/// The names that are exported, with their labels.
fn exported() -> Metrics {
    let mut metrics = Metrics::new();
    for line in sample().lines().filter(|line| !line.starts_with('#')) {
        for (name, labels) in selectors(line) {
            metrics.entry(name).or_default().extend(labels);
        }
    }
    metrics
}

/// Every name of a metric in a text, with the labels in the braces behind it.
fn selectors(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("sluice_") {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest[at..].find(|c| !is_name(c)).map_or(rest.len(), |len| at + len);
        let name = rest[at..end].to_owned();
        rest = &rest[end..];
        let mut labels = BTreeSet::new();
        if let Some(inside) = rest.strip_prefix('{') {
            // No value of ours has a brace.
            let inside = inside.split_once('}').expect("a closing brace").0;
            let mut words = inside;
            while let Some((label, behind)) = words.split_once('=') {
                labels.insert(label.trim_matches(|c: char| !is_name(c)).to_owned());
                let value = behind.split_once('"').expect("a value").1;
                words = value.split_once('"').expect("its end").1;
            }
        }
        found.push((name, labels));
    }
    found
}

/// Labels in `by (...)`.
fn grouped(text: &str) -> BTreeSet<String> {
    let groups = text.split(" by (").skip(1).filter_map(|behind| behind.split_once(')'));
    groups.flat_map(|(labels, _)| labels.split(',').map(|label| label.trim().to_owned())).collect()
}

/// Checks that an expression asks for nothing that is not exported. `instance` and `job` are added by Prometheus.
fn check(expression: &str, exported: &Metrics) {
    let asked = selectors(expression);
    assert!(!asked.is_empty(), "{expression} asks for no metric of ours");
    let mut known: BTreeSet<String> = ["instance", "job"].map(str::to_owned).into();
    for (name, labels) in asked {
        let has = exported.get(&name).unwrap_or_else(|| panic!("{name} of {expression} is not exported"));
        known.extend(has.iter().cloned());
        let unknown = labels.iter().find(|label| !has.contains(*label) && *label != "instance");
        assert_eq!(unknown, None, "{name} has no such label: {expression}");
    }
    let unknown = grouped(expression).into_iter().find(|label| !known.contains(label));
    assert_eq!(unknown, None, "no metric of it has such a label: {expression}");
    // Verdicts by name exist too.
    let named = expression.split("verdict=\"").skip(1).filter_map(|behind| behind.split_once('"'));
    for (name, _) in named {
        assert!(abi::Verdict::ALL.iter().any(|verdict| verdict.name() == name), "{name} is no verdict");
    }
}

#[test]
fn everything_exported_is_documented_and_the_other_way_round() {
    let page = include_str!("../../../docs/metrics.md");
    let mut documented = Metrics::new();
    for row in page.lines().filter(|line| line.starts_with("| `sluice_")) {
        let mut cells = row.split('|').skip(1);
        let (names, labels) = (cells.next().expect("names"), cells.next().expect("labels"));
        let outside = labels.split('(').map(|part| part.split_once(')').map_or(part, |(_, behind)| behind));
        let labels: BTreeSet<String> =
            outside.flat_map(|part| part.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
        for name in names.split('`').skip(1).step_by(2) {
            documented.insert(name.to_owned(), labels.clone());
        }
    }
    assert_eq!(documented, exported());
}

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let exported = exported();
    let text = include_str!("../../../docs/grafana/sluice.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let (mut used, mut panels) = (String::new(), 0);
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            check(expression, &exported);
            used += expression;
            panels += 1;
        }
    }
    assert!(panels >= 15, "{panels}");
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            let query = variable["query"]["query"].as_str().expect("a query");
            check(query, &exported);
            let label = query.trim_end_matches(')').rsplit(", ").next().expect("a label");
            assert_eq!(variable["name"], label);
        }
    }
    // Nothing that is counted is left out of the picture, but what is about the daemon's own work.
    let missing = exported.keys().find(|name| !used.contains(*name) && !name.starts_with("sluice_trace"));
    assert_eq!(missing, None);
}

#[test]
fn the_alert_rules_ask_for_what_is_exported() {
    let exported = exported();
    let rules = include_str!("../../../docs/prometheus/alerts.yml");
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert_eq!(expressions.len(), rules.matches("- alert: ").count());
    assert!(expressions.len() >= 8);
    expressions.iter().for_each(|expression| check(expression, &exported));
}

#[test]
#[should_panic(expected = "sluice_nothing of rate(sluice_nothing[5m]) is not exported")]
fn an_expression_that_asks_for_something_else_is_found() {
    check("rate(sluice_nothing[5m])", &exported());
}
