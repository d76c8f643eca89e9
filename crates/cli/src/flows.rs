//! `sluice flows`: the flows of the packet path, listed or counted.
//!
//! The director hands them out piece by piece, so millions are never in the memory of either, unless they are to be sorted or grouped: of
//! sorted ones twice as many as are shown are kept at most, of groups [`GROUPS_MAX`].

use crate::show::{ShowError, write_on, write_out};
use api::{
    ClientFilter, EndpointFilter, FLOW_STATES, FlowFilter, FlowGroup, FlowPage, FlowRequest, FlowShow,
    FlowTable, FlowView, Forwarding, Protocol, ServiceId,
};
use clap::builder::PossibleValuesParser;
use runtime::control::Client;
use serde::Serialize;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Groups that are told apart; flows of others are counted as one.
const GROUPS_MAX: usize = 1 << 20;
/// Name of what is beyond.
const OTHERS: &str = "(others)";
/// Sorted flows that are made into text in one go.
const PRINTED_AT_ONCE: usize = 4096;
/// Columns of the longest bar.
const BAR_COLUMNS: u64 = 30;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice flows --client 198.51.100.0/24 --state ESTABLISHED
  sluice flows --real 10.0.0.1:80 --sort packets --limit 20
  sluice flows --count --by client --limit 10     # the top talkers
  sluice flows --service 'tcp 192.0.2.10:80' --json

Fields of --json: protocol, client, vip, real, method, service (null when its real server was deleted), state, expires_s, age_s, packets,
table, persistent, translated, source_port, inactive, deleted. With --count: name, flows.")]
pub(crate) struct FlowsArgs {
    /// Only of these clients: a network or an address, perhaps with a port, such as 198.51.100.0/24 or [2001:db8::7]:40000.
    #[arg(long, value_name = "CIDR[:PORT]")]
    client: Option<ClientFilter>,
    /// Only to this VIP, perhaps with its port.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    vip: Option<EndpointFilter>,
    /// Only to this real server, perhaps with its port.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    real: Option<EndpointFilter>,
    /// Only of this protocol: tcp, udp or sctp.
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Only in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(FLOW_STATES), ignore_case = true, hide_possible_values = true)]
    state: Option<String>,
    /// Only of real servers of this service, such as 'tcp 192.0.2.10:80' or 'fwm 7'.
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceId>,
    /// Only in this table: established, embryonic, or templates (of persistence, which are not listed otherwise).
    #[arg(long)]
    table: Option<FlowTable>,
    /// Most lines; what is left out is said on standard error.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Count them.
    #[arg(long, conflicts_with = "sort")]
    count: bool,
    /// Count each of these by itself, the most first.
    #[arg(long, requires = "count", value_enum)]
    by: Option<By>,
    /// The order; that of the tables, which is none, without. Then all that match are looked at before any is shown.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// One JSON object on each line.
    #[arg(long)]
    json: bool,
    /// Control socket of the director.
    #[arg(long, env = "SLUICE_SOCKET", default_value = api::DEFAULT_SOCKET_PATH)]
    socket: std::path::PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// The client's address.
    Client,
    /// The real server.
    Real,
    /// The state.
    State,
    /// The VIP.
    Vip,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sort {
    /// The youngest first.
    Age,
    /// By address.
    Client,
    /// Those that end soonest first.
    Expires,
    /// The most first.
    Packets,
    /// By address.
    Real,
    /// By name.
    State,
    /// By address.
    Vip,
}

/// `sluice flows`.
pub(crate) fn run(args: &FlowsArgs) -> Result<(), ShowError> {
    let families =
        [args.vip.map(|it| it.address.is_ipv4()), args.client.map(|it| it.network.addr().is_ipv4())];
    if let [Some(vip), Some(client)] = families
        && vip != client
    {
        let text = "the client and the VIP are of different address families; use both IPv4 or both IPv6";
        return Err(ShowError::Words(text.to_owned()));
    }
    match (args.count, args.by) {
        (false, _) => list(args),
        (true, None) => count(args),
        (true, Some(by)) => count_by(args, by),
    }
}

