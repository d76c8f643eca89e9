//! Who on a link says that an address is its own: ARP and neighbour solicitation.
//!
//! The questions are asked without an address of this machine's where the protocol allows it (RFC 5227), so that nobody learns
//! from them.

use crate::raw::{self, Begin, bpf};
use etherparse::PacketBuilder;
use socket2::{SockFilter, Socket};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

const TYPE_IPV6: u16 = 0x86dd;
const TYPE_ARP: u16 = 0x0806;
const ICMPV6: u32 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u32 = 136;
const REPLY: u32 = 2;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Each question is asked so often.
const ROUNDS: u32 = 2;
/// Questions sent at once; more wait for a moment.
const BURST: usize = 64;
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// Ethernet addresses that answered for each address.
pub type Owners = BTreeMap<IpAddr, BTreeSet<[u8; 6]>>;

/// A link of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of the interface.
    pub interface: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its link-local address, which IPv6 needs to ask from.
    pub link_local: Option<Ipv6Addr>,
}

/// Asks for all of these on one link, twice, and waits so long for answers after each time. Addresses of IPv6 are left
/// out where the link has no link-local address. What this machine itself would answer is not seen.
///
/// # Errors
/// No packet socket, mostly for want of CAP_NET_RAW; or the link is down.
pub async fn owners(link: Link, addresses: &[IpAddr], wait: Duration) -> io::Result<Owners> {
    let sender = raw::sender()?;
    let arp = listen(link.interface, TYPE_ARP, &arp_filter(link.interface))?;
    let nd = listen(link.interface, TYPE_IPV6, &advertisement_filter(link.interface))?;
    let mut owners = Owners::new();
    for _ in 0..ROUNDS {
        for some in addresses.chunks(BURST) {
            for address in some {
                if let Some(question) = question(&link, *address)? {
                    raw::send(&sender, link.interface, &question)?;
                }
            }
            sleep(BURST_PAUSE).await;
        }
        let end = Instant::now() + wait;
        tokio::try_join!(collect(&arp, end, answer_of_arp), collect(&nd, end, answer_of_nd)).map(
            |(v4, v6)| {
                for (address, mac) in v4.into_iter().chain(v6).filter(|(it, _)| addresses.contains(it)) {
                    owners.entry(address).or_default().insert(mac);
                }
            },
        )?;
    }
    Ok(owners)
}

fn listen(interface: u32, ethertype: u16, filter: &[SockFilter]) -> io::Result<AsyncFd<Socket>> {
    let socket = raw::receiver(Begin::Link, ethertype, interface, filter)?;
    // SAFETY: the socket owns its descriptor, gives the same one whenever asked, and keeps it open until it is dropped, which
    // is after the registration.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// What answers until then.
async fn collect(
    socket: &AsyncFd<Socket>,
    end: Instant,
    read: impl Fn(&[u8]) -> Option<(IpAddr, [u8; 6])>,
) -> io::Result<Vec<(IpAddr, [u8; 6])>> {
    let mut answers = Vec::new();
    let mut frame = [0; 128];
    while let Ok(ready) = timeout_at(end, socket.readable()).await {
        // Else there is nothing after all.
        if let Ok(length) = ready?.try_io(|socket| socket.get_ref().read(&mut frame)) {
            answers.extend(read(&frame[..length?]));
        }
    }
    Ok(answers)
}

/// A socket of an interface sees what comes by the VLANs above it, too; these have sockets of their own.
fn arp_filter(interface: u32) -> [SockFilter; 6] {
    [bpf::INTERFACE, bpf::must_be(interface, 3), bpf::half(20), bpf::must_be(REPLY, 1), bpf::TAKE, bpf::LEAVE]
}

fn advertisement_filter(interface: u32) -> [SockFilter; 8] {
    [
        bpf::INTERFACE,
        bpf::must_be(interface, 5),
        bpf::byte(20),
        bpf::must_be(ICMPV6, 3),
        bpf::byte(54),
        bpf::must_be(ADVERTISEMENT, 1),
        bpf::TAKE,
        bpf::LEAVE,
    ]
}

/// Sender's addresses of an ARP packet of IPv4 over Ethernet.
fn answer_of_arp(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let kinds: [u8; 6] = [0, 1, 8, 0, 6, 4];
    if frame.get(14..20)? != kinds {
        return None;
    }
    let mac: [u8; 6] = frame.get(22..28)?.try_into().ok()?;
    let address: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    Some((Ipv4Addr::from(address).into(), mac))
}

/// Target of a neighbour advertisement, and who sent it.
fn answer_of_nd(frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let mac: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
    Some((Ipv6Addr::from(target).into(), mac))
}

fn question(link: &Link, address: IpAddr) -> io::Result<Option<Vec<u8>>> {
    match (address, link.link_local) {
        (IpAddr::V4(v4), _) => Ok(Some(arp_question(link, v4))),
        (IpAddr::V6(v6), Some(from)) => solicitation(link, from, v6).map(Some),
        (IpAddr::V6(_), None) => Ok(None),
    }
}

/// "Who has it?", asked by nobody.
fn arp_question(link: &Link, address: Ipv4Addr) -> Vec<u8> {
    let kinds = [TYPE_ARP.to_be_bytes(), [0, 1], [8, 0], [6, 4], [0, 1]].concat();
    [&BROADCAST[..], &link.mac, &kinds, &link.mac, &[0; 4], &[0; 6], &address.octets()].concat()
}

fn solicitation(link: &Link, from: Ipv6Addr, target: Ipv6Addr) -> io::Result<Vec<u8>> {
    let [.., x, y, z] = target.octets();
    // The target's solicited-node group (RFC 4291 section 2.7.1).
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    let option = [&[1, 1][..], &link.mac].concat();
    let body = [&target.octets()[..], &option].concat();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(link.mac, [0x33, 0x33, 0xff, x, y, z])
        .ipv6(from.octets(), group, u8::MAX)
        .icmpv6_raw(SOLICITATION, 0, [0; 4])
        .write(&mut frame, &body)
        .map_err(io::Error::other)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_others_left() {
        let link = Link { interface: 1, mac: [2, 0, 0, 0, 0, 7], link_local: None };
        let vip = Ipv4Addr::new(192, 0, 2, 10);
        let mut frame = arp_question(&link, vip);
        assert_eq!((frame.len(), &frame[..14]), (42, &[&BROADCAST[..], &link.mac, &[8, 6]].concat()[..]));
        assert_eq!(frame[38..42], vip.octets());
        // As an answer its sender is the owner.
        frame[28..32].copy_from_slice(&vip.octets());
        assert_eq!(answer_of_arp(&frame), Some((vip.into(), link.mac)));
        frame[18] = 8;
        assert_eq!(answer_of_arp(&frame), None);
        assert_eq!(answer_of_nd(&frame), None);
        assert_eq!(question(&link, Ipv6Addr::LOCALHOST.into()).expect("made"), None);
    }
}
