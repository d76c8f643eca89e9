//! Listings with traffic: the samples of the IPVS description, column for column.

use api::{
    Connection, Counters, Family, Forwarding, Persistence, Protocol, RealId, RealSpec, RealView,
    SchedulerFlags, ServiceId, ServiceSpec, ServiceView, Services, Timeouts, Tunnel, TunnelChecksum,
};
use ipvsadm::{BigNumbers, Format, ListServices, Names, connections_text, save_text, services_text};
use std::net::{IpAddr, Ipv4Addr};

/// No name is known.
struct Nameless;

impl Names for Nameless {
    fn host_address(&self, _name: &str) -> Option<Ipv4Addr> {
        None
    }

    fn service_port(&self, _name: &str, _protocol: Protocol) -> Option<u16> {
        None
    }

    fn host_name(&self, _address: IpAddr) -> Option<String> {
        None
    }

    fn service_name(&self, _port: u16, _protocol: Protocol) -> Option<String> {
        None
    }
}

fn address(protocol: Protocol, at: &str, port: u16) -> ServiceId {
    ServiceId::Address { protocol, address: at.parse().expect("an address"), port }
}

fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.to_owned(),
        scheduler_flags: SchedulerFlags::default(),
        persistence: None,
        persistence_engine: None,
        one_packet: false,
    }
}

fn real(at: &str, port: u16, forwarding: Forwarding, weight: u32, active: u32, inactive: u32) -> RealView {
    let spec = RealSpec { forwarding, weight, upper_threshold: 0, lower_threshold: 0, tunnel: Tunnel::Ipip };
    RealView {
        id: RealId { address: at.parse().expect("an address"), port },
        spec,
        active,
        inactive,
        persistent: 0,
        neighbour: None,
        counters: Counters::default(),
    }
}

fn service(id: ServiceId, spec: ServiceSpec, reals: Vec<RealView>) -> ServiceView {
    ServiceView { id, spec, counters: Counters::default(), reals }
}

fn web() -> ServiceView {
    let mut first = real("10.0.0.1", 8080, Forwarding::Masquerade, 10, 120, 3456);
    first.spec.upper_threshold = 100;
    first.spec.lower_threshold = 75;
    first.persistent = 3;
    first.counters = Counters {
        connections: 411,
        in_packets: 32921,
        out_packets: 29218,
        in_bytes: 41_152_263,
        out_bytes: 3_292_181_070,
        connections_per_s: 4,
        in_packets_per_s: 115,
        out_packets_per_s: 107,
        in_bytes_per_s: 15226,
        out_bytes_per_s: 41_152_263,
    };
    let second = real("10.0.0.2", 80, Forwarding::DirectRouting, 0, 0, 7);
    let mut web = service(address(Protocol::Tcp, "192.0.2.10", 80), spec("wlc"), vec![second, first]);
    web.counters = Counters {
        connections: 1234,
        in_packets: 98765,
        out_packets: 87654,
        in_bytes: 123_456_789,
        out_bytes: 9_876_543_210,
        connections_per_s: 12,
        in_packets_per_s: 345,
        out_packets_per_s: 321,
        in_bytes_per_s: 45678,
        out_bytes_per_s: 123_456_789,
    };
    web
}

