//! Hash schedulers by the directors' secret: where clients go follows from the secret and nothing else, and nobody without
//! it can aim at one real server.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr};

use abi::{Address, FlowKey, Service};
use siphasher::sip::SipHasher13;
use testkit::MemoryTables;
use testkit::case::{Compiled, Tables};

const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
/// Real servers of the services here.
const REALS: u32 = 8;

/// The tables of one service with this scheduler and flags, of directors with this secret.
fn director(scheduler: &str, flags: &str, key: [u64; 2]) -> (MemoryTables, Compiled) {
    let reals: Vec<String> = (1..=REALS).map(|last| format!("{{ address = '10.0.0.{last}' }}")).collect();
    let text = format!(
        "services = [{{ at = 'tcp 192.0.2.10:80', scheduler = '{scheduler}', flags = [{flags}], reals = [{}] }}]",
        reals.join(", ")
    );
    let tables: Tables = toml::from_str(&text).expect("tables of a case");
    let mut compiled = Compiled::new(&tables, 1_000_000_000).expect("tables");
    compiled.settings.placement_key = key;
    (MemoryTables::new(&compiled), compiled)
}

fn service(tables: &Compiled) -> Service {
    tables.services.first().expect("one service").1
}

fn v4(number: u32) -> Address {
    Address::v4(Ipv4Addr::from(0x0a00_0000 + number).octets())
}

fn key(client: Address, port: u16) -> FlowKey {
    FlowKey { client, client_port_be: port.to_be(), ..FlowKey::default() }
}

fn choose((memory, tables): &(MemoryTables, Compiled), key: &FlowKey) -> u32 {
    forward::schedule::schedule(memory, &service(tables), key).expect("a real server")
}

#[test]
fn a_slot_is_siphash_of_address_and_port() {
    for (scheduler, flags, with_port) in [("sh", "", false), ("sh", "'port'", true), ("mh", "'port'", true)] {
        let director = director(scheduler, flags, KEY);
        let ring = service(&director.1).ring;
        for number in 0..500_u32 {
            let (client, port) = (v4(number * 7919), (number * 31) as u16);
            let mut hasher = SipHasher13::new_with_keys(KEY[0], KEY[1]);
            hasher.write(&client.octets());
            hasher.write(&u32::from(if with_port { port } else { 0 }).to_le_bytes());
            let place = hasher.finish() as u32 % ring.len;
            let expected = director.1.slots[(ring.start + place) as usize].real;
            assert_eq!(choose(&director, &key(client, port)), expected, "{scheduler} {client:?} {port}");
        }
    }
}

#[test]
fn directors_with_one_secret_agree_and_others_do_not() {
    for scheduler in ["sh", "mh"] {
        let [one, same, other] = [KEY, KEY, [1, 2]].map(|key| director(scheduler, "", key));
        let clients = || (0..4000).map(|number| key(v4(number), 0));
        assert!(clients().all(|client| choose(&one, &client) == choose(&same, &client)));
        let alike = clients().filter(|client| choose(&one, client) == choose(&other, client)).count();
        // By chance one of eight.
        assert!((300..700).contains(&alike), "{scheduler}: {alike} of 4000");
    }
}

/// Addresses of one IPv6 network that IPVS cannot tell apart: the XOR of their words is the same.
fn folding_alike(number: u32) -> Address {
    let host = u128::from(number) << 32 | u128::from(number ^ 0x0bad_cafe);
    Address::v6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | host).octets())
}

#[test]
fn a_client_with_many_addresses_can_aim_by_ipvs_and_not_by_secret() {
    for scheduler in ["sh", "mh"] {
        let met = |flags: &str| {
            let director = director(scheduler, flags, KEY);
            (0..1000).map(|number| choose(&director, &key(folding_alike(number), 0))).collect::<Vec<u32>>()
        };
        assert_eq!(met("'exact'").into_iter().collect::<BTreeSet<u32>>().len(), 1, "{scheduler}");
        let met = met("");
        for real in 0..REALS {
            let share = met.iter().filter(|it| **it == real).count();
            assert!((60..200).contains(&share), "{scheduler}: {share} of 1000 at {real}");
        }
    }
}

#[test]
fn the_fallback_of_a_secret_placement_tries_every_slot() {
    let (_, mut compiled) = director("mh", "'fallback'", KEY);
    // All but the last real server are drained: the ring keeps their slots.
    for slot in compiled.slots.iter_mut().filter(|slot| slot.real != REALS - 1) {
        slot.weight = 0;
    }
    let director = (MemoryTables::new(&compiled), compiled);
    assert!((0..500).all(|number| choose(&director, &key(v4(number), 0)) == REALS - 1));
}
