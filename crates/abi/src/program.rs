//! The programs behind the entry, by their places in the tail-call table.

/// A program that another one hands a packet to. The entry serves the commonest case itself; one program for
/// everything would be more than the verifier of 6.1 takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Program {
    /// Places a packet of no known flow.
    Schedule = 0,
    /// Sends an ICMP error to the sender.
    Answer = 1,
    /// Translates a packet's destination and sends it to a masqueraded real server.
    Masquerade = 2,
    /// Translates what a masqueraded real server sends back.
    Reply = 3,
    /// Gives a new flow the director's own address and a port of its own as source.
    Source = 4,
    /// Translates an ICMP error about a packet of a translated flow, either way.
    Error = 5,
    /// Encapsulates a packet and sends it to a real server behind a tunnel.
    Tunnel = 6,
    /// Tells a client of an ICMP error that its packet met in a tunnel.
    Unwrap = 7,
    /// Serves pieces of fragmented datagrams.
    Fragment = 8,
    /// Serves packets that follow a flow which is not their own: ICMP errors, AH, ESP.
    Related = 9,
    /// Serves SCTP.
    Sctp = 10,
    /// Sends a TCP reset to a client whose real server is gone.
    Reset = 11,
    /// Sends a packet to the real server that was chosen for it, and tracks its flow.
    Track = 12,
    /// Reads the Call-ID of a SIP message.
    Call = 13,
    /// Places a packet of no known flow that goes to a persistent service.
    Persist = 14,
    /// Notes that a connection under a template was established, and sends its packet on.
    Assure = 15,
    /// Chooses a real server by its service's memory of destination addresses.
    Affinity = 16,
    /// Translates a later piece of what a masqueraded real server sends back.
    ReplyPiece = 17,
    /// Looks whether a client may open a flow to a service that does not serve everybody.
    Admit = 18,
}

/// Places of the tail-call table.
pub const PROGRAMS_MAX: u32 = 32;

impl Program {
    /// Every program behind the entry.
    pub const ALL: [Self; 19] = [
        Self::Schedule,
        Self::Answer,
        Self::Masquerade,
        Self::Reply,
        Self::Source,
        Self::Error,
        Self::Tunnel,
        Self::Unwrap,
        Self::Fragment,
        Self::Related,
        Self::Sctp,
        Self::Reset,
        Self::Track,
        Self::Call,
        Self::Persist,
        Self::Assure,
        Self::Affinity,
        Self::ReplyPiece,
        Self::Admit,
    ];

    /// Its place in the tail-call table.
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u32 {
        self as u32
    }

    /// Its name in the eBPF object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Answer => "answer",
            Self::Masquerade => "masquerade",
            Self::Reply => "reply",
            Self::Source => "source",
            Self::Error => "error",
            Self::Tunnel => "tunnel",
            Self::Unwrap => "unwrap",
            Self::Fragment => "fragment",
            Self::Related => "related",
            Self::Sctp => "sctp",
            Self::Reset => "reset",
            Self::Track => "track",
            Self::Call => "call",
            Self::Persist => "persist",
            Self::Assure => "assure",
            Self::Affinity => "affinity",
            Self::ReplyPiece => "reply_piece",
            Self::Admit => "admit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_place_of_its_own() {
        for pair in Program::ALL.windows(2) {
            assert!(pair[0].place() < pair[1].place());
        }
        assert!(Program::ALL.iter().all(|program| program.place() < PROGRAMS_MAX));
    }
}
