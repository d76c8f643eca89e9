//! What becomes of a known flow when something is the matter with it: it has ended, its real server was deleted, or
//! a client opens a connection on its ports again.
//!
//! Established flows of a real server that is there never come here.

use crate::enter::opens;
use crate::packet::{Work, is_sctp, is_tcp};
use crate::sctp_state;
use crate::tables::Tables;
use crate::tcp_state;
use abi::{
    FLOW_CONTROLLED, FLOW_EMBRYONIC, FLOW_NO_OUTPUT, Failure, Flow, REAL_AVAILABLE, REAL_GONE_KEEP,
    REAL_GONE_RESET, REAL_RESCUE, Real, SYSCTL_EXPIRE_NODEST_CONN, Settings, TcpState,
};
use wire::tcp::RST;

/// A SYN repeated sooner than this is a copy that the network made, not a client that has waited in vain: the
/// first time-out of a client is one second (RFC 6298).
const RESCUE_AFTER_NS: u64 = 500_000_000;

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Goes,
    /// It counts as absent.
    Over,
    /// It counts as absent, and its real server is the last to be chosen again.
    Rescued,
    /// Its packet is dropped, and it stays.
    Dropped,
    /// Its client is reset, and it ends.
    Reset,
}

/// What becomes of a flow that has ended, whose real server was deleted, or that meets a SYN.
#[inline(always)]
pub fn of<T: Tables, const ENTRY: bool>(
    tables: &T,
    settings: &Settings,
    flow: &Flow,
    real: &Real,
    work: &Work,
    now_ns: u64,
) -> Fate {
    if now_ns >= flow.expires_ns {
        return Fate::Over;
    }
    let expire_nodest = settings.sysctls.switches & SYSCTL_EXPIRE_NODEST_CONN != 0;
    if real.flags & REAL_AVAILABLE == 0 {
        return of_gone::<ENTRY>(expire_nodest, real, work);
    }
    if !ENTRY && is_sctp(&work.key) {
        return of_association(settings, flow, real, work);
    }
    if !is_tcp(&work.key) || !opens::<ENTRY>(work) {
        return Fate::Goes;
    }
    if (expire_nodest && real.weight == 0) || is_reusable(settings.sysctls.conn_reuse_mode, flow) {
        return Fate::Over;
    }
    if is_unanswered(tables, settings, flow, now_ns) {
        tables.count_failure(flow.real, Failure::Unanswered);
        // One under a template would come back to the same real server.
        if real.flags & REAL_RESCUE != 0 && flow.flags & FLOW_CONTROLLED == 0 {
            return Fate::Rescued;
        }
    }
    Fate::Goes
}

/// The real server was deleted.
#[inline(always)]
fn of_gone<const ENTRY: bool>(expire_nodest: bool, real: &Real, work: &Work) -> Fate {
    if expire_nodest {
        return Fate::Over;
    }
    if real.flags & REAL_GONE_KEEP != 0 {
        return Fate::Dropped;
    }
    // IPVS drops here as well (expire_nodest_conn 0). Better: a client that opens a connection anew gets another real
    // server at once.
    if opens::<ENTRY>(work) {
        return Fate::Over;
    }
    // To reset who resets would be an endless exchange (RFC 9293, section 3.10.7.1).
    let resets = is_tcp(&work.key) && real.flags & REAL_GONE_RESET != 0 && work.tcp_flags as u8 & RST == 0;
    if resets { Fate::Reset } else { Fate::Dropped }
}

/// An SCTP association: INIT on a closed one opens another.
#[inline(always)]
fn of_association(settings: &Settings, flow: &Flow, real: &Real, work: &Work) -> Fate {
    let expire_nodest = settings.sysctls.switches & SYSCTL_EXPIRE_NODEST_CONN != 0;
    let reusable = settings.sysctls.conn_reuse_mode != 0
        && flow.flags & FLOW_CONTROLLED == 0
        && sctp_state::is_reusable(flow.state);
    let over = (expire_nodest && real.weight == 0) || reusable;
    if over && sctp_state::begins(work.tcp_flags) { Fate::Over } else { Fate::Goes }
}

/// Whether a SYN on a flow in this state opens a new connection, which may go to another real server. One under a
/// template would come back to the same one.
#[inline(always)]
fn is_reusable(mode: u32, flow: &Flow) -> bool {
    let half_closed =
        mode & 2 != 0 && flow.state == TcpState::FinWait as u8 && flow.flags & FLOW_NO_OUTPUT != 0;
    mode != 0 && flow.flags & FLOW_CONTROLLED == 0 && (tcp_state::is_reusable(flow.state) || half_closed)
}

/// Whether a repeated SYN means that the real server does not answer: it never got on with this connection, nor with any
/// other since the SYN before. Where it did with another, the loss was the network's, and the SYN goes to the same real
/// server again: it may have answered, and a client that got two answers would reset the connection.
#[inline(always)]
fn is_unanswered<T: Tables>(tables: &T, settings: &Settings, flow: &Flow, now_ns: u64) -> bool {
    let opening = flow.state == TcpState::SynRecv as u8 || flow.state == TcpState::SynAck as u8;
    if !opening || flow.flags & FLOW_EMBRYONIC == 0 {
        return false;
    }
    // Each state by its own constant: the compiler drops a mask that it knows to be of no use here, and the verifier of 6.1
    // does not know that.
    let opened = if flow.state == TcpState::SynAck as u8 { TcpState::SynAck } else { TcpState::SynRecv };
    let timeout_ns = match opened {
        TcpState::SynAck => tcp_state::timeout_ns(settings, TcpState::SynAck as u8),
        _ => tcp_state::timeout_ns(settings, TcpState::SynRecv as u8),
    };
    let last_syn_ns = flow.expires_ns.wrapping_sub(timeout_ns);
    now_ns >= last_syn_ns.wrapping_add(RESCUE_AFTER_NS) && tables.progressed_ns(flow.real) < last_syn_ns
}
