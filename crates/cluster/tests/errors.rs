//! What is said of a file that is wrong: every text, with its place.

use cluster::{FILE_BYTES_MAX, Lines, decode, parse};
use plan::Options;

/// `LINE:COLUMN: severity: message` of all findings.
fn findings(text: &str) -> Vec<String> {
    let lines = Lines::new(text);
    let parsed = parse(text, &Options::default());
    let one = |finding: &cluster::Finding| {
        let place = lines.place(finding.span.start);
        format!("{}:{}: {}: {}", place.line, place.column, finding.severity.name(), finding.message)
    };
    let findings: Vec<String> = parsed.findings.iter().map(one).collect();
    assert_eq!(parsed.cluster.is_none(), findings.iter().any(|it| it.contains(": error: ")), "{findings:?}");
    findings
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let findings = findings(text);
    assert_eq!(findings, expected, "\n{}", findings.join("\n"));
}

/// A service that is right, so that one thing at a time can be wrong.
const GOOD: &str = "\n[service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\nservers = [\"10.0.0.1\"]\n";

#[test]
fn a_small_file_is_good() {
    check(GOOD, &[]);
    check(
        "",
        &["1:1: warning: no service is declared: applied, this file takes away every service there is"],
    );
}

#[test]
fn all_errors_of_syntax_come_at_once_and_hide_nothing_else() {
    check(
        "[server.a]\naddress = 10.0.0.1\nweight = \n[server.a]\n[server.b]\naddress = \"10.0.0.2\nweigth = 3\n",
        &[
            "2:11: error: `10.0.0.1' is no value: text stands in quotes, as \"10.0.0.1\"",
            "3:10: error: a value is missing here: text in quotes, a number, true, false, or a list in [ ]",
            "4:9: error: `a' stands here for the second time: keep one",
            "6:20: error: invalid basic string, expected `\"`",
            "7:1: error: unknown key `weigth' in a server: did you mean `weight'?",
        ],
    );
}

#[test]
fn wrong_values_say_what_would_be_right() {
    check(
        "[server.a]\naddress = \"10.0.0\"\nweight = \"ten\"\ndrain = 1\nupper_threshold = 4294967296\nforward = \"dsr\"\n\
         [timeouts]\ntcp = 900\nudp = \"1500ms\"\n[settings]\nsloppy_tcp = 2\n",
        &[
            "2:11: error: found `\"10.0.0\"', expected an IP address, such as \"192.0.2.10\" or \"2001:db8::10\"",
            "3:10: error: found `\"ten\"', expected a whole number, 0 to 2147483647",
            "4:9: error: found `1', expected true or false",
            "5:19: error: found `4294967296', expected a whole number, 0 to 2147483647",
            "6:11: error: found `\"dsr\"', expected \"direct\", \"nat\", \"full-nat\", \"tunnel\" or \"local\"",
            "8:7: error: found `900', expected a time with its unit in whole seconds, such as \"90s\" or \"5m\", 1s to 31d",
            "9:7: error: found `\"1500ms\"', expected a time with its unit in whole seconds, such as \"90s\" or \"5m\", 1s to 31d",
            "11:14: error: found `2', expected a whole number, 0 to 1 (1: any TCP segment but RST opens a connection)",
        ],
    );
}

#[test]
fn unknown_keys_and_names_come_with_a_suggestion() {
    check(
        "servers = 1\n[checks.a]\n[settings]\nconntrack = 1\nslopy_tcp = 1\n\
         [service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\nservers = [\"10.0.0.1\"]\n\
         schedular = \"wlc\"\nchecks = \"page\"\ntemplate = \"web\"\ncluster = \"shop\"\nquux = 1\n\
         [check.pages]\ntype = \"tcp\"\n",
        &[
            "1:1: error: unknown key `servers' in the file: did you mean `server'?",
            "2:2: error: unknown key `checks' in the file: did you mean `check'?",
            "4:1: error: conntrack has no meaning here: packets are balanced before netfilter sees them, so there is no entry to keep",
            "5:1: error: there is no setting `slopy_tcp': did you mean `sloppy_tcp'?",
            "9:12: error: server `10.0.0.1' is not in cluster `shop': add it there, or use another one",
            "10:1: error: unknown key `schedular' in a service: did you mean `scheduler'?",
            "11:10: error: no check `page': did you mean `pages'?",
            "12:12: error: no template `web': there are none: declare it as [template.NAME]",
            "13:11: error: no cluster `shop': there are none: declare it as [cluster.NAME]",
            "14:1: error: unknown key `quux' in a service: there are template, vip, ports, mark, family, cluster, servers, \
             scheduler, scheduler_flags, persistence, persistence_engine, one_packet, forward, tunnel, server_port, checks, \
             on_failure, panic_percent, fallback, hold_down, slow_start_time, drain_time, adaptive, passive, gone, rescue, \
             source_nat, placement, allow, deny, connections_per_client, rate_per_client",
        ],
    );
}

