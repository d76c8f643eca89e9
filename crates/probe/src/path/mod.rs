//! Opens a connection to a VIP through one real server: a SYN to its own MAC address, or through its tunnel, as the packet
//! path would send it. So a real server that does not have the VIP, or the tunnel's end, is found out.
//!
//! ```text
//! SYN  director's address -> VIP   in a frame to the real server, or in a tunnel to it
//! answer  VIP -> director's address, seen before the IP layer
//! ```
//!
//! The director itself mostly has the VIP, so that its kernel drops the answer as one from itself, or resets it as one of no
//! connection. Hence packet sockets, two for all checks, whose filters let only answers to our own SYNs through: the upper half
//! of each sequence number is a number of this process, the lower one that of the check. Each check holds its port by a listening
//! socket that drops everything, so that the kernel neither resets nor gives the port to somebody else.
//!
//! Deliberately absent: retransmission. A lost packet is a failed check, of which `fall` in a row count.

mod frame;

use crate::error::{Failure, fail};
use crate::raw::{self, Begin, bpf};
use crate::stream;
use api::Tunnel;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpOptionElement, TransportSlice};
use frame::{Link, Segment, Through};
use health::{Probe, Way};
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, SockFilter, Socket, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinHandle;

/// Bytes of an answer that are looked at: its headers.
const ANSWER_BYTES: usize = 256;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TCP: u32 = 6;
/// Bits of the byte of TCP flags.
const SYN_OR_RST: u32 = 0x06;

/// Where packets to a real server go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// It is this machine itself.
    Local,
    /// Over a link.
    Link(Hop),
}

/// The first step towards a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the interface that packets leave by.
    pub interface: u32,
    /// Ethernet address of the real server, or of the gateway to it.
    pub destination: [u8; 6],
    /// Ethernet address of the interface.
    pub source: [u8; 6],
    /// This machine's address on the way, of the family of the real server's, if the route names one.
    pub address: Option<IpAddr>,
}

/// What a SYN was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAnswer {
    /// The connection was accepted, else it was reset.
    pub accepted: bool,
    /// Longest segment that the server takes, in bytes, if it said so.
    pub mss: Option<u16>,
    /// Whether the answer came with its checksum; one that a card would finish did not.
    pub is_summed: bool,
}

/// The sockets of all path checks, made with the first one: it may need a permission that nobody else wants.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    open: OnceCell<Open>,
}

impl Paths {
    /// Makes the check. Silence is for the caller to end; [`silence`] says what it means.
    pub(crate) async fn probe(&self, probe: &Probe, next_hop: Option<&NextHop>) -> Result<(), Failure> {
        let Some(way) = &probe.way else { return fail("the service has no VIP to ask for") };
        let to = SocketAddr::new(way.vip, probe.port);
        let hop = match next_hop {
            None => return fail(format!("no MAC address is known for {}: is it up?", way.real)),
            Some(NextHop::Local) => return local(to).await,
            Some(NextHop::Link(hop)) => hop,
        };
        if !self.open().await?.ask_way(way, hop, probe.port).await?.accepted {
            return fail(format!("port {} of VIP {} is closed there: it was refused", to.port(), to.ip()));
        }
        Ok(())
    }

    /// Opens the VIP by this way. Silence is for the caller to end.
    pub(crate) async fn ask_way(&self, way: &Way, hop: &Hop, port: u16) -> Result<SynAnswer, Failure> {
        self.open().await?.ask_way(way, hop, port).await
    }

    /// Opens this from an address that need not be this machine's; it must be of the same family.
    pub(crate) async fn ask_from(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        hop: &Hop,
    ) -> Result<SynAnswer, Failure> {
        self.open().await?.ask(from, to, hop, None).await
    }

    /// The same from this machine's own address on the way.
    pub(crate) async fn ask_own(&self, to: SocketAddr, hop: &Hop) -> Result<SynAnswer, Failure> {
        let Some(own) = hop.address else { return fail("the route names no address of this machine") };
        let held = hold_port(own)?;
        let from = held.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        self.open().await?.ask(from, to, hop, None).await
    }

    async fn open(&self) -> Result<&Open, Failure> {
        self.open.get_or_try_init(|| async { Open::new() }).await.map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied { ", CAP_NET_RAW" } else { "" };
            Failure(format!("this needs a packet socket{hint}: {error}"))
        })
    }
}

/// What it means that nobody answered.
pub(crate) fn silence(probe: &Probe, next_hop: Option<&NextHop>) -> String {
    let (Some(way), Some(NextHop::Link(hop))) = (&probe.way, next_hop) else {
        return format!("no answer within {} ms", probe.timeout_ms);
    };
    let (vip, real) = (way.vip, way.real);
    match way.tunnel {
        None => {
            // Else it asks for the director's MAC address in the name of the VIP, to which the director does not answer.
            let arp = if vip.is_ipv4() { ", and arp_announce is 2" } else { "" };
            let mac = Mac(hop.destination);
            format!(
                "nobody answered for VIP {vip} at {real} ({mac}): look whether the VIP is on its loopback{arp}"
            )
        }
        Some(tunnel) => format!(
            "nobody answered for VIP {vip} through the {} tunnel to {real}: look whether the tunnel's device is up there, has \
             the VIP, and has rp_filter off",
            kind(tunnel)
        ),
    }
}

