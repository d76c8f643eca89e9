//! What is asked for when packets are captured.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Longest beginning of a frame that can be recorded, in bytes.
pub const SNAPLEN_MAX: u32 = 8192;

/// Which packets are recorded, and how. The answer is a file in the pcapng format, written while packets come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureRequest {
    /// Only packets with an end in this network, as they come or as they leave.
    pub client: Option<IpNet>,
    /// Only packets with this end.
    pub vip: Option<IpAddr>,
    /// Only packets with one of these verdicts, by name; none for all.
    pub verdicts: Vec<String>,
    /// End after so many packets, 1 or more.
    pub count: Option<u64>,
    /// End after so many seconds, 1 or more.
    pub seconds: Option<u64>,
    /// Record one of so many packets that match, 1 or more.
    pub one_of: u32,
    /// Most records a second on one CPU, 1 or more; others are counted as dropped.
    pub per_second_max: u32,
    /// Most bytes of a frame, 1 to [`SNAPLEN_MAX`].
    pub snaplen: u32,
    /// Frames as they came, instead of as they leave.
    pub as_it_came: bool,
}

impl Default for CaptureRequest {
    fn default() -> Self {
        Self {
            client: None,
            vip: None,
            verdicts: Vec::new(),
            count: None,
            seconds: None,
            one_of: 1,
            per_second_max: 10_000,
            snaplen: 256,
            as_it_came: false,
        }
    }
}
