//! `sluice health`, `events`, `drain`, `undrain`: what is thought of real servers, what happened, and the operator's wish.

use crate::args::{ShowArgs, number};
use crate::policy::change_all;
use crate::show::{ShowError, print, write_out};
use api::{Change, Changes, Event, Events, HealthView, RealId, ServiceId};
use runtime::control::Client;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

/// Between two looks for new events.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  sluice events\n  sluice events --follow --json")]
pub(crate) struct EventsArgs {
    /// Then go on with what happens, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Only events after the one of this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = number::<u64>, allow_negative_numbers = true)]
    after: u64,
    /// Where and how to show; with --json one object on each line.
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice drain 10.0.0.1           # in every service
  sluice drain 10.0.0.1:80 --service 'tcp 192.0.2.10:80'
  sluice undrain 10.0.0.1")]
pub(crate) struct DrainArgs {
    /// The real server: an address, or an address with its port.
    #[arg(value_parser = server)]
    server: Server,
    /// Only in this service, such as 'tcp 192.0.2.10:80' or 'fwm 7'.
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceId>,
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: std::path::PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example, from a timer, for the textfile collector of node_exporter:
  cd /var/lib/prometheus/node-exporter
  sluice metrics > sluice.prom.new
  mv sluice.prom.new sluice.prom")]
pub(crate) struct MetricsArgs {
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: std::path::PathBuf,
}

/// A real server as named by a person.
#[derive(Clone, Copy, Debug)]
struct Server {
    address: IpAddr,
    port: Option<u16>,
}

fn server(text: &str) -> Result<Server, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(Server { address, port: None });
    }
    let with_port = text.parse::<SocketAddr>();
    let server = with_port.map(|it| Server { address: it.ip(), port: Some(it.port()) });
    server.map_err(|_| "give an address, such as 10.0.0.1, or one with its port, such as 10.0.0.1:80 or [2001:db8::1]:80")
}

/// `sluice health`.
pub(crate) fn show(args: &ShowArgs) -> Result<(), ShowError> {
    let view: HealthView = Client::new(&args.socket).get("/v1/health").map_err(ShowError::asking)?;
    print(args, &view, text)
}

/// `sluice metrics`.
pub(crate) fn metrics(args: &MetricsArgs) -> Result<(), ShowError> {
    let text: String = Client::new(&args.socket).get("/v1/metrics").map_err(ShowError::asking)?;
    write_out(&text).map_err(ShowError::Print)
}

/// `sluice events`.
pub(crate) fn events(args: &EventsArgs) -> Result<(), ShowError> {
    let client = Client::new(&args.show.socket);
    let mut after = args.after;
    loop {
        let page: Events = client.get(&format!("/v1/events?after={after}")).map_err(ShowError::asking)?;
        let mut shown = String::new();
        if page.lost > 0 && !args.show.json {
            let _ = writeln!(shown, "({} earlier events are no longer remembered)", page.lost);
        }
        for event in &page.events {
            if args.show.json {
                shown += &serde_json::to_string(event).map_err(|error| ShowError::Print(error.into()))?;
                shown.push('\n');
            } else {
                shown += &line(event);
            }
        }
        // Not `write_out': a reader that has gone must end the following.
        match io::stdout().write_all(shown.as_bytes()).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done.map_err(ShowError::Print)?,
        }
        match page.events.last() {
            Some(last) => after = last.number,
            None if args.follow => std::thread::sleep(LOOK_PERIOD),
            None => return Ok(()),
        }
    }
}

/// `sluice drain` and `undrain`.
pub(crate) fn drain(args: &DrainArgs, drain: bool) -> Result<(), ShowError> {
    let client = Client::new(&args.socket);
    let declared: Changes = client.get("/v1/declared").map_err(ShowError::asking)?;
    let Server { address, port } = args.server;
    let is_meant = |service: &ServiceId, real: &RealId| {
        real.address == address
            && port.is_none_or(|port| port == real.port)
            && args.service.is_none_or(|only| only == *service)
    };
    let found: BTreeSet<(ServiceId, RealId)> = declared
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::AddReal { service, real, .. } if is_meant(service, real) => Some((*service, *real)),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        let text = "no service has this real server: `ipvsadm -Ln' lists them".to_owned();
        return Err(ShowError::Words(text));
    }
    let set = |(service, real): (ServiceId, RealId)| Change::SetDrain { service, real, drain };
    change_all(&client, found.iter().copied().map(set).collect())?;
    let what = if drain { "gets no new work" } else { "may get work again" };
    let line = |(service, real): (ServiceId, RealId)| format!("{real} of {service} {what}\n");
    write_out(&found.into_iter().map(line).collect::<String>()).map_err(ShowError::Print)
}

fn text(view: &HealthView) -> String {
    if view.services.is_empty() {
        return "no service has health checks: declare them in a cluster file\n".to_owned();
    }
    let mut text = String::new();
    for service in &view.services {
        let note = match (service.panic, service.fallback) {
            (true, _) => "  too many failed: all get work",
            (false, true) => "  the fallback has the work",
            (false, false) => "",
        };
        let _ = writeln!(text, "{}{note}", service.service);
        for it in &service.reals {
            let weight = match it.weight {
                Some(weight) => format!("{weight} of {}", it.declared_weight),
                None => format!("out of {}", it.declared_weight),
            };
            let latency = it.latency_ms.map_or("-".to_owned(), |latency| format!("{latency:.1} ms"));
            let since = humantime::format_duration(Duration::from_secs(it.since_ms / 1000));
            let (real, standing) = (it.real.to_string(), it.standing.name());
            let _ = writeln!(
                text,
                "  {real:<26} {standing:<9} weight {weight:<12} {latency:>9}  for {since}: {}",
                it.reason
            );
        }
    }
    text
}

fn line(event: &Event) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(event.time_ms);
    format!(
        "{:>6} {} {}: {}\n",
        event.number,
        humantime::format_rfc3339_millis(time),
        event.what,
        event.cause
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{EventKind, RealHealthView, ServiceHealth, Standing};

    #[test]
    fn a_table_has_a_line_for_each_real_server_with_the_reason() {
        let real = RealHealthView {
            real: RealId { address: "10.0.0.1".parse().expect("address"), port: 80 },
            standing: Standing::Down,
            reason: "tcp check of 10.0.0.1:80: connection refused, 3 times in a row".to_owned(),
            declared_weight: 5,
            weight: None,
            since_ms: 61_000,
            latency_ms: None,
        };
        let service = "tcp 192.0.2.1:80".parse().expect("a service");
        let view = HealthView {
            services: vec![ServiceHealth { service, panic: false, fallback: true, reals: vec![real] }],
        };
        assert_eq!(
            text(&view),
            "TCP 192.0.2.1:80  the fallback has the work\n  10.0.0.1:80                down      weight out of 5             \
             -  for 1m 1s: tcp check of 10.0.0.1:80: connection refused, 3 times in a row\n"
        );
        assert!(text(&HealthView::default()).contains("no service has health checks"));
    }

    #[test]
    fn an_event_is_a_line() {
        let what = EventKind::Generation { generation: 7 };
        let event = Event { number: 3, time_ms: 1_000, what, cause: "2 changes were accepted".to_owned() };
        assert_eq!(line(&event), "     3 1970-01-01T00:00:01.000Z generation 7: 2 changes were accepted\n");
    }

    #[test]
    fn servers_are_named_with_or_without_a_port() {
        assert_eq!(server("10.0.0.1").expect("an address").port, None);
        assert_eq!(server("[2001:db8::1]:80").expect("with a port").port, Some(80));
        assert!(server("web1").is_err());
    }
}
