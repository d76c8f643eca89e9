//! Where the kernel would send a packet.

use crate::netlink::{Netlink, NetlinkError, failed};
use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use std::net::IpAddr;

/// The kernel's answer for one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Interface the packet would leave by.
    pub interface_index: u32,
    /// Whose MAC it would carry: a gateway, or the destination itself. May be of the other address family.
    pub next_hop: IpAddr,
    /// Source address the kernel would choose, if it says one.
    pub source: Option<IpAddr>,
    /// Whether the destination is an address of this machine.
    pub local: bool,
    /// Largest packet in bytes, where the route has a limit of its own or the kernel has learned of one (path MTU
    /// discovery); else the interface's holds.
    pub mtu: Option<u32>,
}

/// No route was found.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Nothing leads there.
    #[error("there is no route to {destination}")]
    Unreachable {
        /// Where to.
        destination: IpAddr,
    },
    /// The kernel refused the question.
    #[error("cannot look up the route to {destination}")]
    Netlink {
        /// Where to.
        destination: IpAddr,
        /// Why.
        #[source]
        source: NetlinkError,
    },
}

impl Route {
    /// The route to `destination`.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn to(netlink: &Netlink, destination: IpAddr) -> Result<Self, RouteError> {
        let unreachable = || RouteError::Unreachable { destination };
        let prefix = if destination.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, prefix)
            .map_err(|_| unreachable())?
            .build();
        // A look-up asks for no table, origin or scope of its own.
        let mut request = netlink.handle.route().get(question);
        let header = &mut request.message_mut().header;
        *header = rtnetlink::packet_route::route::RouteHeader {
            address_family: header.address_family,
            destination_prefix_length: prefix,
            ..Default::default()
        };
        match request.execute().try_next().await.map_err(failed("look up a route")) {
            Ok(Some(answer)) => Self::from_message(destination, &answer).ok_or_else(unreachable),
            Ok(None) => Err(unreachable()),
            Err(error) if means_unreachable(error.errno()) => Err(unreachable()),
            Err(source) => Err(RouteError::Netlink { destination, source }),
        }
    }

    fn from_message(destination: IpAddr, message: &RouteMessage) -> Option<Self> {
        let kind = message.header.kind;
        let local = kind == RouteType::Local;
        if !local && kind != RouteType::Unicast {
            return None;
        }
        let (mut interface_index, mut next_hop, mut source, mut mtu) = (None, destination, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface_index = Some(*index),
                RouteAttribute::Gateway(address) => next_hop = ip(address)?,
                RouteAttribute::Via(RouteVia::Inet6(address)) => next_hop = IpAddr::V6(*address),
                RouteAttribute::Via(RouteVia::Inet(address)) => next_hop = IpAddr::V4(*address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(mtu_of),
                _ => {}
            }
        }
        Some(Self { interface_index: interface_index?, next_hop, source, local, mtu })
    }
}

fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    }
}

fn means_unreachable(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::ENONET))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