/// Asks for piece after piece until `take` has enough. `false` from it ends the asking.
fn walk(
    args: &FlowsArgs,
    show: FlowShow,
    mut take: impl FnMut(FlowPage) -> Result<bool, ShowError>,
) -> Result<(), ShowError> {
    let client = Client::new(&args.socket);
    let filter = FlowFilter {
        client: args.client,
        vip: args.vip,
        real: args.real,
        protocol: args.protocol,
        state: args.state.as_ref().map(|state| state.to_ascii_uppercase()),
        service: args.service,
        table: args.table,
    };
    let mut request = FlowRequest { filter, show, cursor: 0 };
    loop {
        let page: FlowPage = client.post("/v1/flows", &request).map_err(ShowError::asking)?;
        let next = page.next_cursor;
        if !take(page)? {
            return Ok(());
        }
        match next {
            Some(cursor) => request.cursor = cursor,
            None => return Ok(()),
        }
    }
}

fn list(args: &FlowsArgs) -> Result<(), ShowError> {
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut out = Listing { json: args.json, ..Listing::default() };
    let mut more = false;
    let mut first = First::of(most, |a: &FlowView, b: &FlowView| compare(args.sort, a, b));
    let mut left = most;
    walk(args, FlowShow::List, |mut page| {
        if args.sort.is_some() {
            page.flows.into_iter().for_each(|flow| first.add(flow));
            return Ok(true);
        }
        more = page.flows.len() > left;
        page.flows.truncate(left);
        left -= page.flows.len();
        Ok(out.print(&page.flows)? && !more)
    })?;
    more |= first.left_out();
    for flows in first.sorted().chunks(PRINTED_AT_ONCE) {
        if !out.print(flows)? {
            break;
        }
    }
    if more {
        let text = "more flows match: --limit shows more of them, --count counts all";
        runtime::tell(format_args!("(the first {} are shown; {text})", args.limit));
    }
    Ok(())
}

/// The first of many in an order; never more than twice as many are kept, and they are put in order once.
struct First<T, C> {
    kept: Vec<T>,
    most: usize,
    compare: C,
    others: bool,
}

impl<T, C: Fn(&T, &T) -> Ordering> First<T, C> {
    fn of(most: usize, compare: C) -> Self {
        Self { kept: Vec::new(), most, compare, others: false }
    }

    fn add(&mut self, one: T) {
        self.kept.push(one);
        if self.kept.len() >= self.most.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.most {
            self.others = true;
            self.kept.select_nth_unstable_by(self.most, &self.compare);
            self.kept.truncate(self.most);
        }
    }

    /// Whether there were others than the first.
    fn left_out(&self) -> bool {
        self.others || self.kept.len() > self.most
    }

    fn sorted(mut self) -> Vec<T> {
        self.cut();
        self.kept.sort_unstable_by(&self.compare);
        self.kept
    }
}

fn compare(sort: Option<Sort>, a: &FlowView, b: &FlowView) -> Ordering {
    let order = match sort {
        Some(Sort::Age) => a.age_s.cmp(&b.age_s),
        Some(Sort::Client) | None => Ordering::Equal,
        Some(Sort::Expires) => a.expires_s.cmp(&b.expires_s),
        Some(Sort::Packets) => b.packets.cmp(&a.packets),
        Some(Sort::Real) => a.real.cmp(&b.real),
        Some(Sort::State) => a.state.cmp(&b.state),
        Some(Sort::Vip) => a.vip.cmp(&b.vip),
    };
    order.then(a.client.cmp(&b.client)).then(a.vip.cmp(&b.vip)).then(a.protocol.cmp(&b.protocol))
}

/// What was printed so far.
#[derive(Default)]
struct Listing {
    json: bool,
    begun: bool,
    widths: [usize; 9],
}

const HEADER: [&str; 9] =
    ["PRO", "CLIENT", "VIP", "REAL SERVER", "METHOD", "STATE", "LEFT", "PACKETS", "TABLE"];

