//! Traces end to end: a collector that decodes what comes, one that refuses, and none.

mod support;

use api::{Applied, ApplyRequest, Change, Check, CheckKind, HealthSpec, Rhythm, Services};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use runtime::control::ControlError;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use support::{Daemon, Lab, add_real, add_service, service, wait_for};

const COLLECTOR: &str = "192.0.2.2:4318";

/// The spans that came so far. The thread ends with the process.
fn collect(lab: &Lab, status: &'static str) -> Arc<Mutex<Vec<Span>>> {
    let listener = lab.director.run(|| TcpListener::bind(COLLECTOR)).expect("inside").expect("listen");
    let spans = Arc::<Mutex<Vec<Span>>>::default();
    let shared = Arc::clone(&spans);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let request = answer(stream, status);
            let mut spans = shared.lock().expect("the spans");
            for resource in request.resource_spans {
                let of = resource.resource.expect("a resource");
                assert!(of.attributes.iter().any(|it| it.key == "service.name"), "{of:?}");
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
    });
    spans
}

fn answer(mut stream: TcpStream, status: &str) -> ExportTraceServiceRequest {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("application/json"), "{head}");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(answer.as_bytes()).expect("the answer to be taken");
    serde_json::from_slice(&body).expect("a request of OTLP")
}

/// An attribute as text.
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|it| it.key == key).unwrap_or_else(|| panic!("{key}: {span:?}"));
    match found.value.as_ref().and_then(|value| value.value.as_ref()).expect("a value") {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => format!("{number:.3}"),
        other => panic!("{other:?}"),
    }
}

/// Waits for a span that this is true of.
fn span(spans: &Mutex<Vec<Span>>, what: &str, is: impl Fn(&Span) -> bool) -> Span {
    wait_for(what, || spans.lock().expect("the spans").iter().find(|span| is(span)).cloned())
}

fn start(lab: &Lab) -> Daemon {
    lab.start_with(&["--otlp", &format!("http://{COLLECTOR}")])
}

fn spans_counted(daemon: &Daemon, result: &str) -> u64 {
    let text: String = daemon.get("/v1/metrics");
    let line = format!("sluice_trace_spans_total{{result=\"{result}\"}} ");
    text.lines().find_map(|it| it.strip_prefix(&line)).expect("the metric").parse().expect("a number")
}

/// A service whose only server is examined, and refuses connections.
fn examine(daemon: &Daemon) {
    let rhythm =
        Rhythm { interval_ms: 100, timeout_ms: 500, rise: 1, fall: 1, jitter_percent: 0, grace_ms: 0 };
    let check = Check { kind: CheckKind::Tcp, address: None, port: None, rhythm };
    let health = HealthSpec { checks: vec![check], ..HealthSpec::default() };
    for change in [add_service(), Change::SetHealth { service: service(), health }, add_real()] {
        assert_eq!(daemon.change(change.clone()).refusals, [None], "{change:?}");
    }
}

#[test]
fn a_collector_gets_spans_of_checks_and_of_configurations() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let spans = collect(&lab, "200 OK");
    let daemon = start(&lab);
    examine(&daemon);
    let failed = span(&spans, "a check that fails", |it| {
        it.name == "health check" && attribute(it, "sluice.result") == "failed"
    });
    assert_eq!(attribute(&failed, "sluice.service"), "TCP 192.0.2.10:8080");
    assert_eq!(attribute(&failed, "sluice.real"), "192.0.2.3:8080");
    assert_eq!(attribute(&failed, "sluice.check"), "tcp");
    let status = failed.status.as_ref().expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, "connection refused"));
    assert!(failed.start_time_unix_nano > 0 && failed.end_time_unix_nano > failed.start_time_unix_nano);
    assert_eq!((failed.trace_id.len(), failed.span_id.len()), (16, 8));
    let _listener =
        lab.servers[0].run(|| TcpListener::bind("0.0.0.0:8080")).expect("inside").expect("listen");
    let passed = span(&spans, "a check that passes", |it| {
        it.name == "health check" && attribute(it, "sluice.result") == "passed"
    });
    assert_eq!(passed.status.expect("a status").code, 1);

    let text = "[service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/8081\"\nservers = [\"192.0.2.3\"]\n";
    let file = |text: &str| ApplyRequest {
        name: "web.toml".to_owned(),
        text: text.to_owned(),
        confirm_s: None,
        expect_generation: None,
    };
    let applied: Applied = daemon.client.post("/v1/apply", &file(text)).expect("applied");
    let apply = span(&spans, "the configuration", |it| it.name == "apply");
    assert_eq!(attribute(&apply, "sluice.source"), "web.toml");
    assert_eq!(attribute(&apply, "sluice.generation"), applied.generation.to_string());
    assert_eq!(attribute(&apply, "sluice.changes"), applied.plan.lines.len().to_string());
    assert_eq!(attribute(&apply, "sluice.result"), "applied");
    let whole = (apply.end_time_unix_nano - apply.start_time_unix_nano) as f64 / 1e6;
    let parts = ["sluice.compile_ms", "sluice.kernel_ms", "sluice.disk_ms"]
        .map(|key| attribute(&apply, key).parse::<f64>().expect("milliseconds"));
    assert!(
        parts.iter().all(|part| *part > 0.0) && parts.iter().sum::<f64>() <= whole,
        "{parts:?} of {whole}"
    );
    let sent = spans_counted(&daemon, "sent");
    assert!(sent as usize >= 3 && spans_counted(&daemon, "dropped") == 0, "{sent}");
}

#[test]
fn a_collector_that_is_away_or_refuses_holds_nothing_up() {
    if let Err(reason) = testkit::need_bpf() {
        testkit::skip!("{reason}");
    }
    let lab = Lab::new();
    let daemon = start(&lab);
    examine(&daemon);
    wait_for("spans that are dropped", || (spans_counted(&daemon, "dropped") > 0).then_some(()));
    let services: Services = daemon.get("/v1/services");
    assert_eq!(services.services.len(), 1);
    // It comes, but wants none.
    let spans = collect(&lab, "503 Service Unavailable");
    let before = spans_counted(&daemon, "dropped");
    span(&spans, "a span", |_| true);
    wait_for("more that are dropped", || (spans_counted(&daemon, "dropped") > before).then_some(()));
    assert_eq!(spans_counted(&daemon, "sent"), 0);
    let nothing =
        ApplyRequest { name: "x".to_owned(), text: "[".to_owned(), confirm_s: None, expect_generation: None };
    assert!(matches!(daemon.client.post::<_, Applied>("/v1/apply", &nothing), Err(ControlError::Refused(_))));
}
