//! Every kind of check against servers that pass and servers that do not, in a network namespace of its own.

use api::{CheckKind, Exchange, Expect, Http, Octets, Tls, Transport};
use bytes::Bytes;
use health::{Outcome, Probe};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use probe::Prober;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::netns::NetNs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a test in a namespace with nothing but a loopback interface.
fn alone(test: impl Future<Output = ()> + Send) {
    if let Err(reason) = testkit::need_root() {
        testkit::skip!("{reason}");
    }
    let netns = NetNs::new("probe").expect("a namespace");
    netns.ip("link set lo up").expect("loopback");
    netns
        .run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(60), test).await.expect("ends in time");
            });
        })
        .expect("inside");
}

fn order(kind: CheckKind, to: SocketAddr) -> Probe {
    Probe { kind, address: to.ip(), port: to.port(), timeout_ms: 3000, way: None }
}

async fn passes(kind: CheckKind, to: SocketAddr) -> Option<u16> {
    match Prober::default().probe(&order(kind.clone(), to), None).await {
        Outcome::Passed { share, latency_ms } => {
            assert!(latency_ms > 0.0);
            share
        }
        Outcome::Failed { reason } => panic!("{kind:?}: {reason}"),
    }
}

async fn fails(kind: CheckKind, to: SocketAddr) -> String {
    match Prober::default().probe(&order(kind.clone(), to), None).await {
        Outcome::Failed { reason } => reason,
        passed @ Outcome::Passed { .. } => panic!("{kind:?}: {passed:?}"),
    }
}

/// A server that does the same with every connection.
async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((HOME, 0)).await.expect("bind");
    let at = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    at
}

/// A server that writes this and waits for the end.
async fn say(text: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        drop(stream.write_all(text.as_bytes()).await);
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind((HOME, 0)).await.expect("bind").local_addr().expect("address")
}

fn exchange(over: Transport, send: &str, expect: Expect) -> CheckKind {
    CheckKind::Exchange(Exchange { over, send: Octets(send.into()), expect })
}

fn contains(text: &str) -> Expect {
    Expect::Contains(Octets(text.into()))
}

#[test]
fn tcp_asks_whether_somebody_listens() {
    alone(async {
        assert_eq!(passes(CheckKind::Tcp, say("").await).await, None);
        assert_eq!(fails(CheckKind::Tcp, nobody().await).await, "connection refused");
        // No route leads there from this namespace.
        let away = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(fails(CheckKind::Tcp, away).await, "network unreachable");
    });
}

#[test]
fn an_exchange_sends_and_expects() {
    alone(async {
        let echo = serve(|mut stream| async move {
            let mut bytes = [0; 100];
            let length = stream.read(&mut bytes).await.expect("read");
            stream.write_all(&bytes[..length]).await.expect("write");
        })
        .await;
        let tcp = |send, expect| exchange(Transport::Tcp, send, expect);
        passes(tcp("PING\0\r\n", contains("NG\0")), echo).await;
        passes(tcp("PING", Expect::Begins(Octets(b"PI".to_vec()))), echo).await;
        passes(tcp("PING 17", Expect::Matches("^PING [0-9]+$".to_owned())), echo).await;
        passes(tcp("", Expect::Nothing), echo).await;
        assert_eq!(
            fails(tcp("PING", contains("PONG")), echo).await,
            "the answer was \"PING\", not one with \"PONG\""
        );
        assert_eq!(
            fails(tcp("PING", Expect::Begins(Octets(b"ok".to_vec()))), echo).await,
            "the answer was \"PING\", not one that begins with \"ok\""
        );
        assert_eq!(
            fails(tcp("PING", Expect::Matches("^ok".to_owned())), echo).await,
            "the answer was \"PING\", not one that fits `^ok'"
        );
    });
}

