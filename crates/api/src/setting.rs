//! The settings of IPVS (`net.ipv4.vs` there), with their names and defaults, and those of Sluice.

use serde::{Deserialize, Serialize};

/// A setting this director has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value unless set.
    pub default: u32,
    /// Its lowest value.
    pub least: u32,
    /// Its highest value.
    pub most: u32,
    /// One line of meaning.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: u32, least: u32, most: u32, meaning: &'static str) -> Setting {
    Setting { name, default, least, most, meaning }
}

/// Every setting, sorted by name.
pub const SETTINGS: [Setting; 15] = [
    setting(
        "am_droprate",
        10,
        1,
        i32::MAX as u32,
        "rate of drop_packet 3: every so many-th new connection is dropped",
    ),
    setting(
        "amemthresh",
        1024,
        1,
        i32::MAX as u32,
        "free pages of memory below which the automatic modes 1 and 2 act",
    ),
    setting(
        "cache_bypass",
        0,
        0,
        1,
        "1: packets of a service by mark without a real server go to their own destination",
    ),
    setting(
        "conn_reuse_mode",
        1,
        0,
        3,
        "a SYN on a closed connection: 0 same real server, 1 schedule anew, 2 and 3 half-closed ones too",
    ),
    setting(
        "drop_packet",
        0,
        0,
        3,
        "drop some new connections: 0 never, 1 and 2 when memory is short, 3 always",
    ),
    setting(
        "expire_nodest_conn",
        0,
        0,
        1,
        "1: connections of a deleted real server end at once, those of a drained one at their next SYN",
    ),
    setting(
        "expire_quiescent_template",
        0,
        0,
        1,
        "1: persistence ends when the real server's weight is set to 0",
    ),
    setting(
        "lblc_expiration",
        86_400,
        1,
        2_678_400,
        "seconds without a new connection after which lblc forgets where a destination is served",
    ),
    setting(
        "lblcr_expiration",
        86_400,
        1,
        2_678_400,
        "the same for lblcr, and the seconds after which a set of servers loses its busiest one",
    ),
    setting(
        "pmtu_disc",
        1,
        0,
        1,
        "too large packets into tunnels: 1 answered with ICMP, 0 fragmented outside",
    ),
    setting("run_estimation", 1, 0, 1, "0: counters and rates shown stand still"),
    setting("schedule_icmp", 0, 0, 1, "1: an ICMP error of no connection may open one"),
    setting(
        "secure_tcp",
        0,
        0,
        3,
        "the stricter TCP states: 0 never, 1 and 2 when memory is short, 3 always",
    ),
    setting("sloppy_sctp", 0, 0, 1, "1: any SCTP packet but ABORT opens a connection"),
    setting("sloppy_tcp", 0, 0, 1, "1: any TCP segment but RST opens a connection"),
];

/// Settings of IPVS that mean nothing here, and why; sorted by name.
pub const MEANINGLESS: [(&str, &str); 22] = [
    (
        "backup_only",
        "a director that only stands by has no packet path attached, so there is no loop to break",
    ),
    ("conn_lfactor", "the flow tables have a fixed size: choose it with --established-flows-max"),
    ("conn_max", "the flow tables have a fixed size: choose it with --established-flows-max"),
    ("conntrack", "packets are balanced before netfilter sees them, so there is no entry to keep"),
    ("debug_level", "choose what is logged with SLUICE_LOG when the director starts"),
    (
        "drop_entry",
        "half-open connections are in a table of their own, of a fixed size, which gives up the oldest by itself: there is no memory to win",
    ),
    ("est_cpulist", "statistics are made by the daemon, not by kernel threads"),
    ("est_nice", "statistics are made by the daemon, not by kernel threads"),
    ("ignore_tunneled", "packets are balanced as they arrive at the interface, never in decapsulated form"),
    ("nat_icmp_send", "what a real server sends without a connection is routed on, as with 0"),
    ("snat_reroute", "replies are always routed by the routing table, as with 1"),
    ("svc_lfactor", "the table of services has a fixed size: choose it with --services-max"),
    ("sync_persist_mode", "flows and templates are both announced"),
    ("sync_ports", "one port carries all; --mcast-port chooses it"),
    ("sync_qlen_max", "what finds no room in the queue is announced by the next pass of the sweep, not lost"),
    ("sync_refresh_period", "a flow that goes on is announced again when half of its time-out has gone"),
    ("sync_retries", "a flow that goes on is announced again when half of its time-out has gone"),
    ("sync_sock_size", "the socket has four megabytes, as far as net.core.rmem_max lets it"),
    ("sync_threshold", "the sweep announces a flow when it meets it first, whatever its packets"),
    ("sync_version", "version 1 is sent, versions 0 and 1 are understood"),
    ("timeout_established", "set it with ipvsadm --set"),
    ("timeout_udp", "set it with ipvsadm --set"),
];

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// A setting and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u32,
    /// Its value unless set.
    pub default: u32,
    /// One line of meaning.
    pub meaning: String,
}

/// Every setting with its value, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsView {
    /// The settings.
    pub settings: Vec<SettingView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_each_is_one_thing() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        assert!(MEANINGLESS.is_sorted_by(|a, b| a.0 < b.0));
        for setting in SETTINGS {
            assert!(MEANINGLESS.iter().all(|(name, _)| *name != setting.name), "{}", setting.name);
            assert!((setting.least..=setting.most).contains(&setting.default), "{}", setting.name);
        }
    }
}