#[test]
fn everything_that_is_missing_in_a_table_is_said_at_once() {
    check(
        &format!("{GOOD}hold_down = {{ failures = 1 }}\n"),
        &[
            "6:13: error: `within' is missing in hold_down",
            "6:13: error: `hold' is missing in hold_down",
            "6:26: error: found `1', expected a whole number, 2 to 100",
        ],
    );
}

#[test]
fn a_limit_is_said_once() {
    let text = "[service.www]\nvip = \"192.0.2.10\"\nports = [\"tcp/80\", \"tcp/81\", \"tcp/82\", \"tcp/83\"]\nservers = []\n";
    let mut options = Options::default();
    options.limits.services_max = 1;
    let parsed = parse(text, &options);
    let messages: Vec<String> = parsed.findings.into_iter().map(|finding| finding.message).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with("limit services_max of 1 services"), "{messages:?}");
}

#[test]
fn one_packet_without_udp_is_warned_of() {
    check(
        &format!("{GOOD}one_packet = true\n"),
        &["6:14: warning: `one_packet' does nothing here: no port is of UDP"],
    );
    check(&format!("{GOOD}one_packet = false\n"), &[]);
    check(&format!("{}one_packet = true\n", GOOD.replace("\"tcp/80\"", "[\"tcp/80\", \"udp/80\"]")), &[]);
}

#[test]
fn a_vip_that_nobody_can_reach_is_warned_of() {
    let text = "[service.www]\nvip = [\"224.0.0.1\", \"127.0.0.1\", \"0.0.0.0\", \"255.255.255.255\", \"192.0.2.10\"]\n\
                ports = \"tcp/80\"\nservers = [\"10.0.0.1\"]\n";
    check(
        text,
        &[
            "2:8: warning: VIP 224.0.0.1 is a multicast address: no client reaches it",
            "2:21: warning: VIP 127.0.0.1 is a loopback address: no client reaches it",
            "2:34: warning: VIP 0.0.0.0 is no address of a machine: no client reaches it",
            "2:45: warning: VIP 255.255.255.255 is the broadcast address: no client reaches it",
        ],
    );
}

#[test]
fn what_was_meant_for_an_address_is_told_from_a_name() {
    let text = "[service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\n\
                servers = [\"10.0.0.1:8080\", \"[2001:db8::1]:80\", \"10.0.0.999\", \"fe80::1%0\", \"10.0.0.0/24\", \"web.1\"]\n";
    let no_address =
        "is no address, and no server has this name: write one such as \"10.0.0.1\" or \"2001:db8::1\"";
    check(
        text,
        &[
            "4:12: error: `10.0.0.1:8080' is an address with a port: write { server = \"10.0.0.1\", port = 8080 }",
            "4:29: error: `[2001:db8::1]:80' is an address with a port: write { server = \"2001:db8::1\", port = 80 }",
            &format!("4:49: error: `10.0.0.999' {no_address}"),
            &format!("4:63: error: `fe80::1%0' {no_address}"),
            &format!("4:76: error: `10.0.0.0/24' {no_address}"),
            "4:91: error: no server `web.1': there are none: declare it as [server.NAME]",
        ],
    );
}

#[test]
fn services_must_not_overlap() {
    let text = "[service.a]\nvip = [\"192.0.2.10\", \"192.0.2.11\"]\nports = [\"tcp/80-90\", \"tcp/90\"]\nservers = []\n\
         [service.b]\nvip = \"192.0.2.11\"\nports = [\"udp/80\", \"tcp/85\"]\nservers = []\n\
         [service.c]\nvip = \"192.0.2.12\"\nports = \"tcp/1-10\"\nmark = 7\nservers = []\n\
         [service.d]\nvip = \"192.0.2.12\"\nports = \"tcp/10-20\"\nmark = 8\nservers = []\n\
         [service.e]\nmark = 7\nservers = []\n";
    check(
        text,
        &[
            "3:23: error: TCP 192.0.2.10:90 is in this service twice: keep one",
            "7:20: error: TCP 192.0.2.11:85 is in service `a' already (line 3): each VIP and port is in one service",
            "16:9: error: TCP 192.0.2.12:10-20 overlaps what has mark 7 already (line 11): keep one",
            "20:8: error: FWM 7 is in service `c' already (line 12): each VIP and port is in one service",
        ],
    );
}

