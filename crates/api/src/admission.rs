//! Which clients may open connections to a service, and how many.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who is served. The default: everybody, any number of times.
///
/// Only what opens a connection is asked: connections that exist go on, whatever is declared later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Networks whose clients are served; where there are any, nobody else is. Of two networks that a client is in, here or in
    /// `deny`, the narrower one decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// Networks whose clients are not served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<IpNet>,
    /// Connections that one client may have at a time, 1 to 2147483647; 0 for any number. A client is an IPv4 address, or an
    /// IPv6 network of 64 bits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connections_per_client: u32,
    /// Connections that one client may open a second, 1 to 1000000, of which a second's worth may come at once; 0 for any
    /// number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate_per_client: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
