//! States of SCTP associations as the director sees them [`ip_vs_proto_sctp.c`, `sctp_states`].
//!
//! States have the numbers of [`abi::SCTP_STATES`]:
//!
//! ```text
//! 0 NONE 1 INIT1 2 INIT 3 C-SENT 4 C-REPLIED 5 C-WAIT 6 COOKIE 7 C-ECHOED 8 ESTABLISHED
//! 9 S-SENT 10 S-RECEIVED 11 S-ACK-SENT 12 REJECTED 13 CLOSED
//! ```

use abi::Settings;

/// What a packet does to the state: its first chunk, by and large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// DATA, SACK, HEARTBEAT, its ACK, ECNE, CWR, and what is not known.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl Event {
    /// The event of a chunk type (RFC 9260 section 3.2).
    #[inline(always)]
    #[must_use]
    pub const fn of(chunk: u8) -> Self {
        match chunk {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }

    /// The event with this number.
    #[inline(always)]
    const fn numbered(number: u32) -> Self {
        match number {
            1 => Self::Init,
            2 => Self::InitAck,
            3 => Self::CookieEcho,
            4 => Self::CookieAck,
            5 => Self::Shutdown,
            6 => Self::ShutdownAck,
            7 => Self::ShutdownComplete,
            8 => Self::Error,
            9 => Self::Abort,
            _ => Self::Data,
        }
    }
}

/// Who sent the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client; packets of the server have passed, too.
    Input,
    /// The server.
    Output,
    /// The client; packets of the server go another way.
    InputOnly,
}

/// A row is one word: four bits of next state for each present state.
const fn row(next: [u8; 14]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = next;
    let low = word([a, b, c, d, e, f, g, h]);
    low | word([i, j, k, l, m, n, 0, 0]) << 32
}

const fn word(next: [u8; 8]) -> u64 {
    let [a, b, c, d, e, f, g, h] = next;
    u32::from_le_bytes([b << 4 | a, d << 4 | c, f << 4 | e, h << 4 | g]) as u64
}