fn kind(tunnel: Tunnel) -> &'static str {
    match tunnel {
        Tunnel::Ipip => "IPIP",
        Tunnel::Gue { .. } => "GUE",
        Tunnel::Gre { .. } => "GRE",
    }
}

/// An Ethernet address, as it is written.
struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The real server is this machine: whether it has the VIP, and somebody listens.
async fn local(to: SocketAddr) -> Result<(), Failure> {
    if !own_addresses()?.iter().any(|own| own.address == to.ip()) {
        return fail(format!("this machine is the real server itself, and does not have VIP {}", to.ip()));
    }
    stream::connect(to).await.map(drop)
}

/// An address of this machine.
struct Own {
    interface: String,
    address: IpAddr,
}

fn own_addresses() -> io::Result<Vec<Own>> {
    let own = getifaddrs()?.filter_map(|it| {
        let address = it.address?;
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => return None,
        };
        Some(Own { interface: it.interface_name, address })
    });
    Ok(own.collect())
}

/// The address that a SYN comes from: the one of the route, or, for a VIP of the other family than the tunnel's ends, one of
/// the same interface, or else of any.
fn source(way: &Way, hop: &Hop) -> Result<IpAddr, Failure> {
    let fits = |address: &IpAddr| address.is_ipv4() == way.vip.is_ipv4() && *address != way.vip;
    if let Some(address) = hop.address.filter(fits) {
        return Ok(address);
    }
    let is_local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    };
    let name = nix::net::if_::if_indextoname(hop.interface).unwrap_or_default();
    let own = own_addresses()?;
    let mut fitting: Vec<&Own> =
        own.iter().filter(|own| fits(&own.address) && !is_local(&own.address)).collect();
    fitting.sort_by_key(|own| Some(own.interface.as_str()) != name.to_str().ok());
    match fitting.first() {
        Some(own) => Ok(own.address),
        None => {
            let family = if way.vip.is_ipv4() { "IPv4" } else { "IPv6" };
            fail(format!("this machine has no {family} address to ask from but the VIP: give it one"))
        }
    }
}

/// What is waited for.
#[derive(Debug)]
struct Expected {
    /// The VIP and its port.
    from: SocketAddr,
    /// The director's address and the port held.
    to: SocketAddr,
    sequence: u32,
    told: oneshot::Sender<SynAnswer>,
}

/// Checks under way, by the lower half of the sequence number.
type Waiting = Mutex<BTreeMap<u16, Expected>>;

#[derive(Debug)]
struct Open {
    sender: Socket,
    /// The upper half of all sequence numbers.
    tag: u16,
    last: AtomicU16,
    waiting: Arc<Waiting>,
    readers: [JoinHandle<()>; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

impl Open {
    fn new() -> io::Result<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random)?;
        let [a, b, c, d] = random;
        let (tag, last) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let waiting: Arc<Waiting> = Arc::default();
        let reader = |ethertype, filter: &[SockFilter]| {
            let socket = raw::receiver(Begin::Network, ethertype, 0, filter)?;
            // SAFETY: the socket owns its descriptor, gives the same one whenever asked, and keeps it open until it is
            // dropped, which is after the registration.
            let socket = unsafe { AsyncFd::register(socket) }?;
            Ok::<_, io::Error>(tokio::spawn(read(socket, Arc::clone(&waiting))))
        };
        let readers = [reader(TYPE_IPV4, &ipv4_filter(tag))?, reader(TYPE_IPV6, &ipv6_filter(tag))?];
        Ok(Self { sender: raw::sender()?, tag, last: AtomicU16::new(last), waiting, readers })
    }

    async fn ask_way(&self, way: &Way, hop: &Hop, port: u16) -> Result<SynAnswer, Failure> {
        let held = hold_port(source(way, hop)?)?;
        let from = held.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        let through = match (way.tunnel, hop.address) {
            (None, _) => None,
            (Some(tunnel), Some(address)) => Some(Through { tunnel, from: address, to: way.real }),
            (Some(_), None) => {
                return fail(format!("the route to {} names no address of this machine", way.real));
            }
        };
        self.ask(from, SocketAddr::new(way.vip, port), hop, through.as_ref()).await
    }

    async fn ask(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        hop: &Hop,
        through: Option<&Through>,
    ) -> Result<SynAnswer, Failure> {
        let link = Link { destination: hop.destination, source: hop.source };
        let (told, answer) = oneshot::channel();
        let (ticket, sequence) = self.expect(to, from, told)?;
        let syn = Segment { from, to, sequence, reset: false };
        raw::send(&self.sender, hop.interface, &frame::frame(link, &syn, through)?)?;
        // Its sender goes only with the entry, which the ticket keeps.
        let Ok(answer) = answer.await else { return fail("the check was given up") };
        drop(ticket);
        if answer.accepted {
            // The server is not kept waiting for a client.
            let reset = Segment { sequence: sequence.wrapping_add(1), reset: true, ..syn };
            raw::send(&self.sender, hop.interface, &frame::frame(link, &reset, through)?)?;
        }
        Ok(answer)
    }

