//! TCP states as the director sees them when it sees the client side only, which is so in direct routing
//! and tunneling: the "input-only" rows of IPVS [`ip_vs_proto_tcp.c`, `tcp_states`].
//!
//! ```text
//!        NO ES SS SR FW TW CL CW LA LI SA      columns: present state, rows: event
//! syn    SR ES ES SR SR SR SR SR SR SR SR
//! fin    CL FW SS TW FW TW CL CW LA LI TW
//! ack    ES ES SS ES FW TW CL CW CL LI ES
//! rst    CL CL CL SR CL CL CL CL LA LI CL
//! ```

use abi::TcpState::{
    Close, CloseWait, Established, FinWait, LastAck, Listen, SynAck, SynRecv, SynSent, TimeWait,
};
use abi::{Settings, TcpState};
use wire::tcp::{ACK, FIN, RST, SYN};

/// A row is one word: four bits of next state for each present state, so that a step is a shift and a mask
/// and needs no table in memory.
const fn row(next: [TcpState; 11]) -> u64 {
    let [no, es, ss, sr, fw, tw, cl, cw, la, li, sa] = next;
    (no as u64)
        | (es as u64) << 4
        | (ss as u64) << 8
        | (sr as u64) << 12
        | (fw as u64) << 16
        | (tw as u64) << 20
        | (cl as u64) << 24
        | (cw as u64) << 28
        | (la as u64) << 32
        | (li as u64) << 36
        | (sa as u64) << 40
}

const ON_SYN: u64 = row([
    SynRecv,
    Established,
    Established,
    SynRecv,
    SynRecv,
    SynRecv,
    SynRecv,
    SynRecv,
    SynRecv,
    SynRecv,
    SynRecv,
]);
const ON_FIN: u64 =
    row([Close, FinWait, SynSent, TimeWait, FinWait, TimeWait, Close, CloseWait, LastAck, Listen, TimeWait]);
const ON_ACK: u64 = row([
    Established,
    Established,
    SynSent,
    Established,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    Close,
    Listen,
    Established,
]);
const ON_RST: u64 = row([Close, Close, Close, SynRecv, Close, Close, Close, Close, LastAck, Listen, Close]);

/// State bits that count as active.
const ACTIVE: u32 = 1 << Established as u32 | 1 << SynSent as u32 | 1 << SynRecv as u32 | 1 << SynAck as u32;

/// The state after a segment from the client. Among the flags RST counts before SYN, FIN and ACK; a
/// segment with none of them closes.
#[inline(always)]
#[must_use]
pub const fn next(state: u8, flags: u8) -> u8 {
    let row = if flags & RST != 0 {
        ON_RST
    } else if flags & SYN != 0 {
        ON_SYN
    } else if flags & FIN != 0 {
        ON_FIN
    } else if flags & ACK != 0 {
        ON_ACK
    } else {
        return Close as u8;
    };
    (row.wrapping_shr((state as u32 & 15) << 2) & 15) as u8
}

/// Whether a flow in this state counts as active.
#[inline(always)]
#[must_use]
pub const fn is_active(state: u8) -> bool {
    ACTIVE.wrapping_shr(state as u32 & 15) & 1 != 0
}

/// Whether a new SYN on a flow in this state opens a new connection, which may go to another real server
/// (`conn_reuse_mode` 1).
#[inline(always)]
#[must_use]
pub const fn is_reusable(state: u8) -> bool {
    state == TimeWait as u8 || state == Close as u8
}

/// The time-out of a state.
#[inline(always)]
#[must_use]
pub fn timeout_ns(settings: &Settings, state: u8) -> u64 {
    // The mask keeps the index inside; states are below 11.
    settings.tcp_timeout_ns.get(usize::from(state & 15)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use TcpState::None;

    /// The table of the specification, section 3.4, typed again as text so that a slip in a row shows.
    const TABLE: [(u8, &str); 4] = [
        (SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
        (FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
        (ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
        (RST, "CL CL CL SR CL CL CL CL LA LI CL"),
    ];

    fn short(state: TcpState) -> &'static str {
        match state {
            None => "NO",
            Established => "ES",
            SynSent => "SS",
            SynRecv => "SR",
            FinWait => "FW",
            TimeWait => "TW",
            Close => "CL",
            CloseWait => "CW",
            LastAck => "LA",
            Listen => "LI",
            SynAck => "SA",
        }
    }

    #[test]
    fn every_transition_is_that_of_the_specification() {
        for (flags, cells) in TABLE {
            for (state, cell) in TcpState::ALL.iter().zip(cells.split(' ')) {
                let after = TcpState::ALL[usize::from(next(*state as u8, flags))];
                assert_eq!(short(after), cell, "{state:?} on {flags:#x}");
            }
        }
    }

    #[test]
    fn the_first_flag_in_priority_counts() {
        assert_eq!(next(Established as u8, RST | SYN | FIN | ACK), Close as u8);
        assert_eq!(next(None as u8, SYN | FIN | ACK), SynRecv as u8);
        assert_eq!(next(Established as u8, FIN | ACK), FinWait as u8);
        assert_eq!(next(Established as u8, 0), Close as u8);
    }

    #[test]
    fn active_states_are_those_of_the_specification() {
        let active: std::vec::Vec<_> =
            TcpState::ALL.into_iter().filter(|s| is_active(*s as u8)).map(short).collect();
        assert_eq!(active, ["ES", "SS", "SR", "SA"]);
    }
}
