//! The network of one script: a director with one arm, and its whole outside as one raw socket.
//!
//! ```text
//! outside: c0 ---- d0 :director      clients behind a gateway and 16 servers, all made of MAC addresses
//! ```
//! Nobody answers out there: neighbours of the director are entered by hand, frames are made and read.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::mac::{self, DIRECTOR_MAC, GATEWAY_MAC, SERVERS};
use testkit::{Frames, NetNs, NetNsError, Packet};

/// Virtual addresses 192.0.2.10 and 2001:db8::10 up to so many more.
const VIPS: u8 = 10;
/// How long the director may take to answer an echo request.
const ECHO_WAIT: Duration = Duration::from_secs(10);
/// A frame may overtake the echo behind which it was sent: what the programs send leaves at the end of a batch.
const STRAGGLER_WAIT: Duration = Duration::from_millis(8);

/// Why the network could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Namespaces and links.
    #[error("cannot make the network")]
    Namespace(#[from] NetNsError),
    /// A tool.
    #[error("{words:?} failed: {said}")]
    Tool {
        /// What was run.
        words: String,
        /// What it said.
        said: String,
    },
    /// A kernel setting.
    #[error("cannot write {path}")]
    Setting {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The XDP program at the far end.
    #[error("cannot prepare the far end of the link")]
    Attach(#[from] kernel::AttachError),
    /// The raw socket.
    #[error("cannot use the raw socket")]
    Socket(#[source] io::Error),
    /// The director's stack is silent.
    #[error("the director does not answer echo requests")]
    Silent,
}

/// The director's namespace and its outside.
#[derive(Debug)]
pub(crate) struct Net {
    frames: Frames,
    echoes: u16,
    _pass: OwnedFd,
    pub(crate) director: NetNs,
    outside: NetNs,
}

impl Net {
    pub(crate) fn new() -> Result<Self, NetError> {
        let outside = NetNs::new("outside")?;
        let director = NetNs::new("director")?;
        director.run(write_settings)??;
        outside.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok())?;
        let link = format!(
            "link add d0 address {DIRECTOR_MAC} type veth peer name c0 address {GATEWAY_MAC} netns {}\n",
            outside.name()
        );
        batch(&director, &(link + &addresses()))?;
        outside.set_up("c0")?;
        // The stack of the director leaves checksums to a card that is not there.
        director.finish_checksums("d0")?;
        let pass = outside.run(|| kernel::attach_pass("c0"))??.0;
        let frames = outside.run(|| Frames::open("c0"))?.map_err(NetError::Socket)?;
        Ok(Self { frames, echoes: 0, _pass: pass, director, outside })
    }

    /// Runs `ip` with these words on the director.
    pub(crate) fn ip(&self, words: &str) -> Result<(), NetError> {
        Ok(self.director.ip(words)?)
    }

    /// Sets how large a packet the link takes, in bytes.
    pub(crate) fn set_mtu(&self, bytes: u16) -> Result<(), NetError> {
        self.outside.ip(&format!("link set c0 mtu {bytes}"))?;
        self.ip(&format!("link set d0 mtu {bytes}"))
    }

    /// Sends a frame and gives the frames that came before the answer to an echo request sent behind it.
    pub(crate) fn exchange(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, NetError> {
        self.echoes = self.echoes.wrapping_add(1);
        let (request, answer) = echo(self.echoes);
        self.frames.send(frame).map_err(NetError::Socket)?;
        self.frames.send(&request).map_err(NetError::Socket)?;
        let deadline = Instant::now() + ECHO_WAIT;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(frame) = self.frames.receive(left, is_ours).map_err(NetError::Socket)? else {
                return Err(NetError::Silent);
            };
            if is_echo(&frame, &answer) {
                break;
            }
            seen.push(frame);
        }
        if seen.is_empty() {
            seen.extend(self.frames.receive(STRAGGLER_WAIT, is_ours).map_err(NetError::Socket)?);
        }
        Ok(seen)
    }
}

/// Frames between the addresses made here; others are chatter of a kernel.
fn is_ours(frame: &[u8]) -> bool {
    frame.starts_with(&[2, 0, 0, 0])
}

/// An echo request, and what its answer carries.
fn echo(number: u16) -> (Vec<u8>, Vec<u8>) {
    let text = format!(
        "eth {GATEWAY_MAC} > {DIRECTOR_MAC} / ip4 10.0.0.253 > 10.0.0.254 / icmp 8 0 rest {:#x} / \"sluice-compare\"",
        0x5c5c_0000_u32 | u32::from(number)
    );
    let bytes = text.parse::<Packet>().map(|packet| packet.to_bytes()).unwrap_or_default();
    let carried = bytes.get(38..).unwrap_or_default().to_vec();
    (bytes, carried)
}

fn is_echo(frame: &[u8], carried: &[u8]) -> bool {
    frame.get(34) == Some(&0) && frame.get(23) == Some(&1) && frame.get(38..) == Some(carried)
}

/// What a director needs, and nothing that would make answers depend on time.
fn write_settings() -> Result<(), NetError> {
    let settings = [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // No ICMP message falls under a limit.
        ("ipv4/icmp_ratemask", "0"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/icmp/ratelimit", "0"),
        // Flow labels of the stack's own packets come from a random key.
        ("ipv6/auto_flowlabels", "0"),
    ];
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        std::fs::write(&path, value).map_err(|source| NetError::Setting { path, source })?;
    }
    Ok(())
}

/// Addresses, routes and neighbours of the director, as lines of `ip -batch`.
fn addresses() -> String {
    let mut lines = vec![
        "addr add 10.0.0.254/24 dev d0".to_owned(),
        "addr add fd00::fe/64 dev d0 nodad".to_owned(),
        "link set d0 up".to_owned(),
    ];
    for number in 0..VIPS {
        lines.push(format!("addr add 192.0.2.{}/32 dev lo", 10 + number));
        lines.push(format!("addr add 2001:db8::{:x}/128 dev lo nodad", 0x10 + number));
    }
    for number in 1..=SERVERS {
        let mac = mac::of_server(number);
        lines.push(format!("neigh add 10.0.0.{number} lladdr {mac} nud permanent dev d0"));
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
        lines.push(format!("neigh add {v6} lladdr {mac} nud permanent dev d0"));
    }
    for gateway in ["10.0.0.253", "fd00::fd"] {
        lines.push(format!("neigh add {gateway} lladdr {GATEWAY_MAC} nud permanent dev d0"));
        lines.push(format!("route add default via {gateway} dev d0"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn batch(netns: &NetNs, lines: &str) -> Result<(), NetError> {
    tool(Command::new("ip").args(["-n", netns.name(), "-batch", "-"]), lines)
}

/// Feeds `nft` in a namespace.
pub(crate) fn batch_nft(netns: &NetNs, lines: &str) -> Result<(), NetError> {
    netns.run(|| tool(Command::new("nft").args(["-f", "-"]), lines))?
}

fn tool(command: &mut Command, input: &str) -> Result<(), NetError> {
    let failed = |said: String, command: &Command| NetError::Tool { words: format!("{command:?}"), said };
    let output = run(command, input).map_err(|error| failed(error.to_string(), command))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).into_owned(), command))
}

/// Runs a command that reads all its input before it writes much.
pub(crate) fn run(command: &mut Command, input: &str) -> io::Result<std::process::Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input ends all the same, and says why.
        let _ = io::Write::write_all(&mut stdin, input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_the_echo_is_known_and_nothing_else() {
        let (request, carried) = echo(7);
        assert!(!is_echo(&request, &carried), "the request is no answer");
        let mut answer = request.clone();
        answer[34] = 0;
        assert!(is_echo(&answer, &carried));
        assert!(!is_echo(&answer, &echo(8).1));
        assert!(is_ours(&request) && !is_ours(&[0x33, 0x33, 0, 0, 0, 1]));
    }
}
