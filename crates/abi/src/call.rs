//! The SIP call that a persistence template stands for.

use crate::Address;
use bytemuck::{Pod, Zeroable};

/// Longest Call-ID that is looked at, in bytes [`ip_vs.h`, `IP_VS_PEDATA_MAXLEN`].
pub const CALL_ID_BYTES_MAX: u32 = 255;
/// Bytes of a SIP message that the Call-ID is looked for in, and the one before it. RFC 3261 section 18.1.1 keeps messages
/// over UDP below the MTU.
pub const SIP_BYTES_MAX: u32 = 2048;

/// What a template keyed by a Call-ID says in listings; its key has but the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Call {
    /// Client address under the mask of the service.
    pub client: Address,
    /// Bytes of `text` that count.
    pub len: u32,
    /// The Call-ID.
    pub text: [u8; 256],
}

impl Default for Call {
    fn default() -> Self {
        Self { client: Address::default(), len: 0, text: [0; 256] }
    }
}

impl Call {
    /// The Call-ID.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.text.get(..self.len as usize).unwrap_or(&self.text)
    }
}

/// Where a program puts a SIP message while it looks for the Call-ID; per CPU, one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SipScratch {
    /// The last byte of the UDP header, and the message.
    pub message: [u8; SIP_BYTES_MAX as usize],
    /// The call as it will be stored.
    pub call: Call,
    /// What stands in the place of the client's address in the key of the call's template.
    pub hash: Address,
}

impl Default for SipScratch {
    fn default() -> Self {
        Self { message: [0; SIP_BYTES_MAX as usize], call: Call::default(), hash: Address::default() }
    }
}

const _: () = assert!(size_of::<Call>() == 276);
