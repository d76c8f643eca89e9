//! What can become of a packet.

/// The end of every packet. Numbers are stable and never used again; each has a counter in the per-CPU
/// verdict array, one sentence for the operator, and a case.
///
/// 0-15 forward, 16-31 pass to the host's own stack, 32-47 drop, 48-63 answer with an ICMP error or a TCP reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[must_use]
pub enum Verdict {
    /// Sent to the real server of a known flow.
    ForwardKnown = 0,
    /// Sent to a real server chosen now; the flow is tracked.
    ForwardNew = 1,
    /// Sent to the real server of a flow that could not be promoted.
    ForwardTableFull = 2,
    /// Sent to a real server by consistent hash, without a flow.
    ForwardStateless = 3,
    /// Left to the director's own stack, because the real server is the director itself.
    ForwardLocal = 4,
    /// A real server's packet, sent to the client in the name of the VIP.
    ForwardReply = 5,
    /// Sent to a real server chosen for this packet alone.
    ForwardOnePacket = 8,
    /// Sent to a real server chosen now and tracked, but its persistence template found no room.
    ForwardNoTemplate = 9,
    /// A repeated SYN, sent to another real server than the one that never got on with the connection.
    ForwardRescued = 10,
    /// An ICMP error, AH or ESP packet, sent to the real server of the flow it belongs to.
    ForwardRelated = 12,
    /// A later piece of a datagram, sent after its first one.
    ForwardFragment = 13,
    /// An ICMP error about a packet of the client, sent to the client.
    ForwardError = 14,

    /// Not IPv4 or IPv6.
    PassNotIp = 16,
    /// The destination is no VIP.
    PassNotVip = 17,
    /// The VIP has no service on this protocol and port.
    PassNoService = 18,
    /// A protocol that is not balanced, such as ICMP to the VIP.
    PassProtocol = 19,
    /// A TCP segment or SCTP packet that belongs to no flow and opens none.
    PassNoFlow = 20,
    /// A later piece of a datagram whose first one was left to the host.
    PassFragment = 21,
    /// A broadcast or multicast frame.
    PassGroup = 22,
    /// More VLAN tags or extension headers than the parser follows.
    PassTooDeep = 24,
    /// A packet of a masqueraded real server that belongs to no flow.
    PassNoReply = 25,
    /// A packet from port 20, FTP's data port, of no known flow.
    PassFtpData = 26,
    /// An ICMP error, AH or ESP packet that belongs to no flow.
    PassUnrelated = 28,
    /// A later piece of a datagram whose first one was not seen.
    PassFragmentLost = 29,
    /// Its service by mark has no real server for it, and it is left to go where it was to go (`cache_bypass`).
    PassBypass = 30,

    /// The frame ends inside a header.
    DropTruncated = 32,
    /// A length field contradicts the frame or another field.
    DropBadLength = 33,
    /// Addresses that must not be on the wire.
    DropBadAddress = 34,
    /// An ICMP answer was due, but not about such a packet.
    DropUnanswered = 35,
    /// The flow's real server was deleted.
    DropRealGone = 36,
    /// The real server's hardware address is not known yet.
    DropUnresolved = 37,
    /// A table index pointed nowhere: a defect, please report.
    DropInternal = 38,
    /// The flow could not be stored.
    DropFlowTable = 39,
    /// The real server's forwarding method is not served by this program.
    DropMethod = 40,
    /// An ICMP answer was due but the limit of answers a second is reached.
    DropAnswerLimit = 41,
    /// The routing table forbids the way of a reply.
    DropNoRoute = 42,
    /// No port was free for the translated source of a flow.
    DropNoPort = 43,
    /// It would have opened a flow, and every so many-th of these is dropped (`drop_packet`).
    DropRate = 44,
    /// A first piece too short for its transport header, or a later one that would overwrite it.
    DropTinyFragment = 45,
    /// A service that is persistent by Call-ID got a packet without one.
    DropNoCallId = 46,
    /// The way to the real server is too narrow for its tunnel, or there is no address to send from.
    DropTunnel = 47,

