//! What time it is elsewhere: ICMP timestamps (RFC 792), which Linux answers. IPv6 has none.

use etherparse::checksum::Sum16BitWords;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

const REQUEST: u8 = 13;
const REPLY: u8 = 14;
const DAY_MS: i64 = 86_400_000;
/// Of a time that is not in milliseconds since midnight.
const NOT_STANDARD: u32 = 1 << 31;
/// Questions sent at once; more wait for a moment.
const BURST: usize = 64;
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// By how many milliseconds the clocks at these addresses are ahead of this machine's, within half a day, of those that
/// answered within this time.
///
/// # Errors
/// No raw socket, mostly for want of CAP_NET_RAW.
pub async fn ahead_ms(addresses: &[Ipv4Addr], wait: Duration) -> io::Result<BTreeMap<Ipv4Addr, i64>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV4))?;
    let mut random = [0; 2];
    getrandom::fill(&mut random)?;
    for some in addresses.chunks(BURST) {
        for address in some {
            // One that cannot be reached does not answer.
            let _ = socket.send_to(&request(random, now_ms()), &SocketAddr::from((*address, 0)).into());
        }
        sleep(BURST_PAUSE).await;
    }
    // SAFETY: the socket owns its descriptor, gives the same one whenever asked, and keeps it open until it is dropped, which
    // is after the registration.
    let socket = unsafe { AsyncFd::register(socket) }?;
    let end = Instant::now() + wait;
    let mut found = BTreeMap::new();
    let mut packet = [0; 256];
    while found.len() < addresses.len() {
        let Ok(ready) = timeout_at(end, socket.readable()).await else { break };
        if let Ok(length) = ready?.try_io(|socket| socket.get_ref().read(&mut packet))
            && let Some((from, ahead)) = reply(&packet[..length?], random, now_ms())
            && addresses.contains(&from)
        {
            found.insert(from, ahead);
        }
    }
    Ok(found)
}

/// Milliseconds since midnight, UTC.
fn now_ms() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_millis() % DAY_MS.cast_unsigned() as u128) as u32
}

fn request(id: [u8; 2], now: u32) -> [u8; 20] {
    let mut message = [0; 20];
    message[0] = REQUEST;
    message[4..6].copy_from_slice(&id);
    message[8..12].copy_from_slice(&now.to_be_bytes());
    let sum = Sum16BitWords::new().add_slice(&message).ones_complement();
    // The sum comes in memory's order.
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    message
}

/// Who answered, and how far ahead its clock is: what it received by its clock is when half the way was gone by ours.
fn reply(packet: &[u8], id: [u8; 2], now: u32) -> Option<(Ipv4Addr, i64)> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header..)?;
    if *message.first()? != REPLY || message.get(4..6)? != id {
        return None;
    }
    let time = |at: usize| Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let (sent, there) = (time(8)?, time(12)?);
    if there & NOT_STANDARD != 0 {
        return None;
    }
    let rtt = (i64::from(now) - i64::from(sent)).rem_euclid(DAY_MS);
    let ahead = i64::from(there) - i64::from(sent) - rtt / 2;
    let half = DAY_MS / 2;
    Some((from.into(), (ahead + half).rem_euclid(DAY_MS) - half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_way_is_taken_off_and_midnight_passed_over() {
        let ahead = |sent: u32, there: u32, now: u32| {
            let mut packet = vec![0; 20];
            packet[0] = 0x45;
            packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
            let mut message = request([1, 2], sent);
            message[0] = REPLY;
            message[12..16].copy_from_slice(&there.to_be_bytes());
            packet.extend(message);
            reply(&packet, [1, 2], now)
        };
        let from = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(ahead(1000, 1005, 1010), Some((from, 0)));
        assert_eq!(ahead(1000, 6005, 1010), Some((from, 5000)));
        assert_eq!(ahead(86_399_990, 0, 10), Some((from, 0)));
        assert_eq!(ahead(0, 86_390_000, 0), Some((from, -10_000)));
        assert_eq!(ahead(0, NOT_STANDARD | 5, 0), None);
        assert_eq!(reply(&[0x45; 10], [1, 2], 0), None);
    }
}