fn sample() -> Services {
    let mut secure = spec("sh");
    secure.scheduler_flags = SchedulerFlags { flag_1: true, flag_2: true, flag_3: false };
    secure.persistence = Some(Persistence { timeout_s: 360, mask: 0xffff_ff00 });
    let mut gue = real("10.0.0.2", 443, Forwarding::Tunnel, 2, 1, 0);
    gue.spec.tunnel = Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Full };
    let tunnels = vec![gue, real("10.0.0.1", 443, Forwarding::Tunnel, 1, 1, 0)];
    let mut dns = spec("rr");
    dns.one_packet = true;
    let mut sip = spec("rr");
    sip.persistence = Some(Persistence { timeout_s: 60, mask: u32::MAX });
    sip.persistence_engine = Some("sip".to_owned());
    let mut six = spec("wlc");
    six.persistence = Some(Persistence { timeout_s: 300, mask: 64 });
    let mut marked = spec("mh");
    marked.scheduler_flags.flag_2 = true;
    let mark = ServiceId::Fwmark { mark: 7, family: Family::Ipv4 };
    let masq = |at: &str, port, inactive| vec![real(at, port, Forwarding::Masquerade, 1, 0, inactive)];
    Services {
        connection_table_size: 4096,
        timeouts: Timeouts { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 },
        services: vec![
            service(mark, marked, vec![real("10.0.0.1", 0, Forwarding::DirectRouting, 1, 0, 0)]),
            service(address(Protocol::Tcp, "2001:db8::80", 80), six, masq("2001:db8::a0a0", 80, 0)),
            service(address(Protocol::Udp, "192.0.2.11", 5060), sip, masq("10.0.0.1", 5060, 5)),
            service(address(Protocol::Udp, "192.0.2.10", 53), dns, masq("10.0.0.1", 53, 5)),
            service(address(Protocol::Tcp, "192.0.2.10", 443), secure, tunnels),
            web(),
        ],
    }
}

