//! Network interfaces by name or index.

use crate::mac::MacAddress;
use crate::netlink::{Netlink, NetlinkError, failed};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the packet became a socket buffer.
    Generic,
    /// In the network card.
    Hardware,
    /// More than one of these.
    Multiple,
}

/// A network interface as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index, 1 and up.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is connected to something that is up too.
    pub carrier: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Of a VLAN interface, the index of the one whose tagged frames it takes, if that is in the same namespace.
    pub vlan_of: Option<u32>,
    /// Whether and how XDP programs are attached.
    pub xdp: Option<XdpMode>,
    /// Kernel id of the attached XDP program, if there is exactly one.
    pub xdp_program_id: Option<u32>,
}

/// An interface could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of this name.
    #[error("there is no network interface '{name}'")]
    NoSuchName {
        /// The name asked for.
        name: String,
    },
    /// There is none of this index.
    #[error("there is no network interface with index {index}")]
    NoSuchIndex {
        /// The index asked for.
        index: u32,
    },
    /// The kernel refused the question.
    #[error("cannot look up a network interface")]
    Netlink(#[source] NetlinkError),
}

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub async fn by_name(netlink: &Netlink, name: &str) -> Result<Self, InterfaceError> {
        let missing = || InterfaceError::NoSuchName { name: name.to_owned() };
        // A longer name cannot exist, and the kernel would answer with a range error.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(missing());
        }
        let request = netlink.handle.link().get().match_name(name.to_owned());
        first(request.execute().try_next().await, missing)
    }

    /// The interface of this index.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub async fn by_index(netlink: &Netlink, index: u32) -> Result<Self, InterfaceError> {
        let missing = || InterfaceError::NoSuchIndex { index };
        let request = netlink.handle.link().get().match_index(index);
        first(request.execute().try_next().await, missing)
    }

    /// Every interface, in the order of the kernel.
    ///
    /// # Errors
    /// [`InterfaceError::Netlink`].
    pub async fn list(netlink: &Netlink) -> Result<Vec<Self>, InterfaceError> {
        netlink
            .handle
            .link()
            .get()
            .execute()
            .map_ok(|message| Self::from_message(&message))
            .try_collect()
            .await
            .map_err(failed("list interfaces"))
            .map_err(InterfaceError::Netlink)
    }

    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let mut interface = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            mtu: 0,
            vlan_of: None,
            xdp: None,
            xdp_program_id: None,
        };
        let (mut below, mut is_vlan, mut is_elsewhere) = (None, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Link(index) => below = Some(*index),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    is_vlan = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Vlan)));
                }
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Address(bytes) => interface.mac = MacAddress::from_slice(bytes),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Xdp(xdp) => interface.read_xdp(xdp),
                _ => {}
            }
        }
        // Others are joined by an index too: to a peer, for one.
        interface.vlan_of = below.filter(|_| is_vlan && !is_elsewhere);
        interface
    }

    fn read_xdp(&mut self, attributes: &[LinkXdp]) {
        for attribute in attributes {
            match attribute {
                LinkXdp::Attached(attached) => self.xdp = xdp_mode(*attached),
                LinkXdp::ProgId(id) => self.xdp_program_id = Some(*id),
                _ => {}
            }
        }
    }
}

fn xdp_mode(attached: XdpAttached) -> Option<XdpMode> {
    match attached {
        XdpAttached::Driver => Some(XdpMode::Native),
        XdpAttached::SocketBuffer => Some(XdpMode::Generic),
        XdpAttached::Hardware => Some(XdpMode::Hardware),
        XdpAttached::Multiple => Some(XdpMode::Multiple),
        _ => None,
    }
}

fn first(
    answer: Result<Option<LinkMessage>, rtnetlink::Error>,
    missing: impl FnOnce() -> InterfaceError,
) -> Result<Interface, InterfaceError> {
    match answer.map_err(failed("look up an interface")) {
        Ok(Some(message)) => Ok(Interface::from_message(&message)),
        Ok(None) => Err(missing()),
        Err(error) if error.errno() == Some(libc::ENODEV) => Err(missing()),
        Err(error) => Err(InterfaceError::Netlink(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_found_both_ways() {
        let netlink = Netlink::open().expect("netlink");
        let by_name = Interface::by_name(&netlink, "lo").await.expect("lo");
        let by_index = Interface::by_index(&netlink, by_name.index).await.expect("index of lo");
        assert_eq!(by_name, by_index);
        assert_eq!((by_name.mac, by_name.xdp), (None, None));
        assert!(by_name.mtu >= 1500);
        assert!(Interface::list(&netlink).await.expect("list").contains(&by_name));
    }

    #[tokio::test]
    async fn missing_ones_are_named() {
        let netlink = Netlink::open().expect("netlink");
        for name in ["sl-no-such", "a-name-far-too-long-for-an-interface", ""] {
            let error = Interface::by_name(&netlink, name).await.expect_err("no such interface");
            assert_eq!(error.to_string(), format!("there is no network interface '{name}'"));
        }
        let error = Interface::by_index(&netlink, 999_999).await.expect_err("no such index");
        assert_eq!(error.to_string(), "there is no network interface with index 999999");
    }
}
