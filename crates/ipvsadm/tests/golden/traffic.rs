//! Listings while there was traffic: the model gets what the exact listings said, the others must follow
//! from it.

use crate::model::{Hosts, Model, TRAFFIC_HOSTS};
use api::{Connection, Counters};
use serde::Deserialize;

#[derive(Deserialize)]
struct Listing {
    argv: Vec<String>,
    stdout: String,
}

/// The services of the recording, in listing order, each with one real server.
const SETUP: [&str; 12] = [
    "-A -t 10.9.9.9:80 -s rr",
    "-a -t 10.9.9.9:80 -r 10.77.0.1:9000 -m",
    "-A -t 10.9.9.9:443 -s rr -p 100",
    "-a -t 10.9.9.9:443 -r 10.77.0.1:443 -m",
    "-A -u 10.9.9.9:53 -s rr",
    "-a -u 10.9.9.9:53 -r 10.77.0.1:53 -m",
    "-A -u 10.9.9.9:5060 -s rr -p 60 --pe sip",
    "-a -u 10.9.9.9:5060 -r 10.77.0.1:5060 -m",
    "-A -t [2001:db8::9]:80 -s rr -p 50",
    "-a -t [2001:db8::9]:80 -r [2001:db8::1]:9000 -m",
    "-A -f 7 -s rr -p 90",
    "-a -f 7 -r 10.77.0.1:9000 -m",
];

fn run(model: &mut Model, words: &[String]) -> ipvsadm::Output {
    ipvsadm::run("ipvsadm", words, &mut String::new, model, &Hosts(TRAFFIC_HOSTS))
}

fn listings() -> Vec<Listing> {
    let lines = include_str!("traffic.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a recorded listing")).collect()
}

/// The last numbers of each service's line and of its real server's line.
fn numbers(listing: &Listing) -> Vec<(Vec<u64>, Vec<u64>)> {
    let tail = |line: &str| -> Vec<u64> {
        line.split_whitespace().rev().map_while(|word| word.parse().ok()).take(5).collect()
    };
    let lines: Vec<&str> = listing.stdout.lines().skip(3).collect();
    lines.chunks(2).map(|pair| (tail(pair[0]), tail(pair[1]))).collect()
}

fn stats(counters: &mut Counters, numbers: &[u64]) {
    let [out_bytes, in_bytes, out_packets, in_packets, connections] = numbers else {
        panic!("not five numbers: {numbers:?}");
    };
    counters.connections = *connections;
    (counters.in_packets, counters.out_packets) = (*in_packets, *out_packets);
    (counters.in_bytes, counters.out_bytes) = (*in_bytes, *out_bytes);
}

fn rates(counters: &mut Counters, numbers: &[u64]) {
    let [out_bytes, in_bytes, out_packets, in_packets, connections] = numbers else {
        panic!("not five numbers: {numbers:?}");
    };
    counters.connections_per_s = *connections;
    (counters.in_packets_per_s, counters.out_packets_per_s) = (*in_packets, *out_packets);
    (counters.in_bytes_per_s, counters.out_bytes_per_s) = (*in_bytes, *out_bytes);
}

/// Takes the numbers of an exact listing, or the columns of `--persistent-conn`, into the model.
fn learn(model: &mut Model, listing: &Listing) {
    let given = |word: &str| listing.argv.iter().any(|w| w == word);
    let kind = if given("--stats") && given("-X") {
        stats
    } else if given("--rate") && given("-X") {
        rates
    } else if given("--persistent-conn") && given("-Ln") {
        for (service, (_, real)) in model.services.services.iter_mut().zip(numbers(listing)) {
            let [inactive, active, persistent, _weight] = real[..] else {
                panic!("not four numbers: {real:?}");
            };
            let view = &mut service.reals[0];
            let small = |number: u64| u32::try_from(number).expect("a small number");
            (view.active, view.inactive, view.persistent) =
                (small(active), small(inactive), small(persistent));
        }
        return;
    } else {
        return;
    };
    for (service, (of_service, of_real)) in model.services.services.iter_mut().zip(numbers(listing)) {
        kind(&mut service.counters, &of_service);
        kind(&mut service.reals[0].counters, &of_real);
    }
}

#[test]
fn counters_and_flow_counts_are_shown_as_recorded() {
    let mut model = Model::default();
    for line in SETUP {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(run(&mut model, &words), ipvsadm::Output::default(), "{line}");
    }
    let listings: Vec<Listing> = listings().into_iter().filter(|l| !l.argv[0].starts_with("-Lc")).collect();
    let flows = listings.iter().find(|l| l.argv == ["-Ln", "--persistent-conn"]).expect("flow counts");
    let mut compared = 0;
    for listing in &listings {
        learn(&mut model, listing);
        learn(&mut model, flows);
        assert_eq!(run(&mut model, &listing.argv).stdout, listing.stdout, "{:?}", listing.argv);
        compared += 1;
    }
    assert_eq!(compared, 11);
}

/// One row of `-Lcn --persistent-conn`.
fn flow(row: &str) -> Connection {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (minutes, seconds) = words[1].split_once(':').expect("minutes and seconds");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let endpoint = |text: &str| text.parse().expect("an endpoint");
    Connection {
        protocol: words[0].to_owned(),
        expires_s: number(minutes) * 60 + number(seconds),
        state: words[2].to_owned(),
        client: endpoint(words[3]),
        virtual_address: endpoint(words[4]),
        real: endpoint(words[5]),
        embryonic: false,
        engine: words.get(6).map(|word| (*word).to_owned()),
        engine_data: words.get(7).map(|word| (*word).to_owned()),
    }
}

#[test]
fn flows_are_shown_as_recorded() {
    let listings: Vec<Listing> = listings().into_iter().filter(|l| l.argv[0].starts_with("-Lc")).collect();
    let full = listings.iter().find(|l| l.argv == ["-Lcn", "--persistent-conn"]).expect("all columns");
    let mut model = Model::default();
    model.connections = full.stdout.lines().skip(2).map(flow).collect();
    assert_eq!(model.connections.len(), 11);
    assert_eq!(listings.len(), 4);
    for listing in &listings {
        assert_eq!(run(&mut model, &listing.argv).stdout, listing.stdout, "{:?}", listing.argv);
    }
}