    /// Begins to wait, until the ticket is dropped. Gives the number of the SYN too.
    fn expect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        told: oneshot::Sender<SynAnswer>,
    ) -> Result<(Ticket, u32), Failure> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // What acknowledges the highest number has another upper half.
        let free = |number: &u16| *number != u16::MAX && !waiting.contains_key(number);
        let number = (0..=u16::MAX).map(|_| self.last.fetch_add(1, Ordering::Relaxed)).find(free);
        let Some(number) = number else { return fail("too many path checks at once") };
        let sequence = u32::from(self.tag) << 16 | u32::from(number);
        waiting.insert(number, Expected { from, to, sequence, told });
        Ok((Ticket { number, waiting: Arc::clone(&self.waiting) }, sequence))
    }
}

/// An answer is waited for while this is there.
struct Ticket {
    number: u16,
    waiting: Arc<Waiting>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Takes a port of this address. What comes to it is dropped, without an answer.
fn hold_port(address: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, None)?;
    socket.attach_filter(&[bpf::LEAVE])?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// Takes acknowledgments of SYNs of this upper half that open or reset, and came to this machine's own MAC address.
fn ipv4_filter(tag: u16) -> [SockFilter; 13] {
    [
        bpf::PACKET_TYPE,
        bpf::must_be(bpf::TO_US, 10),
        bpf::byte(9),
        bpf::must_be(TCP, 8),
        // Later pieces have no TCP header.
        bpf::half(6),
        bpf::must_not_have(0x1fff, 6),
        bpf::ipv4_header(0),
        bpf::half_behind(8),
        bpf::must_be(tag.into(), 3),
        bpf::byte_behind(13),
        bpf::must_have(SYN_OR_RST, 1),
        bpf::TAKE,
        bpf::LEAVE,
    ]
}

/// The same behind a header without extensions.
fn ipv6_filter(tag: u16) -> [SockFilter; 10] {
    [
        bpf::PACKET_TYPE,
        bpf::must_be(bpf::TO_US, 7),
        bpf::byte(6),
        bpf::must_be(TCP, 5),
        bpf::half(48),
        bpf::must_be(tag.into(), 3),
        bpf::byte(53),
        bpf::must_have(SYN_OR_RST, 1),
        bpf::TAKE,
        bpf::LEAVE,
    ]
}

/// Hands answers to those who wait for them.
async fn read(socket: AsyncFd<Socket>, waiting: Arc<Waiting>) {
    let mut packet = [0; ANSWER_BYTES];
    loop {
        // Fails only when the runtime ends.
        let Ok(mut ready) = socket.readable().await else { return };
        // An error is reported once, and the next packet is still there.
        if let Ok(Ok(length)) = ready.try_io(|socket| socket.get_ref().read(&mut packet)) {
            take(&packet[..length], &waiting);
        }
    }
}

/// Takes a packet that may be an answer.
fn take(packet: &[u8], waiting: &Waiting) {
    let Some(answer) = Answer::read(packet) else { return };
    let sequence = answer.acknowledged.wrapping_sub(1);
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let number = sequence as u16;
    let is_it = |it: &Expected| it.sequence == sequence && it.from == answer.from && it.to == answer.to;
    if waiting.get(&number).is_some_and(is_it)
        && let Some(expected) = waiting.remove(&number)
    {
        // Who gave up just now does not want it.
        let _ = expected.told.send(answer.said);
    }
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    from: SocketAddr,
    to: SocketAddr,
    acknowledged: u32,
    said: SynAnswer,
}

impl Answer {
    fn read(packet: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ip(packet).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
        let (from, to, sum): (IpAddr, IpAddr, _) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let (header, ends) = (ip.header(), [ip.header().source(), ip.header().destination()]);
                let sum = tcp.calc_checksum_ipv4(ends[0], ends[1]);
                (header.source_addr().into(), header.destination_addr().into(), sum)
            }
            LaxNetSlice::Ipv6(ip) => {
                let (header, ends) = (ip.header(), [ip.header().source(), ip.header().destination()]);
                let sum = tcp.calc_checksum_ipv6(ends[0], ends[1]);
                (header.source_addr().into(), header.destination_addr().into(), sum)
            }
            LaxNetSlice::Arp(_) => return None,
        };
        (tcp.ack() && (tcp.syn() || tcp.rst())).then(|| Self {
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            acknowledged: tcp.acknowledgment_number(),
            said: SynAnswer {
                accepted: !tcp.rst(),
                mss: tcp.options_iterator().find_map(|option| match option {
                    Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                    _ => None,
                }),
                is_summed: sum.is_ok_and(|sum| sum == tcp.checksum()),
            },
        })
    }
}