/// Packets from the client, of a flow whose server has been heard.
const fn input(event: Event) -> u64 {
    match event {
        Event::Data => row([8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Init => row([1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 2]),
        Event::InitAck => row([5, 5, 5, 3, 4, 6, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieEcho => row([4, 2, 2, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieAck => row([8, 1, 2, 3, 4, 5, 6, 8, 8, 9, 10, 11, 12, 13]),
        Event::Shutdown => row([10, 1, 2, 3, 4, 5, 6, 7, 10, 9, 10, 11, 12, 13]),
        Event::ShutdownAck => row([13, 2, 2, 3, 4, 5, 6, 7, 8, 13, 10, 13, 12, 13]),
        Event::ShutdownComplete => row([13, 13, 13, 3, 4, 5, 6, 7, 8, 9, 10, 13, 12, 13]),
        Event::Error => row([13, 1, 2, 3, 4, 5, 6, 13, 8, 9, 10, 11, 12, 13]),
        Event::Abort => row([13, 13, 13, 13, 13, 12, 13, 13, 13, 13, 13, 13, 13, 13]),
    }
}

/// Packets from the server.
const fn output(event: Event) -> u64 {
    match event {
        Event::Data => row([8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Init => row([5, 5, 5, 5, 5, 5, 5, 5, 8, 5, 5, 5, 5, 5]),
        Event::InitAck => row([3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieEcho => row([7, 7, 7, 7, 7, 7, 7, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieAck => row([8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 10, 11, 12, 13]),
        Event::Shutdown => row([9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 10, 11, 12, 13]),
        Event::ShutdownAck => row([11, 11, 11, 11, 11, 5, 6, 7, 8, 11, 11, 11, 12, 13]),
        Event::ShutdownComplete => row([13, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Error => row([13, 13, 13, 13, 13, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Abort => row([13, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13]),
    }
}

/// Packets from the client, of a flow whose server is never heard.
const fn input_only(event: Event) -> u64 {
    match event {
        Event::Data => row([8, 1, 2, 3, 4, 8, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Init => row([1, 2, 2, 2, 2, 2, 6, 7, 8, 9, 10, 11, 2, 2]),
        Event::InitAck => row([7, 7, 7, 7, 7, 7, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieEcho => row([8, 8, 8, 8, 8, 8, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::CookieAck => row([8, 1, 2, 8, 8, 5, 8, 8, 8, 9, 10, 11, 12, 13]),
        Event::Shutdown => row([10, 1, 2, 3, 4, 5, 6, 7, 10, 9, 10, 11, 12, 13]),
        Event::ShutdownAck => row([13, 2, 2, 3, 4, 5, 6, 7, 13, 13, 10, 13, 12, 13]),
        Event::ShutdownComplete => row([13, 13, 13, 13, 13, 5, 6, 7, 8, 9, 13, 13, 12, 13]),
        Event::Error => row([13, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        Event::Abort => row([13, 13, 13, 13, 13, 12, 13, 13, 13, 13, 13, 13, 13, 13]),
    }
}
const ESTABLISHED: u8 = 8;
const CLOSED: u8 = 13;

/// The state after a packet with this event number.
#[inline(always)]
#[must_use]
pub const fn next(state: u8, event: u32, direction: Direction) -> u8 {
    let event = Event::numbered(event);
    let row = match direction {
        Direction::Input => input(event),
        Direction::Output => output(event),
        Direction::InputOnly => input_only(event),
    };
    (row.wrapping_shr((state as u32 & 15) << 2) & 15) as u8
}

/// Time-out of a flow in this state, in ns.
#[inline(always)]
#[must_use]
pub fn timeout_ns(settings: &Settings, state: u8) -> u64 {
    // The mask keeps the index inside; states are below 14.
    settings.sctp_timeout_ns.get(usize::from(state & 15)).copied().unwrap_or_default()
}

/// Whether a flow in this state counts as active.
#[inline(always)]
#[must_use]
pub const fn is_active(state: u8) -> bool {
    state == ESTABLISHED
}

/// Whether a packet with this event number begins an association.
#[inline(always)]
#[must_use]
pub const fn begins(event: u32) -> bool {
    event == Event::Init as u32
}

/// Whether an INIT on a flow in this state opens a new association, which may go to another real server.
#[inline(always)]
#[must_use]
pub const fn is_reusable(state: u8) -> bool {
    state == CLOSED
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// The tables of the specification, section 3.5, as text: event, then input, output and input-only rows.
    const TABLE: [&str; 10] = [
        "d | 8 1 2 3 4 5 6 7 8 9 10 11 12 13 | 8 1 2 3 4 5 6 7 8 9 10 11 12 13 | 8 1 2 3 4 8 6 7 8 9 10 11 12 13",
        "i | 1 2 2 3 4 5 6 7 8 9 10 11 2 2 | 5 5 5 5 5 5 5 5 8 5 5 5 5 5 | 1 2 2 2 2 2 6 7 8 9 10 11 2 2",
        "ia | 5 5 5 3 4 6 6 7 8 9 10 11 12 13 | 3 3 3 3 4 5 6 7 8 9 10 11 12 13 | 7 7 7 7 7 7 6 7 8 9 10 11 12 13",
        "ce | 4 2 2 4 4 5 6 7 8 9 10 11 12 13 | 7 7 7 7 7 7 7 7 8 9 10 11 12 13 | 8 8 8 8 8 8 6 7 8 9 10 11 12 13",
        "ca | 8 1 2 3 4 5 6 8 8 9 10 11 12 13 | 8 8 8 8 8 8 8 8 8 9 10 11 12 13 | 8 1 2 8 8 5 8 8 8 9 10 11 12 13",
        "s | 10 1 2 3 4 5 6 7 10 9 10 11 12 13 | 9 9 9 9 9 9 9 9 9 9 10 11 12 13 | 10 1 2 3 4 5 6 7 10 9 10 11 12 13",
        "sa | 13 2 2 3 4 5 6 7 8 13 10 13 12 13 | 11 11 11 11 11 5 6 7 8 11 11 11 12 13 | 13 2 2 3 4 5 6 7 13 13 10 13 12 13",
        "sc | 13 13 13 3 4 5 6 7 8 9 10 13 12 13 | 13 1 2 3 4 5 6 7 8 9 10 11 12 13 | 13 13 13 13 13 5 6 7 8 9 13 13 12 13",
        "er | 13 1 2 3 4 5 6 13 8 9 10 11 12 13 | 13 13 13 13 13 5 6 7 8 9 10 11 12 13 | 13 1 2 3 4 5 6 7 8 9 10 11 12 13",
        "ab | 13 13 13 13 13 12 13 13 13 13 13 13 13 13 | 13 12 13 13 13 13 13 13 13 13 13 13 13 13 | 13 13 13 13 13 12 13 13 13 13 13 13 13 13",
    ];

    fn chunk(name: &str) -> u8 {
        match name {
            "d" => 0,
            "i" => 1,
            "ia" => 2,
            "ab" => 6,
            "s" => 7,
            "sa" => 8,
            "er" => 9,
            "ce" => 10,
            "ca" => 11,
            "sc" => 14,
            _ => panic!("no event {name}"),
        }
    }

    #[test]
    fn every_transition_is_that_of_the_specification() {
        let mut seen = 0;
        for line in TABLE {
            let columns: Vec<&str> = line.split(" | ").collect();
            let event = Event::of(chunk(columns[0])) as u32;
            for (direction, cells) in
                [Direction::Input, Direction::Output, Direction::InputOnly].into_iter().zip(&columns[1..])
            {
                let cells: Vec<u8> = cells.split(' ').map(|cell| cell.parse().expect("a number")).collect();
                assert_eq!(cells.len(), abi::SCTP_STATES.len());
                for (state, cell) in cells.iter().enumerate() {
                    assert_eq!(
                        next(state as u8, event, direction),
                        *cell,
                        "{line}, state {state}, {direction:?}"
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 420);
    }

    #[test]
    fn chunks_that_carry_data_and_unknown_ones_are_data() {
        for kind in [0, 3, 4, 5, 12, 13, 15, 63, 0x82, 0xc1, 255] {
            assert_eq!(Event::of(kind), Event::Data, "{kind}");
        }
    }

    #[test]
    fn only_established_is_active_and_only_closed_reusable() {
        let named = |test: fn(u8) -> bool| {
            let states = abi::SCTP_STATES.iter().enumerate();
            states.filter(|(state, _)| test(*state as u8)).map(|(_, (name, _))| *name).collect::<Vec<_>>()
        };
        assert_eq!(named(is_active), ["ESTABLISHED"]);
        assert_eq!(named(is_reusable), ["CLOSED"]);
    }
}
