//! A model written as a file and read again is the same model.

mod models;

use api::{Change, Forwarding, Protocol, RealId, RealSpec, SchedulerFlags, ServiceId, ServiceSpec, Tunnel};
use cluster::{Hints, parse, render};
use models::model;
use plan::{Model, Options};
use proptest::prelude::*;

fn errors(text: &str) -> String {
    let lines = cluster::Lines::new(text);
    parse(text, &Options::default()).findings.iter().map(|finding| finding.text("saved", &lines)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_model_written_and_read_is_the_same(model in model()) {
        let text = render(&model, &Hints::default());
        let Some(cluster) = parse(&text, &Options::default()).cluster else {
            return Err(TestCaseError::fail(format!("{text}\n{}", errors(&text))));
        };
        prop_assert_eq!(&cluster.model, &model, "{}", text);
        // The order of real servers is that of schedulers and listings.
        for (id, entry) in model.services() {
            let order = |entry: &plan::ServiceEntry| entry.reals().map(|(real, _)| *real).collect::<Vec<_>>();
            prop_assert_eq!(cluster.model.service(id).map(order), Some(order(entry)));
        }
        prop_assert_eq!(cluster::format(&text), Ok(text));
    }
}

#[test]
fn what_is_the_same_shares_a_table() {
    let mut model = Model::new(Options::default());
    for (vip, server) in
        [("192.0.2.10", "10.0.0.1"), ("192.0.2.11", "10.0.0.1"), ("2001:db8::1", "2001:db8:1::1")]
    {
        for port in [80, 8000, 8001, 8002] {
            let service =
                ServiceId::Address { protocol: Protocol::Tcp, address: vip.parse().expect("a VIP"), port };
            let flags = SchedulerFlags::default();
            let spec = ServiceSpec {
                scheduler: "wlc".to_owned(),
                scheduler_flags: flags,
                persistence: None,
                persistence_engine: None,
                one_packet: false,
            };
            model.apply(&Change::AddService { service, spec }).expect("added");
            let real = RealId { address: server.parse().expect("an address"), port };
            let spec = RealSpec {
                forwarding: Forwarding::DirectRouting,
                weight: 3,
                upper_threshold: 0,
                lower_threshold: 0,
                tunnel: Tunnel::Ipip,
            };
            model.apply(&Change::AddReal { service, real, spec }).expect("added");
        }
    }
    assert_eq!(
        render(&model, &Hints::default()),
        "[service.tcp-192-0-2-10-80]\nvip = [\"192.0.2.10\", \"192.0.2.11\"]\nports = [\"tcp/80\", \"tcp/8000-8002\"]\n\
         servers = [{ server = \"10.0.0.1\", weight = 3 }]\nscheduler = \"wlc\"\n\n\
         [service.tcp-2001-db8--1-80]\nvip = \"2001:db8::1\"\nports = [\"tcp/80\", \"tcp/8000-8002\"]\n\
         servers = [{ server = \"2001:db8:1::1\", weight = 3 }]\nscheduler = \"wlc\"\n"
    );
}