fn list(format: Format, big_numbers: BigNumbers) -> Vec<String> {
    let request = ListServices { format, big_numbers, numeric: true, ..ListServices::default() };
    let text = services_text(&sample(), &request, &Nameless).expect("a listing");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_plain_listing() {
    let want = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc
  -> 10.0.0.1:8080                Masq    10     120        3456······
  -> 10.0.0.2:80                  Route   0      0          7·········
TCP  192.0.2.10:443 sh (sh-fallback,sh-port) persistent 360 mask 255.255.255.0
  -> 10.0.0.1:443                 Tunnel  1      1          0·········
  -> 10.0.0.2:443                 Tunnel  2      1          0·········
UDP  192.0.2.10:53 rr ops
  -> 10.0.0.1:53                  Masq    1      0          5·········
UDP  192.0.2.11:5060 rr persistent 60 pe sip
  -> 10.0.0.1:5060                Masq    1      0          5·········
TCP  [2001:db8::80]:80 wlc persistent 300 mask 64
  -> [2001:db8::a0a0]:80          Masq    1      0          0·········
FWM  7 mh (mh-port)
  -> 10.0.0.1:0                   Route   1      0          0·········
";
    let request = ListServices { numeric: true, ..ListServices::default() };
    let got = services_text(&sample(), &request, &Nameless).expect("a listing");
    assert_eq!(got, want.replace('·', " "));
}

#[test]
fn counters() {
    let stats = list(Format::Stats, BigNumbers::Rounded);
    assert_eq!(stats[1], "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes");
    assert_eq!(stats[3], "TCP  192.0.2.10:80                    1234    98765    87654  123456K    9876M");
    assert_eq!(stats[4], "  -> 10.0.0.1:8080                     411    32921    29218 41152263    3292M");
    let exact = list(Format::Stats, BigNumbers::Exact);
    assert_eq!(exact[3], "TCP  192.0.2.10:80                    1234    98765    87654 123456789 9876543210");
    assert_eq!(exact[4], "  -> 10.0.0.1:8080                     411    32921    29218 41152263 3292181070");
    let rate = list(Format::Rate, BigNumbers::Rounded);
    assert_eq!(rate[1], "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS");
    assert_eq!(rate[3], "TCP  192.0.2.10:80                      12      345      321    45678  123456K");
    assert_eq!(rate[4], "  -> 10.0.0.1:8080                       4      115      107    15226 41152263");
}

#[test]
fn thresholds_templates_and_tunnels() {
    let thresholds = list(Format::Thresholds, BigNumbers::Rounded);
    assert_eq!(
        thresholds[4],
        "  -> 10.0.0.1:8080                100        75         120        3456      "
    );
    let persistent = list(Format::PersistentConn, BigNumbers::Rounded);
    assert_eq!(
        persistent[4],
        "  -> 10.0.0.1:8080                10        3           120        3456      "
    );
    let tunnels = list(Format::TunInfo, BigNumbers::Rounded);
    assert_eq!(
        tunnels[7],
        "  -> 10.0.0.1:443                 Tunnel  ipip          1      1          0         "
    );
    assert_eq!(
        tunnels[8],
        "  -> 10.0.0.2:443                 Tunnel  gue:6080:+c   2      1          0         "
    );
}

#[test]
fn saved_lines() {
    let want = "\
-A -t 192.0.2.10:80 -s wlc
-a -t 192.0.2.10:80 -r 10.0.0.1:8080 -m -w 10
-a -t 192.0.2.10:80 -r 10.0.0.2:80 -g -w 0
-A -t 192.0.2.10:443 -s sh -p 360 -M 255.255.255.0 -b sh-fallback,sh-port
-a -t 192.0.2.10:443 -r 10.0.0.1:443 -i -w 1 --tun-type ipip
-a -t 192.0.2.10:443 -r 10.0.0.2:443 -i -w 2 --tun-type gue --tun-port 6080 --tun-csum
-A -u 192.0.2.10:53 -s rr -o
-a -u 192.0.2.10:53 -r 10.0.0.1:53 -m -w 1
-A -u 192.0.2.11:5060 -s rr -p 60 --pe sip
-a -u 192.0.2.11:5060 -r 10.0.0.1:5060 -m -w 1
-A -t [2001:db8::80]:80 -s wlc -p 300 -M 64
-a -t [2001:db8::80]:80 -r [2001:db8::a0a0]:80 -m -w 1
-A -f 7 -s mh -b mh-port
-a -f 7 -r 10.0.0.1:0 -g -w 1
";
    assert_eq!(save_text(&sample(), true, &Nameless), want);
}

fn flow(protocol: &str, expires_s: u64, state: &str, ends: [&str; 3]) -> Connection {
    let [client, virtual_address, real] = ends.map(|end| end.parse().expect("an endpoint"));
    Connection {
        protocol: protocol.to_owned(),
        expires_s,
        state: state.to_owned(),
        client,
        virtual_address,
        real,
        embryonic: false,
        engine: None,
        engine_data: None,
    }
}

#[test]
fn flows() {
    let flows = [
        flow("TCP", 899, "ESTABLISHED", ["198.51.100.1:54321", "192.0.2.10:80", "10.0.0.1:8080"]),
        flow("IP", 312, "NONE", ["198.51.100.0:0", "0.0.0.7:0", "10.0.0.1:0"]),
        flow("TCP", 119, "FIN_WAIT", ["[2001:db8::1]:54321", "[2001:db8::80]:80", "[2001:db8::a0a0]:80"]),
        flow("TCP", 2_678_400, "ASSURED", ["198.51.100.0:0", "192.0.2.10:443", "10.0.0.1:443"]),
    ];
    let want = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 198.51.100.1:54321 192.0.2.10:80      10.0.0.1:8080
IP  05:12  NONE        198.51.100.0:0     0.0.0.7:0          10.0.0.1:0
TCP 01:59  FIN_WAIT    [2001:db8::1]:54321 [2001:db8::80]:80  [2001:db8::a0a0]:80
TCP 44640:00 ASSURED     198.51.100.0:0     192.0.2.10:443     10.0.0.1:443
";
    assert_eq!(connections_text(&flows, true, false, &Nameless), want);
}

#[test]
fn flows_with_engine_data() {
    let mut flow = flow("UDP", 59, "UDP", ["198.51.100.2:5060", "192.0.2.11:5060", "10.0.0.1:5060"]);
    let plain = flow.clone();
    flow.engine = Some("sip".to_owned());
    flow.engine_data = Some("3848276298220188511@atlanta.example.com".to_owned());
    let text = connections_text(&[flow.clone(), plain], true, true, &Nameless);
    let lines: Vec<&str> = text.lines().collect();
    let title = "pro expire state       source             virtual            destination        pe name          pe_data";
    assert_eq!(lines[1], title);
    let row = "UDP 00:59  UDP         198.51.100.2:5060  192.0.2.11:5060    10.0.0.1:5060    sip                3848276298220188511@atlanta.example.com";
    assert_eq!(lines[2], row);
    assert_eq!(lines[3], "UDP 00:59  UDP         198.51.100.2:5060  192.0.2.11:5060    10.0.0.1:5060");
    assert!(connections_text(&[flow], true, false, &Nameless).ends_with("10.0.0.1:5060\n"));
}