#[test]
fn a_service_that_a_mark_hides_is_warned_of() {
    check(
        "[service.all]\nvip = \"192.0.2.10\"\nports = \"tcp/*\"\nmark = 1\nservers = []\n\
         [service.www]\nvip = \"192.0.2.10\"\nports = \"tcp/80\"\nservers = []\n\
         [service.every]\nvip = \"192.0.2.11\"\nports = \"tcp/*\"\nservers = []\n",
        &[
            "8:9: warning: TCP 192.0.2.10:80 gets no packets: they have mark 1 (line 3) and go to service `all'",
            "12:9: warning: a service of every port serves nobody without `persistence', as in IPVS",
        ],
    );
}

#[test]
fn address_families_do_not_mix_but_in_tunnels() {
    let text = |forward: &str| {
        format!(
            "[server.a]\naddress = \"10.0.0.1\"\nforward = \"{forward}\"\n[service.s]\nvip = [\"192.0.2.1\", \"2001:db8::1\"]\nports = \"tcp/80\"\nservers = [\"a\"]\n"
        )
    };
    check(
        &text("direct"),
        &[
            "7:12: error: server `a' has no IPv6 address for TCP [2001:db8::1]:80: give it one in [server.NAME], or forward = \"tunnel\"",
        ],
    );
    check(&text("tunnel"), &[]);
    check(
        "[server.a]\naddress = [\"10.0.0.1\", \"10.0.0.2\"]\n[server.b]\naddress = \"10.0.0.1\"\n[server.\"10.0.0.5\"]\naddress = \"10.0.0.5\"\n[server.\"a b\"]\naddress = []\n",
        &[
            "2:11: error: expected one address, or one of each family",
            "4:11: error: 10.0.0.1 is the address of server `a': each server has its own",
            "5:9: error: `10.0.0.5' is an address, not a name: an address needs no table; write it in `servers'",
            "7:9: error: `a b' is no name: 1 to 63 letters, digits, and . _ -",
            "8:11: error: expected one address, or one of each family",
        ],
    );
}

#[test]
fn clusters_divide_the_servers() {
    check(
        "[server.a]\naddress = \"10.0.0.1\"\n[server.b]\naddress = \"10.0.0.2\"\n\
         [cluster.x]\nservers = [\"a\", \"a\"]\n[cluster.y]\nservers = [\"a\", \"b\", \"c\"]\n\
         [service.s]\nvip = \"192.0.2.1\"\nports = \"tcp/80\"\ncluster = \"x\"\nservers = [\"a\", \"b\", \"10.0.0.2\"]\n",
        &[
            "6:17: error: server `a' is in this cluster twice: keep one",
            "8:12: error: server `a' is in cluster `x' already: clusters divide the servers, so that each is in one",
            "8:22: error: no server `c': there are a, b",
            "13:17: error: server `b' is in cluster `y', so a service of `x' cannot use it",
            "13:22: error: 10.0.0.2 is server `b': use its name",
            "13:22: error: server `10.0.0.2' is not in cluster `x': add it there, or use another one",
        ],
    );
}

#[test]
fn templates_do_not_go_in_circles() {
    check(
        "[template.a]\ntemplate = \"b\"\n[template.b]\ntemplate = \"c\"\n[template.c]\ntemplate = \"b\"\n[template.d]\ntemplate = \"d\"\n\
         [service.s]\ntemplate = \"a\"\n",
        &[
            "2:12: error: template `a' stands on more than 16 templates: say more in fewer",
            "4:12: error: template `b' leads back to itself: b -> c -> b",
            "8:12: error: template `d' leads back to itself: d -> d",
        ],
    );
}

#[test]
fn what_must_be_there_is_missed() {
    check(
        "[server.a]\nweight = 1\n[check.c]\n[service.s]\n[service.t]\nvip = \"192.0.2.1\"\nservers = []\n[service.u]\nports = \"tcp/80\"\nservers = []\n",
        &[
            "1:9: error: `address' is missing in a server",
            "3:8: error: `type' is missing in a check",
            "4:10: error: service `s' has no servers: give `servers' or `cluster' (`servers = []' for none)",
            "4:10: error: service `s' has no VIP: give `vip' and `ports', or a `mark'",
            "5:10: error: service `t' has a VIP but no ports: give `ports', such as \"tcp/80\"",
            "8:10: error: service `u' has ports but no VIP: give `vip'",
        ],
    );
}

