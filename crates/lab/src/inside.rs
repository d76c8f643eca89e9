//! Networks behind the director, for masquerading: a real server that can be reached through it alone.
//!
//! ```text
//!       client            director            real1
//!          |              |      | in1       | inside
//!       ---+--------------+--    +-----------+
//! ```

use crate::address::Node;
use crate::cluster::{INTERFACE, Lab, LabError, attach_pass, turn_offloads_off};
use crate::command;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The interface of such a real server.
const INSIDE: &str = "inside";

/// Addresses of one network behind the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The director's.
    pub director_v4: Ipv4Addr,
    /// The real server's.
    pub real_v4: Ipv4Addr,
    /// The director's.
    pub director_v6: Ipv6Addr,
    /// The real server's.
    pub real_v6: Ipv6Addr,
}

impl Inside {
    /// Those of a real server: 203.0.113.0/30 and 2001:db8:0:N::/64 and on.
    #[must_use]
    pub fn of(number: u32) -> Self {
        // Numbers end at REALS_MAX, which is below 64.
        let number = u16::try_from(number).unwrap_or_default();
        let [_, first] = number.wrapping_sub(1).wrapping_mul(4).to_be_bytes();
        let v4 = |host: u8| Ipv4Addr::new(203, 0, 113, first.wrapping_add(host));
        let v6 = |host| Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, host);
        Self { director_v4: v4(1), real_v4: v4(2), director_v6: v6(1), real_v6: v6(2) }
    }
}

impl Lab {
    /// Takes a real server off the common network and puts it behind the director, without a route to anywhere else. The
    /// director serves the interface towards it if it is started later.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn put_inside(&mut self, number: u32) -> Result<Inside, LabError> {
        let (node, inside) = (Node::Real(number), Inside::of(number));
        let (director, real) = (self.namespace_name(Node::Director), self.namespace_name(node));
        let name = format!("in{number}");
        command::ip(&format!("link add {name} netns {director} type veth peer name {INSIDE} netns {real}"))?;
        turn_offloads_off(self.namespace(Node::Director)?, &name)?;
        turn_offloads_off(self.namespace(node)?, INSIDE)?;
        command::ip_batch(
            &director,
            &[
                format!("address add {}/30 dev {name}", inside.director_v4),
                format!("address add {}/64 dev {name} nodad", inside.director_v6),
                format!("link set {name} up"),
            ],
        )?;
        command::ip_batch(
            &real,
            &[
                format!("link set {INTERFACE} down"),
                format!("address add {}/30 dev {INSIDE}", inside.real_v4),
                format!("address add {}/64 dev {INSIDE} nodad", inside.real_v6),
                format!("link set {INSIDE} up"),
            ],
        )?;
        attach_pass(self.namespace(node)?, INSIDE)?;
        self.inside.push(name);
        Ok(inside)
    }

    /// Makes the director the way from such a real server to everywhere.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn route_through_director(&self, number: u32) -> Result<(), LabError> {
        let inside = Inside::of(number);
        command::ip_batch(
            &self.namespace_name(Node::Real(number)),
            &[
                format!("route add default via {}", inside.director_v4),
                format!("route add default via {}", inside.director_v6),
            ],
        )?;
        Ok(())
    }

    /// The director's interfaces towards them.
    pub fn inside_interfaces(&self) -> impl Iterator<Item = &str> {
        self.inside.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_do_not_meet() {
        let (first, last) = (Inside::of(1), Inside::of(crate::address::REALS_MAX));
        assert_eq!(first.real_v4, Ipv4Addr::new(203, 0, 113, 2));
        assert_eq!(last.real_v4, Ipv4Addr::new(203, 0, 113, 254));
        assert_eq!(first.director_v6.to_string(), "2001:db8:0:1::1");
    }
}