impl Listing {
    /// Prints some more. `false` when the reader has gone.
    fn print(&mut self, flows: &[FlowView]) -> Result<bool, ShowError> {
        let mut text = String::new();
        if self.json {
            for flow in flows {
                text += &json(flow)?;
            }
        } else {
            self.add(&mut text, flows);
        }
        write_on(&text).map_err(ShowError::Print)
    }

    fn add(&mut self, text: &mut String, flows: &[FlowView]) {
        let rows: Vec<([String; 9], String)> = flows.iter().map(row).collect();
        let header = HEADER.map(str::to_owned);
        for cells in rows.iter().map(|(cells, _)| cells).chain([&header]) {
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        if !self.begun && !rows.is_empty() {
            self.begun = true;
            self.line(text, &header, "FLAGS");
        }
        for (cells, flags) in &rows {
            self.line(text, cells, flags);
        }
    }

    fn line(&self, text: &mut String, cells: &[String; 9], flags: &str) {
        let mut line = String::new();
        for (number, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            // Numbers stand at the right.
            let _ = match number {
                6 | 7 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        let _ = writeln!(text, "{}", (line + flags).trim_end());
    }
}

fn row(flow: &FlowView) -> ([String; 9], String) {
    let method = match flow.method {
        Forwarding::Masquerade if flow.source_port.is_some() => "full NAT",
        Forwarding::Masquerade => "NAT",
        Forwarding::Local => "local",
        Forwarding::Tunnel => "tunnel",
        Forwarding::DirectRouting => "direct",
    };
    let cells = [
        flow.protocol.clone(),
        flow.client.to_string(),
        flow.vip.to_string(),
        flow.real.to_string(),
        method.to_owned(),
        flow.state.clone(),
        format!("{} s", flow.expires_s),
        flow.packets.to_string(),
        flow.table.to_string(),
    ];
    let flags = [
        (flow.persistent, "persistent"),
        (flow.translated, "translated"),
        (flow.inactive, "inactive"),
        (flow.deleted, "server deleted"),
    ];
    let flags: Vec<&str> = flags.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
    (cells, flags.join(", "))
}

fn count(args: &FlowsArgs) -> Result<(), ShowError> {
    #[derive(Serialize)]
    struct Total {
        flows: u64,
    }
    let mut flows = 0;
    walk(args, FlowShow::Count, |page| {
        flows += page.matched;
        Ok(true)
    })?;
    let text = if args.json { json(&Total { flows })? } else { format!("{flows}\n") };
    write_out(&text).map_err(ShowError::Print)
}

#[derive(Serialize)]
struct Counted {
    name: String,
    flows: u64,
}

fn count_by(args: &FlowsArgs, by: By) -> Result<(), ShowError> {
    let group = match by {
        By::Client => FlowGroup::Client,
        By::Real => FlowGroup::Real,
        By::State => FlowGroup::State,
        By::Vip => FlowGroup::Vip,
    };
    let mut counts: HashMap<String, u64> = HashMap::new();
    walk(args, FlowShow::CountBy(group), |page| {
        for it in page.counts {
            let known = counts.len() < GROUPS_MAX || counts.contains_key(&it.name);
            let name = if known { it.name } else { OTHERS.to_owned() };
            *counts.entry(name).or_default() += it.flows;
        }
        Ok(true)
    })?;
    let all: u64 = counts.values().sum();
    let (groups, most) = (counts.len(), usize::try_from(args.limit).unwrap_or(usize::MAX));
    let mut first = First::of(most, |a: &Counted, b: &Counted| {
        Reverse(a.flows).cmp(&Reverse(b.flows)).then(a.name.cmp(&b.name))
    });
    counts.into_iter().for_each(|(name, flows)| first.add(Counted { name, flows }));
    let counts = first.sorted();
    let text = if args.json {
        counts.iter().map(json).collect::<Result<String, _>>()?
    } else {
        counts_text(&counts, all)
    };
    write_out(&text).map_err(ShowError::Print)?;
    if groups > most {
        runtime::tell(format_args!("(the first {most} of {groups} are shown; --limit shows more of them)"));
    }
    Ok(())
}

/// A line for each, with its part of all as a bar against the longest.
fn counts_text(counts: &[Counted], all: u64) -> String {
    let mut text = String::new();
    let width = counts.iter().map(|it| it.name.len()).max().unwrap_or_default();
    let longest = counts.first().map_or(1, |it| it.flows.max(1));
    for it in counts {
        let bar = "#".repeat(usize::try_from((it.flows * BAR_COLUMNS).div_ceil(longest)).unwrap_or_default());
        let part = it.flows as f64 * 100.0 / all.max(1) as f64;
        let _ = writeln!(text, "{:<width$}  {:>10}  {part:>5.1} %  {bar}", it.name, it.flows);
    }
    text
}

fn json<T: Serialize>(value: &T) -> Result<String, ShowError> {
    serde_json::to_string(value).map(|line| line + "\n").map_err(|error| ShowError::Print(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, packets: u32) -> FlowView {
        FlowView {
            protocol: "TCP".to_owned(),
            client: client.parse().expect("an endpoint"),
            vip: "192.0.2.10:80".parse().expect("an endpoint"),
            real: "10.0.0.1:80".parse().expect("an endpoint"),
            method: Forwarding::DirectRouting,
            service: None,
            state: "ESTABLISHED".to_owned(),
            expires_s: 899,
            age_s: 3,
            packets,
            table: FlowTable::Established,
            persistent: false,
            translated: false,
            source_port: None,
            inactive: false,
            deleted: false,
        }
    }

    #[test]
    fn flows_are_a_table_whose_columns_grow() {
        let mut listing = Listing::default();
        let mut text = String::new();
        listing.add(&mut text, &[flow("198.51.100.7:40000", 3)]);
        let mut other = flow("[2001:db8::7]:40000", 4_000);
        (other.method, other.source_port, other.deleted) = (Forwarding::Masquerade, Some(1024), true);
        other.persistent = true;
        listing.add(&mut text, &[other]);
        assert_eq!(
            text,
            "PRO  CLIENT              VIP            REAL SERVER  METHOD  STATE         LEFT  PACKETS  TABLE        FLAGS\n\
             TCP  198.51.100.7:40000  192.0.2.10:80  10.0.0.1:80  direct  ESTABLISHED  899 s        3  established\n\
             TCP  [2001:db8::7]:40000  192.0.2.10:80  10.0.0.1:80  full NAT  ESTABLISHED  899 s     4000  established  persistent, server deleted\n"
        );
    }

    #[test]
    fn the_first_of_all_are_kept_in_order() {
        let first = |most, packets: &[u32]| {
            let mut first = First::of(most, |a: &FlowView, b: &FlowView| compare(Some(Sort::Packets), a, b));
            packets.iter().zip(1..).for_each(|(packets, port)| {
                first.add(flow(&format!("198.51.100.7:{port}"), *packets));
            });
            let left_out = first.left_out();
            let kept =
                first.sorted().into_iter().map(|it| (it.packets, it.client.port())).collect::<Vec<_>>();
            (kept, left_out)
        };
        assert_eq!(first(2, &[1, 9, 9]), (vec![(9, 2), (9, 3)], true));
        assert_eq!(first(2, &[1, 9]), (vec![(9, 2), (1, 1)], false));
        assert_eq!(first(1, &[3, 1, 4, 1, 5, 9, 2, 6]), (vec![(9, 6)], true));
        assert_eq!(first(9, &[]), (vec![], false));
    }

    #[test]
    fn counts_have_their_part_and_a_bar() {
        let counted = |name: &str, flows| Counted { name: name.to_owned(), flows };
        assert_eq!(
            counts_text(&[counted("10.0.0.1:80", 30), counted("10.0.0.2:80", 1)], 40),
            "10.0.0.1:80          30   75.0 %  ##############################\n\
             10.0.0.2:80           1    2.5 %  #\n"
        );
    }
}