#[test]
fn clients_that_cannot_be_limited_and_what_this_release_cannot_do() {
    check(
        &format!("{GOOD}allow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny = \"10.0.0.0/8\"\n"),
        &["7:8: error: TCP 192.0.2.10:80: the network 10.0.0.0/8 is named twice in `allow' and `deny'"],
    );
    let limited = GOOD.replace("tcp/80", "udp/53");
    check(
        &format!("{limited}one_packet = true\nconnections_per_client = 3\n"),
        &[
            "7:26: error: UDP 192.0.2.10:53: connections_per_client cannot be kept where each packet is scheduled for itself \
             (one-packet): use rate_per_client",
        ],
    );
    check(
        &format!("{GOOD}deny = \"10.0.0.1/8\"\nconnections_per_client = 0\n"),
        &[
            "6:8: error: found `\"10.0.0.1/8\"', expected a network without bits behind its prefix, such as \"198.51.100.0/24\" or \
             \"2001:db8::/32\"",
            "7:26: error: found `0', expected a whole number, 1 to 2147483647",
        ],
    );
    check(
        "[director.lb1]\naddress = \"192.0.2.1\"\n",
        &[
            "1:1: warning: no service is declared: applied, this file takes away every service there is",
            "1:11: warning: directors are for hot standby, which is not in this release: nothing follows from this table",
        ],
    );
}

#[test]
fn checks_have_the_keys_of_their_type() {
    check(
        "[check.a]\ntype = \"tcp\"\npath = \"/\"\n[check.b]\ntype = \"http\"\npath = \"index\"\n[check.c]\ntype = \"http\"\nexpect = { matches = \"(\" }\n\
         [check.d]\ntype = \"exchange\"\nover = \"udp\"\ntls = true\nsend = { text = \"a\", hex = \"00\" }\n[check.e]\ntype = \"program\"\ncommand = \"true\"\n\
         [check.f]\ntype = \"http\"\nstatus = [200, \"300-200\"]\ntls = { key = \"-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIJ1\" }\n\
         [check.g]\ntype = \"dns\"\nrecord = \"AXFR\"\n[check.h]\ntype = \"ftp\"\n",
        &[
            "3:8: error: `path' says nothing to a check of type \"tcp\": it is for \"http\"",
            "6:8: error: `index' is no path: it begins with / and has no blanks",
            "9:22: error: `(' is no regular expression: unclosed group",
            "13:7: error: TLS goes over TCP: leave out `tls', or `over = \"udp\"'",
            "14:8: error: bytes are given by one of `text' and `hex'",
            "15:8: error: the program of a check must be an absolute path",
            "20:16: error: found `\"300-200\"', expected a status code from 100 to 599, such as 200, or a range, such as \"200-299\"",
            "21:15: error: found what may be a secret, expected the absolute path of a file, such as \"/etc/sluice/client.pem\" (what is secret \
             never stands in this file itself)",
            "24:10: error: no record type `AXFR': use one of A, AAAA, NS, SOA, MX, TXT, CNAME, PTR, SRV",
            "26:8: error: found `\"ftp\"', expected \"tcp\", \"exchange\", \"http\", \"smtp\", \"dns\", \"ping\", \"program\", \"load\" or \"path\"",
        ],
    );
}

#[test]
fn the_rules_of_the_model_hold_here_too() {
    check(
        "[service.s]\nvip = \"::ffff:192.0.2.1\"\nports = \"tcp/80\"\nservers = []\n\
         [service.t]\nvip = \"192.0.2.1\"\nports = [\"tcp/80\", \"tcp/81\"]\nservers = [\"224.0.0.1\", \"10.0.0.1\", \"10.0.0.1\", { server = \"10.0.0.2\", port = 8080 }]\n\
         [service.u]\nvip = \"192.0.2.2\"\nports = \"tcp/80\"\nservers = [{ server = \"10.0.0.3\", upper_threshold = 5, lower_threshold = 6 }]\n\
         fallback = { server = \"2001:db8::1\" }\ntunnel = \"gue\"\n[service.v]\nvip = \"192.0.2.3\"\nports = \"tcp/80\"\nservers = [{ server = \"10.0.0.4\", forward = \"local\" }]\n",
        &[
            "3:9: error: ::ffff:192.0.2.1: an IPv4-mapped IPv6 address must not appear on the wire; use the IPv4 address",
            "8:12: error: real server 224.0.0.1:80 is a multicast address: use the unicast address of one machine",
            "8:37: error: real server 10.0.0.1:80 already exists in TCP 192.0.2.1:80: keep one",
            "8:49: error: real server 10.0.0.2:8080: direct routing cannot change the port; use port 80",
            "14:10: error: a tunnel of type \"gue\" needs its UDP port: { type = \"gue\", port = 6080 }",
            "18:12: error: real server 10.0.0.4:80: local delivery is not in this release; use direct routing (-g) or a tunnel (-i)",
        ],
    );
}

