//! TCP states as the director sees them [`ip_vs_proto_tcp.c`, `tcp_states`]. In direct routing and tunneling it sees the
//! client side only: the "input-only" rows. Where replies come through it, both sides have rows.
//!
//! ```text
//!             NO ES SS SR FW TW CL CW LA LI SA      columns: present state, rows: event
//! in syn      SR ES ES SR SR SR SR SR SR SR SR
//! in fin      CL CW SS TW TW TW CL CW LA LI TW
//! in ack      ES ES SS ES FW TW CL CW CL LI ES
//! in rst      CL CL CL SR CL CL CL CL LA LI SR
//! out syn     SS ES SS SR SS SS SS SS SS LI SR
//! out fin     TW FW SS TW FW TW CL TW LA LI TW
//! out ack     ES ES SS ES FW TW CL CW LA ES ES
//! out rst     CL CL SS CL CL TW CL CL CL CL CL
//! in-only syn SR ES ES SR SR SR SR SR SR SR SR
//! in-only fin CL FW SS TW FW TW CL CW LA LI TW
//! in-only ack ES ES SS ES FW TW CL CW CL LI ES
//! in-only rst CL CL CL SR CL CL CL CL LA LI CL
//! ```

use abi::TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
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

const IN_SYN: u64 = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
const IN_FIN: u64 = row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]);
const IN_ACK: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
const IN_RST: u64 = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]);
const OUT_SYN: u64 = row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]);
const OUT_FIN: u64 = row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]);
const OUT_ACK: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]);
const OUT_RST: u64 = row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]);
const ONLY_FIN: u64 = row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]);
const ONLY_RST: u64 = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]);

/// The rows that differ while `secure_tcp` is in force: a connection has to be answered before it counts as established,
/// where the answer is seen, and a SYN alone is less than it was.
const SECURE_IN_SYN: u64 = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]);
const SECURE_IN_FIN: u64 = row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]);
const SECURE_IN_ACK: u64 = row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]);
const SECURE_OUT_SYN: u64 = row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]);
const SECURE_ONLY_SYN: u64 = row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]);

/// State bits that count as active.
const ACTIVE: u32 = 1 << ES as u32 | 1 << SS as u32 | 1 << SR as u32 | 1 << SA as u32;

/// Which rows apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A segment from the client, where both sides are seen.
    Input,
    /// A segment from the real server.
    Output,
    /// A segment from the client, where no other side is seen.
    InputOnly,
}

/// The state after a segment. Among the flags RST counts before SYN, FIN and ACK; a segment with none of them closes.
#[inline(always)]
#[must_use]
pub const fn next(rows: Rows, state: u8, flags: u8) -> u8 {
    let row = if flags & RST != 0 {
        match rows {
            Rows::Input => IN_RST,
            Rows::Output => OUT_RST,
            Rows::InputOnly => ONLY_RST,
        }
    } else if flags & SYN != 0 {
        if matches!(rows, Rows::Output) { OUT_SYN } else { IN_SYN }
    } else if flags & FIN != 0 {
        match rows {
            Rows::Input => IN_FIN,
            Rows::Output => OUT_FIN,
            Rows::InputOnly => ONLY_FIN,
        }
    } else if flags & ACK != 0 {
        if matches!(rows, Rows::Output) { OUT_ACK } else { IN_ACK }
    } else {
        return CL as u8;
    };
    (row.wrapping_shr((state as u32 & 15) << 2) & 15) as u8
}

/// Whether nothing happens but that time goes on, as with nearly every segment: in ESTABLISHED all rows leave an ACK alone.
#[inline(always)]
#[must_use]
pub const fn stays(state: u8, flags: u8) -> bool {
    state == ES as u8 && flags & (SYN | FIN | RST | ACK) == ACK
}