    /// TTL or hop limit used up: answered with ICMP time exceeded.
    AnswerTimeExceeded = 48,
    /// The service has no real server that may take a new flow: answered with ICMP port unreachable.
    AnswerPortUnreachable = 49,
    /// Longer than the way to the real server allows: answered with ICMP fragmentation needed or packet too big.
    AnswerTooBig = 50,
    /// The flow's real server was deleted: answered with a TCP reset.
    AnswerReset = 52,
    /// The service does not serve this client.
    DropDenied = 56,
    /// The client opens more flows a second than the service lets it.
    DropClientRate = 57,
    /// The client has as many connections as the service lets it have.
    DropClientConnections = 58,
}

/// Size of the verdict counter array; a power of two, so that an index can be masked.
pub const VERDICTS_MAX: u32 = 64;

/// [`Verdict::is_forward`] of a verdict's number.
#[inline(always)]
#[must_use]
pub const fn is_forward(number: u32) -> bool {
    number < 16
}

/// [`Verdict::is_pass`] of a verdict's number.
#[inline(always)]
#[must_use]
pub const fn is_pass(number: u32) -> bool {
    number >= 16 && number < 32
}

/// [`Verdict::is_answer`] of a verdict's number.
#[inline(always)]
#[must_use]
pub const fn is_answer(number: u32) -> bool {
    number >= 48 && number < 56
}

impl Verdict {
    /// Every verdict, by number.
    pub const ALL: [Self; 48] = [
        Self::ForwardKnown,
        Self::ForwardNew,
        Self::ForwardTableFull,
        Self::ForwardStateless,
        Self::ForwardLocal,
        Self::ForwardReply,
        Self::ForwardOnePacket,
        Self::ForwardNoTemplate,
        Self::ForwardRescued,
        Self::ForwardRelated,
        Self::ForwardFragment,
        Self::ForwardError,
        Self::PassNotIp,
        Self::PassNotVip,
        Self::PassNoService,
        Self::PassProtocol,
        Self::PassNoFlow,
        Self::PassFragment,
        Self::PassGroup,
        Self::PassTooDeep,
        Self::PassNoReply,
        Self::PassFtpData,
        Self::PassUnrelated,
        Self::PassFragmentLost,
        Self::PassBypass,
        Self::DropTruncated,
        Self::DropBadLength,
        Self::DropBadAddress,
        Self::DropUnanswered,
        Self::DropRealGone,
        Self::DropUnresolved,
        Self::DropInternal,
        Self::DropFlowTable,
        Self::DropMethod,
        Self::DropAnswerLimit,
        Self::DropNoRoute,
        Self::DropNoPort,
        Self::DropRate,
        Self::DropTinyFragment,
        Self::DropNoCallId,
        Self::DropTunnel,
        Self::AnswerTimeExceeded,
        Self::AnswerPortUnreachable,
        Self::AnswerTooBig,
        Self::AnswerReset,
        Self::DropDenied,
        Self::DropClientRate,
        Self::DropClientConnections,
    ];

    /// The stable number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the packet goes to a real server.
    #[inline(always)]
    #[must_use]
    pub const fn is_forward(self) -> bool {
        is_forward(self.number())
    }