#[test]
fn silence_fails_when_the_time_is_over() {
    alone(async {
        let silent = say("").await;
        let mut order = order(exchange(Transport::Tcp, "PING", contains("PONG")), silent);
        order.timeout_ms = 100;
        let start = Instant::now();
        let outcome = Prober::default().probe(&order, None).await;
        assert_eq!(outcome, Outcome::Failed { reason: "no answer within 100 ms".to_owned() });
        assert!(start.elapsed() < Duration::from_secs(3));
    });
}

#[test]
fn udp_hears_answers_and_icmp_errors() {
    alone(async {
        let socket = UdpSocket::bind((HOME, 0)).await.expect("bind");
        let at = socket.local_addr().expect("address");
        tokio::spawn(async move {
            let mut bytes = [0; 100];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                drop(socket.send_to(&bytes[..length], from).await);
            }
        });
        passes(exchange(Transport::Udp, "PING", contains("PING")), at).await;
        passes(exchange(Transport::Udp, "PING", Expect::Nothing), at).await;
        let closed = nobody().await;
        let refused = exchange(Transport::Udp, "PING", Expect::Nothing);
        assert_eq!(fails(refused, closed).await, "connection refused");
    });
}

fn page() -> Http {
    Http {
        version: 1,
        tls: None,
        method: "GET".to_owned(),
        host: Some("www.example.org".to_owned()),
        path: "/health".to_owned(),
        status: vec![(200, 299)],
        body: None,
        digest: None,
    }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers().get("host").and_then(|it| it.to_str().ok()).or(request.uri().host());
    let known = host == Some("www.example.org") && request.uri().path() == "/health";
    let body = if known { "all is well" } else { "no such page" };
    let response =
        Response::builder().status(if known { 200 } else { 404 }).body(Full::new(Bytes::from(body)));
    Ok(response.expect("a response"))
}

async fn answer_1(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await,
    );
}

