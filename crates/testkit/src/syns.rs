//! A flood: SYNs from made-up addresses, each from another one.

use crate::Frames;
use crate::packet::packet;
use std::io;
use std::time::{Duration, Instant};

/// Where the high half of the first made-up address begins: 198.18.0.0, the network for such tests (RFC 2544).
const NETWORK: [u8; 2] = [198, 18];
/// How long the link's queue may be full.
const QUEUE_WAIT: Duration = Duration::from_secs(10);
/// Offsets in the frame of the low half of the source address, and of two fields that nobody looks at, of the sums of the
/// IP and of the TCP header: what is added to the address is taken away there, so that the checksums stay right.
const LOW: usize = 28;
const COMPLEMENTS: [usize; 2] = [18, 52];

/// The next SYN to send.
#[derive(Debug)]
pub struct Syns {
    to: String,
    frame: Vec<u8>,
    number: u32,
}

impl Syns {
    /// SYNs to this MAC address, IPv4 address and port, from the first made-up address on.
    ///
    /// # Panics
    /// When they are not written as in the packet language.
    #[must_use]
    pub fn new(mac: &str, address: &str, port: u16) -> Self {
        let to = format!("{mac} / ip4 {{}} > {address} id 0 / tcp 4000 > {port} syn");
        let mut syns = Self { to, frame: Vec::new(), number: 0 };
        syns.turn();
        syns
    }

    /// Begins with the next high half.
    fn turn(&mut self) {
        let [a, b] = NETWORK;
        let source = format!("{a}.{}.0.0", u32::from(b) + (self.number >> 16));
        let text = format!("eth 02:00:00:00:00:99 > {}", self.to.replacen("{}", &source, 1));
        self.frame = packet(&text);
    }

    /// The next one.
    pub fn next_frame(&mut self) -> &[u8] {
        let low = self.number as u16;
        if low == 0 {
            self.turn();
        }
        self.frame[LOW..LOW + 2].copy_from_slice(&low.to_be_bytes());
        for at in COMPLEMENTS {
            self.frame[at..at + 2].copy_from_slice(&(!low).to_be_bytes());
        }
        self.number += 1;
        &self.frame
    }

    /// Sends so many.
    ///
    /// # Errors
    /// The link takes nothing for ten seconds.
    pub fn send(&mut self, frames: &Frames, count: u32) -> io::Result<()> {
        for _ in 0..count {
            let frame = self.next_frame();
            let mut since = None;
            // The link's queue may be full for a moment.
            while let Err(error) = frames.send(frame) {
                if since.get_or_insert_with(Instant::now).elapsed() > QUEUE_WAIT {
                    return Err(error);
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::internet;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_an_address_of_its_own_and_right_checksums() {
        let mut syns = Syns::new("02:00:00:00:00:d1", "192.0.2.10", 8080);
        let mut seen = BTreeSet::new();
        for _ in 0..70_000 {
            let frame = syns.next_frame();
            assert!(seen.insert(frame[26..30].to_vec()));
            if seen.len() % 997 == 1 {
                assert_eq!(internet(&[&frame[14..34]]), 0, "of the IP header");
                // Addresses, protocol and length of the TCP segment count as well.
                assert_eq!(
                    internet(&[&frame[26..34], &[0, 6, 0, 20], &frame[34..54]]),
                    0,
                    "of the TCP header"
                );
            }
        }
    }
}