#[test]
fn a_fallback_is_no_server_of_its_service() {
    check(
        &format!("{GOOD}fallback = \"10.0.0.1\"\n"),
        &["6:12: error: 10.0.0.1:80 is a real server of TCP 192.0.2.10:80 already: keep one"],
    );
}

#[test]
fn what_is_wrong_with_health_stands_where_it_was_said() {
    let text = format!("{GOOD}fallback = \"10.0.0.9\"\npassive = {{ flows = 1, failed_percent = 0 }}\n");
    check(&text, &["7:41: error: found `0', expected a whole number, 1 to 100"]);
    let many = vec!["\"c\""; 17].join(", ");
    check(
        &format!("{GOOD}fallback = \"10.0.0.9\"\nchecks = [{many}]\n[check.c]\ntype = \"tcp\"\n"),
        &["7:10: error: TCP 192.0.2.10:80: 17 checks are too many: at most 16"],
    );
}

#[test]
fn a_path_check_wants_a_vip_that_a_server_can_have() {
    let path = "[check.way]\ntype = \"path\"\n";
    check(&format!("{GOOD}checks = \"way\"\n{path}"), &[]);
    let of = |keys: &str| format!("[service.s]\nvip = \"192.0.2.1\"\n{keys}\nchecks = \"way\"\n{path}");
    check(
        &of("ports = \"tcp/80\"\nforward = \"nat\"\nservers = [\"10.0.0.1\"]"),
        &[
            "6:10: error: TCP 192.0.2.1:80: real server 10.0.0.1:80 is masqueraded and has no VIP to look at, so a path check says nothing of it: use checks of another kind",
        ],
    );
    // One with checks of its own beside others.
    check(
        &format!(
            "{}[check.open]\ntype = \"tcp\"\n",
            of(
                "ports = \"tcp/80\"\nservers = [\"10.0.0.2\", { server = \"10.0.0.1\", forward = \"nat\", checks = \"open\" }]"
            )
        ),
        &[],
    );
    check(
        &of("ports = \"udp/53\"\nservers = [\"10.0.0.1\"]"),
        &[
            "5:10: error: UDP 192.0.2.1:53: a path check opens a TCP connection, so it is for services of TCP: use another kind of check",
        ],
    );
    check(
        &of("ports = \"tcp/80\"\nmark = 7\nservers = [\"10.0.0.1\"]"),
        &[
            "6:10: error: FWM 7: a path check of a service by mark needs one of its VIPs as `address', and a TCP `port' of it",
        ],
    );
}

#[test]
fn too_many_ports_want_a_mark() {
    check(
        "[service.s]\nvip = \"192.0.2.1\"\nports = \"tcp/1024-65535\"\nservers = []\n",
        &[
            "3:9: error: this would be 64512 services, and 4096 is the most: give a `mark', and all of it is one service",
        ],
    );
}

#[test]
fn what_nothing_uses_is_warned_of() {
    let text = format!("[server.a]\naddress = \"10.0.0.9\"\n[check.c]\ntype = \"tcp\"\n{GOOD}");
    check(
        &text,
        &["1:9: warning: server `a' is used by nothing", "3:8: warning: check `c' is used by nothing"],
    );
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let (before, finding) = decode(b"a = 1\nb = \"\xff\"\n").expect_err("no UTF-8");
    let text = finding.text("cluster.toml", &Lines::new(before));
    assert_eq!(
        text,
        "cluster.toml:2:6: error: byte 0xff is no UTF-8: save the file as UTF-8\n 2 | b = \"\n   |      ^\n"
    );
    let (_, finding) = decode(&vec![b'#'; FILE_BYTES_MAX + 1]).expect_err("too large");
    assert_eq!(finding.message, "the file is too large: at most 16 MiB");
    assert!(decode(&vec![b'#'; FILE_BYTES_MAX]).is_ok());
}