async fn answer_2(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    drop(server.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}

#[test]
fn http_looks_at_status_body_and_digest() {
    alone(async {
        let first = serve(answer_1).await;
        let second = serve(answer_2).await;
        for (version, at) in [(1, first), (2, second)] {
            let page = Http { version, ..page() };
            passes(CheckKind::Http(page.clone()), at).await;
            let body = Some("^all .* well$".to_owned());
            let digest = Some("0".repeat(64));
            passes(CheckKind::Http(Http { body, ..page.clone() }), at).await;
            let reason = fails(CheckKind::Http(Http { digest, ..page.clone() }), at).await;
            let found =
                reason.strip_prefix("the body's SHA-256 is ").and_then(|it| it.get(..64)).expect("a digest");
            passes(CheckKind::Http(Http { digest: Some(found.to_uppercase()), ..page.clone() }), at).await;
            let lost = Http { path: "/lost".to_owned(), ..page.clone() };
            assert_eq!(fails(CheckKind::Http(lost.clone()), at).await, "status 404, not 200-299");
            passes(CheckKind::Http(Http { status: vec![(404, 404)], ..lost }), at).await;
            let body = Some("broken".to_owned());
            assert_eq!(
                fails(CheckKind::Http(Http { body, ..page }), at).await,
                "the body \"all is well\" does not fit `broken'"
            );
        }
        assert_eq!(fails(CheckKind::Http(page()), nobody().await).await, "connection refused");
        // Whatever it says, it is no HTTP.
        fails(CheckKind::Http(page()), say("220 mail\r\n\r\n").await).await;
    });
}

/// An authority, and a certificate of it for the server and one for the client, as files.
struct Papers {
    _directory: tempfile::TempDir,
    root: PathBuf,
    own: PathBuf,
    key: PathBuf,
}

fn papers() -> Papers {
    let directory = tempfile::tempdir().expect("a directory");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().expect("a key");
    let root = params.self_signed(&root_key).expect("a certificate");
    let issuer = Issuer::new(params, root_key);
    let own_key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["www.example.org".to_owned()]).expect("parameters");
    let own = own.signed_by(&own_key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    Papers {
        root: write("root.pem", root.pem()),
        own: write("own.pem", own.pem()),
        key: write("key.pem", own_key.serialize_pem()),
        _directory: directory,
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("a file").collect::<Result<_, _>>().expect("certificates")
}

/// A TLS server that wants a certificate of its clients, or not.
fn acceptor(papers: &Papers, wants_certificate: bool, protocol: &[u8]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if wants_certificate {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&papers.root));
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(&papers.key).expect("a key");
    let mut config = builder.with_single_cert(certificates(&papers.own), key).expect("a configuration");
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[test]
fn https_checks_names_and_shows_certificates_where_that_is_chosen() {
    alone(async {
        let papers = papers();
        let open = acceptor(&papers, false, b"http/1.1");
        let open = serve(move |stream| {
            let open = open.clone();
            async move {
                if let Ok(stream) = open.accept(stream).await {
                    answer_1(stream).await;
                }
            }
        })
        .await;
        let closed = acceptor(&papers, true, b"h2");
        let closed = serve(move |stream| {
            let closed = closed.clone();
            async move {
                if let Ok(stream) = closed.accept(stream).await {
                    answer_2(stream).await;
                }
            }
        })
        .await;
        let with = |version, tls| CheckKind::Http(Http { version, tls: Some(tls), ..page() });
        let trusting = Tls::default();
        let careful = Tls { verify: true, authorities: Some(papers.root.clone()), ..Tls::default() };
        passes(with(1, trusting.clone()), open).await;
        passes(with(1, careful.clone()), open).await;
        let other_name = Tls { name: Some("other.example.org".to_owned()), ..careful.clone() };
        let reason = fails(with(1, other_name), open).await;
        assert!(reason.starts_with("TLS: invalid peer certificate"), "{reason}");
        let known =
            Tls { certificate: Some(papers.own.clone()), key: Some(papers.key.clone()), ..careful.clone() };
        passes(with(2, known), closed).await;
        fails(with(2, careful.clone()), closed).await;
        assert_eq!(
            fails(with(2, trusting.clone()), open).await,
            "TLS: received fatal alert: NoApplicationProtocol"
        );
        let lost = Tls { authorities: Some("/nonexistent/root.pem".into()), ..careful };
        let reason = fails(with(1, lost), open).await;
        assert!(reason.contains("/nonexistent/root.pem"), "{reason}");
        let hello = exchange(Transport::Tls(trusting), "GET / HTTP/1.0\r\n\r\n", contains("404 Not Found"));
        passes(hello, open).await;
    });
}

#[test]
fn smtp_greets_and_takes_leave() {
    alone(async {
        let polite = serve(|mut stream| async move {
            stream.write_all(b"220 mail.example.org\r\n").await.expect("write");
            for answer in ["250-mail.example.org\r\n250 HELP\r\n", "221 bye\r\n"] {
                let mut line = [0; 100];
                assert!(stream.read(&mut line).await.expect("read") > 0);
                stream.write_all(answer.as_bytes()).await.expect("write");
            }
        })
        .await;
        let smtp = CheckKind::Smtp { hello: "sluice".to_owned(), tls: None };
        passes(smtp.clone(), polite).await;
        assert_eq!(
            fails(smtp.clone(), say("554 no service\r\n").await).await,
            "the answer was \"554 no service\", not 220"
        );
        assert_eq!(fails(smtp, nobody().await).await, "connection refused");
    });
}

#[test]
fn dns_wants_an_answer_without_an_error() {
    use hickory_proto::op::{Message, MessageType, ResponseCode};
    use hickory_proto::rr::{RData, Record, rdata::A};
    alone(async {
        let socket = UdpSocket::bind((HOME, 0)).await.expect("bind");
        let at = socket.local_addr().expect("address");
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let mut message = Message::from_vec(&bytes[..length]).expect("a question");
                let name = message.query().expect("one").name().clone();
                message.set_message_type(MessageType::Response);
                if name.to_ascii().starts_with("www") {
                    message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 7))));
                } else {
                    message.set_response_code(ResponseCode::NXDomain);
                }
                drop(socket.send_to(&message.to_vec().expect("bytes"), from).await);
            }
        });
        let ask = |name: &str, expect: &str| CheckKind::Dns {
            name: name.to_owned(),
            record: "A".to_owned(),
            expect: expect.to_owned(),
        };
        passes(ask("www.example.org", ""), at).await;
        passes(ask("www.example.org.", "192.0.2.7"), at).await;
        assert_eq!(
            fails(ask("www.example.org", "192.0.2.8"), at).await,
            "the answer was 192.0.2.7, not 192.0.2.8"
        );
        let reason = fails(ask("lost.example.org", ""), at).await;
        assert!(reason.starts_with("the answer was: Non-Existent Domain"), "{reason}");
    });
}