    /// Whether it is sent to a real server, stays in its statistics, and has a counter of its own: of those that stay,
    /// [`Self::ForwardKnown`] is what these leave over.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted_forward(self) -> bool {
        matches!(
            self,
            Self::ForwardNew
                | Self::ForwardTableFull
                | Self::ForwardStateless
                | Self::ForwardOnePacket
                | Self::ForwardNoTemplate
                | Self::ForwardRescued
                | Self::ForwardRelated
                | Self::ForwardFragment
        )
    }

    /// The verdict of a packet that is sent on, by its number, as one program notes it for the next; a number that is none of
    /// these reads as [`Self::ForwardStateless`].
    #[inline(always)]
    pub const fn of_forward(number: u8) -> Self {
        const KNOWN: u8 = Verdict::ForwardKnown as u8;
        const NEW: u8 = Verdict::ForwardNew as u8;
        const TABLE_FULL: u8 = Verdict::ForwardTableFull as u8;
        const ONE_PACKET: u8 = Verdict::ForwardOnePacket as u8;
        const NO_TEMPLATE: u8 = Verdict::ForwardNoTemplate as u8;
        const RESCUED: u8 = Verdict::ForwardRescued as u8;
        const RELATED: u8 = Verdict::ForwardRelated as u8;
        const FRAGMENT: u8 = Verdict::ForwardFragment as u8;
        match number {
            KNOWN => Self::ForwardKnown,
            NEW => Self::ForwardNew,
            TABLE_FULL => Self::ForwardTableFull,
            ONE_PACKET => Self::ForwardOnePacket,
            NO_TEMPLATE => Self::ForwardNoTemplate,
            RESCUED => Self::ForwardRescued,
            RELATED => Self::ForwardRelated,
            FRAGMENT => Self::ForwardFragment,
            _ => Self::ForwardStateless,
        }
    }

    /// Whether the packet goes up the host's own stack.
    #[inline(always)]
    #[must_use]
    pub const fn is_pass(self) -> bool {
        is_pass(self.number())
    }

    /// Whether an ICMP error or a TCP reset goes back to the client.
    #[inline(always)]
    #[must_use]
    pub const fn is_answer(self) -> bool {
        is_answer(self.number())
    }

    /// The stable name, as metrics and cases write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForwardKnown => "forward_known",
            Self::ForwardNew => "forward_new",
            Self::ForwardTableFull => "forward_table_full",
            Self::ForwardStateless => "forward_stateless",
            Self::ForwardLocal => "forward_local",
            Self::ForwardReply => "forward_reply",
            Self::ForwardRescued => "forward_rescued",
            Self::ForwardOnePacket => "forward_one_packet",
            Self::ForwardNoTemplate => "forward_no_template",
            Self::ForwardRelated => "forward_related",
            Self::ForwardFragment => "forward_fragment",
            Self::ForwardError => "forward_error",
            Self::PassNotIp => "pass_not_ip",
            Self::PassNotVip => "pass_not_vip",
            Self::PassNoService => "pass_no_service",
            Self::PassProtocol => "pass_protocol",
            Self::PassNoFlow => "pass_no_flow",
            Self::PassFragment => "pass_fragment",
            Self::PassGroup => "pass_group",
            Self::PassTooDeep => "pass_too_deep",
            Self::PassNoReply => "pass_no_reply",
            Self::PassFtpData => "pass_ftp_data",
            Self::PassUnrelated => "pass_unrelated",
            Self::PassFragmentLost => "pass_fragment_lost",
            Self::PassBypass => "pass_bypass",
            Self::DropTruncated => "drop_truncated",
            Self::DropBadLength => "drop_bad_length",
            Self::DropBadAddress => "drop_bad_address",
            Self::DropRealGone => "drop_real_gone",
            Self::DropUnresolved => "drop_unresolved",
            Self::DropInternal => "drop_internal",
            Self::DropFlowTable => "drop_flow_table",
            Self::DropMethod => "drop_method",
            Self::DropAnswerLimit => "drop_answer_limit",
            Self::DropNoRoute => "drop_no_route",
            Self::DropNoPort => "drop_no_port",
            Self::DropTinyFragment => "drop_tiny_fragment",
            Self::DropUnanswered => "drop_unanswered",
            Self::DropTunnel => "drop_tunnel",
            Self::DropNoCallId => "drop_no_call_id",
            Self::AnswerTimeExceeded => "answer_time_exceeded",
            Self::AnswerPortUnreachable => "answer_port_unreachable",
            Self::AnswerTooBig => "answer_too_big",
            Self::DropRate => "drop_rate",
            Self::AnswerReset => "answer_reset",
            Self::DropDenied => "drop_denied",
            Self::DropClientRate => "drop_client_rate",
            Self::DropClientConnections => "drop_client_connections",
        }
    }

    /// The sentence of a verdict on a client.
    const fn client_sentence(self) -> &'static str {
        match self {
            Self::DropClientRate => {
                "the client opens more flows a second than the service's `rate_per_client' lets it"
            }
            Self::DropClientConnections => {
                "the client has as many connections as the service's `connections_per_client' lets it have"
            }
            _ => "the service does not serve this client: see its `allow' and `deny'",
        }
    }

    /// One sentence for the operator.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ForwardKnown => "sent to the real server of a known flow",
            Self::ForwardNew => "sent to a real server chosen by the scheduler; the flow is now tracked",
            Self::ForwardTableFull => "sent on, but the established table is full: the flow may be evicted",
            Self::ForwardStateless => {
                "sent by consistent hash without a flow, as the established table is full"
            }
            Self::ForwardLocal => "the real server is the director itself: left to its own stack",
            Self::ForwardOnePacket => "sent to a real server chosen for this packet alone, untracked",
            Self::ForwardNoTemplate => {
                "sent to a real server chosen by the scheduler and tracked, but there was no room for its template"
            }
            Self::ForwardRescued => {
                "a repeated SYN whose real server never got on: sent to another one; the flow is now tracked"
            }
            Self::ForwardReply => "a real server's reply: sent to the client in the name of the VIP",
            Self::ForwardRelated => "an ICMP error, AH or ESP packet: sent to the real server of its flow",
            Self::ForwardFragment => "a fragment: sent to the real server of the datagram's first one",
            Self::ForwardError => "an ICMP error about a packet of the client: sent to the client",
            Self::PassNotIp => "neither IPv4 nor IPv6: left to the host",
            Self::PassNotVip => "the destination is no VIP: left to the host",
            Self::PassNoService => "the VIP has no service on this protocol and port: left to the host",
            Self::PassProtocol => "a protocol that is not balanced: left to the host",
            Self::PassNoFlow => {
                "a TCP segment or SCTP packet of no known flow that opens none: left to the host, which answers"
            }
            Self::PassFragment => "a fragment whose first one was left to the host: left to the host",
            Self::PassGroup => "a broadcast or multicast frame: left to the host",
            Self::PassTooDeep => "more VLAN tags or extension headers than are followed: left to the host",
            Self::PassNoReply => "from a masqueraded real server, but of no flow: left to the host",
            Self::PassFtpData => "from port 20, FTP's data port, which never opens a flow: left to the host",
            Self::PassUnrelated => "an ICMP error, AH or ESP packet of no flow: left to the host",
            Self::PassBypass => "no real server for its mark: left to the host, to go where it was to go",
            Self::PassFragmentLost => "a fragment whose first one was not seen: left to the host, and lost",
            Self::DropTruncated => "the frame ends inside a header",
            Self::DropBadLength => "a length field contradicts the frame",
            Self::DropBadAddress => "an address that must not be on the wire",
            Self::DropRealGone => "the flow's real server was deleted",
            Self::DropUnresolved => "the real server's hardware address is not known yet",
            Self::DropInternal => "a table index pointed nowhere: this is a defect, please report it",
            Self::DropFlowTable => "the flow could not be stored",
            Self::DropMethod => "the real server's forwarding method does not serve such a packet",
            Self::DropAnswerLimit => "an ICMP answer was due, but the limit of answers a second is reached",
            Self::DropTinyFragment => {
                "a first fragment too short for its transport header, or a later one that would overwrite it"
            }
            Self::DropUnanswered => "an ICMP answer was due, but not about an ICMP error or a later fragment",
            Self::DropTunnel => {
                "the way to the real server is too narrow for its tunnel, or the director has no address on it"
            }
            Self::DropRate => "it would have opened a flow, and drop_packet drops some of these",
            Self::DropNoRoute => "the routing table forbids the way of a real server's reply to the client",
            Self::DropNoPort => {
                "no free port was found for the translated source: too many flows to one real server"
            }
            Self::DropNoCallId => "the service is persistent by the Call-ID of SIP, and the packet has none",
            Self::AnswerTimeExceeded => "TTL or hop limit used up: answered with ICMP time exceeded",
            Self::AnswerPortUnreachable => {
                "the service has no real server that may take a new flow: answered with ICMP port unreachable"
            }
            Self::AnswerTooBig => {
                "longer than the way to the real server allows: answered with ICMP fragmentation needed or packet too big"
            }
            Self::AnswerReset => "the flow's real server was deleted: the client got a TCP reset",
            Self::DropDenied | Self::DropClientRate | Self::DropClientConnections => self.client_sentence(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_verdict_is_read_back() {
        let noted =
            Verdict::ALL.into_iter().filter(|v| v.is_counted_forward() || *v == Verdict::ForwardKnown);
        for verdict in noted {
            assert_eq!(Verdict::of_forward(verdict as u8), verdict);
        }
    }

    #[test]
    fn numbers_are_in_order_and_fit_the_counter_array() {
        for pair in Verdict::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
        }
        assert!(Verdict::ALL.iter().all(|v| v.number() < VERDICTS_MAX));
    }
}