/// As [`next`] while `secure_tcp` is in force. In ESTABLISHED and SYN_SENT it says the same as [`next`].
#[inline(always)]
#[must_use]
pub const fn next_secure(rows: Rows, state: u8, flags: u8) -> u8 {
    let row = match rows {
        _ if flags & RST != 0 && !matches!(rows, Rows::Output) => ONLY_RST,
        Rows::Input if flags & SYN != 0 => SECURE_IN_SYN,
        Rows::Input if flags & FIN != 0 => SECURE_IN_FIN,
        Rows::Input if flags & ACK != 0 => SECURE_IN_ACK,
        Rows::Output if flags & (RST | SYN) == SYN => SECURE_OUT_SYN,
        Rows::InputOnly if flags & SYN != 0 => SECURE_ONLY_SYN,
        Rows::Input | Rows::Output | Rows::InputOnly => return next(rows, state, flags),
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
    state == TW as u8 || state == CL as u8
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
    /// The table of the specification, section 3.4, typed again as text so that a slip in a row shows.
    const TABLE: [(Rows, u8, &str); 12] = [
        (Rows::Input, SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
        (Rows::Input, FIN, "CL CW SS TW TW TW CL CW LA LI TW"),
        (Rows::Input, ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
        (Rows::Input, RST, "CL CL CL SR CL CL CL CL LA LI SR"),
        (Rows::Output, SYN, "SS ES SS SR SS SS SS SS SS LI SR"),
        (Rows::Output, FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
        (Rows::Output, ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
        (Rows::Output, RST, "CL CL SS CL CL TW CL CL CL CL CL"),
        (Rows::InputOnly, SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
        (Rows::InputOnly, FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
        (Rows::InputOnly, ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
        (Rows::InputOnly, RST, "CL CL CL SR CL CL CL CL LA LI CL"),
    ];

    fn short(state: TcpState) -> &'static str {
        match state {
            TcpState::None => "NO",
            ES => "ES",
            SS => "SS",
            SR => "SR",
            FW => "FW",
            TW => "TW",
            CL => "CL",
            CW => "CW",
            LA => "LA",
            LI => "LI",
            SA => "SA",
        }
    }

    #[test]
    fn every_transition_is_that_of_the_specification() {
        for (rows, flags, cells) in TABLE {
            for (state, cell) in TcpState::ALL.iter().zip(cells.split(' ')) {
                let after = TcpState::ALL[usize::from(next(rows, *state as u8, flags))];
                assert_eq!(short(after), cell, "{state:?} on {flags:#x}, {rows:?}");
            }
        }
    }

    /// The rows that `secure_tcp` changes, typed again.
    const SECURE: [(Rows, u8, &str); 6] = [
        (Rows::Input, SYN, "SR ES ES SR SR SR SR SR SR SR SA"),
        (Rows::Input, FIN, "CL CW SS TW TW TW CL CW LA LI SA"),
        (Rows::Input, ACK, "ES ES SS SR FW TW CL CW CL LI SA"),
        (Rows::Input, RST, "CL CL CL SR CL CL CL CL LA LI CL"),
        (Rows::Output, SYN, "SS ES SS SA SS SS SS SS SS LI SA"),
        (Rows::InputOnly, SYN, "SA ES ES SR SA SA SA SA SA SA SA"),
    ];

    #[test]
    fn secure_tcp_changes_these_rows_and_nothing_in_established() {
        for (rows, flags, cells) in TABLE {
            let changed = SECURE.iter().find(|it| (it.0, it.1) == (rows, flags));
            let cells = changed.map_or(cells, |it| it.2);
            for (state, cell) in TcpState::ALL.iter().zip(cells.split(' ')) {
                let after = TcpState::ALL[usize::from(next_secure(rows, *state as u8, flags))];
                assert_eq!(short(after), cell, "{state:?} on {flags:#x}, {rows:?}");
            }
            assert_eq!(next_secure(rows, ES as u8, flags), next(rows, ES as u8, flags));
        }
        assert_eq!(next_secure(Rows::Input, SA as u8, 0), CL as u8);
        assert_eq!(next_secure(Rows::InputOnly, SA as u8, SYN | FIN | RST), CL as u8);
    }

    #[test]
    fn what_stays_is_what_every_row_leaves_in_established() {
        for (state, flags) in
            TcpState::ALL.into_iter().flat_map(|state| (0..=u8::MAX).map(move |it| (state, it)))
        {
            if !stays(state as u8, flags) {
                continue;
            }
            for rows in [Rows::Input, Rows::Output, Rows::InputOnly] {
                assert_eq!(next(rows, state as u8, flags), state as u8, "{rows:?}, {flags:#x}");
                assert_eq!(next_secure(rows, state as u8, flags), state as u8, "{rows:?}, {flags:#x}");
            }
        }
        assert!(stays(ES as u8, ACK), "else nothing was tested");
    }

    #[test]
    fn the_first_flag_in_priority_counts() {
        assert_eq!(next(Rows::InputOnly, ES as u8, RST | SYN | FIN | ACK), CL as u8);
        assert_eq!(next(Rows::InputOnly, TcpState::None as u8, SYN | FIN | ACK), SR as u8);
        assert_eq!(next(Rows::InputOnly, ES as u8, FIN | ACK), FW as u8);
        assert_eq!(next(Rows::Input, ES as u8, FIN | ACK), CW as u8);
        assert_eq!(next(Rows::InputOnly, ES as u8, 0), CL as u8);
    }

    #[test]
    fn active_states_are_those_of_the_specification() {
        let active: std::vec::Vec<_> =
            TcpState::ALL.into_iter().filter(|s| is_active(*s as u8)).map(short).collect();
        assert_eq!(active, ["ES", "SS", "SR", "SA"]);
    }
}