#[test]
fn ping_hears_the_echo() {
    alone(async {
        passes(CheckKind::Ping, (HOME, 0).into()).await;
        passes(CheckKind::Ping, SocketAddr::new("::1".parse().expect("address"), 0)).await;
        let away = fails(CheckKind::Ping, SocketAddr::from(([192, 0, 2, 1], 0))).await;
        assert_eq!(away, "network unreachable");
    });
}

fn shell(script: &str) -> CheckKind {
    let command = ["/bin/sh", "-c", script, "sh", "{address}", "{port}"].map(str::to_owned).to_vec();
    CheckKind::Program { command, user: "nobody".to_owned() }
}

#[test]
fn a_program_decides_by_its_exit_code_and_runs_without_rights() {
    alone(async {
        let at = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(passes(shell("exit 0"), at).await, None);
        assert_eq!(passes(shell("echo weight 40"), at).await, Some(40));
        passes(shell("test $1:$2 = 127.0.0.1:80"), at).await;
        passes(shell("test $(id -u) != 0 && test \"$(id -G)\" = \"$(id -g)\""), at).await;
        assert_eq!(
            fails(shell("echo it is on fire >&2; exit 3"), at).await,
            "/bin/sh: exit status: 3, and said \"it is on fire\""
        );
        let reason = fails(shell("echo weight lots"), at).await;
        assert_eq!(reason, "the program asks for a weight of \"lots\", not 0 to 1000");
        // More than a pipe holds.
        passes(shell("head -c 1000000 /dev/zero"), at).await;
        let lost = CheckKind::Program { command: vec!["/nonexistent".to_owned()], user: "nobody".to_owned() };
        assert!(fails(lost, at).await.starts_with("cannot run /nonexistent"));
        let stranger =
            CheckKind::Program { command: vec!["/bin/true".to_owned()], user: "no-such-user".to_owned() };
        assert_eq!(fails(stranger, at).await, "there is no user no-such-user to run the check as");
    });
}

#[test]
fn what_a_program_started_ends_with_its_time() {
    alone(async {
        let directory = tempfile::tempdir().expect("a directory");
        // Where another user may write.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open).expect("permissions");
        let file = directory.path().join("pid");
        let mut order =
            order(shell(&format!("sleep 60 & echo $! > {}; wait", file.display())), (HOME, 0).into());
        order.timeout_ms = 500;
        let outcome = Prober::default().probe(&order, None).await;
        assert_eq!(outcome, Outcome::Failed { reason: "no answer within 500 ms".to_owned() });
        let pid = std::fs::read_to_string(&file).expect("a pid");
        let state = format!("/proc/{}/stat", pid.trim());
        for _ in 0..100 {
            // Gone, or waiting to be collected by whoever inherited it.
            let is_alive = std::fs::read_to_string(&state).is_ok_and(|text| !text.contains(") Z "));
            if !is_alive {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} lives on", pid.trim());
    });
}

#[test]
fn a_server_reports_its_load() {
    alone(async {
        assert_eq!(passes(CheckKind::Load, say("load 30\n").await).await, Some(70));
        let reason = fails(CheckKind::Load, say("down disk full\n").await).await;
        assert_eq!(reason, "the server says it is down: \"disk full\"");
    });
}
