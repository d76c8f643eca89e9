//! Packet access: the core's `Bytes` over the packet pointers of XDP.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use wire::{Bytes, Short};

/// Largest offset that is looked at: the verifier follows packet offsets up to 65,535, and no frame is longer.
const OFFSET_MAX: usize = 0xff00;

/// The frame of one program run.
pub struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

impl Frame {
    /// The frame of this run.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx, data: ctx.data(), end: ctx.data_end() }
    }

    /// Index of the interface it came by.
    #[inline(always)]
    pub fn ingress(ctx: &XdpContext) -> u32 {
        // SAFETY: the kernel gives the program a valid context for its whole run.
        unsafe { (*ctx.ctx).ingress_ifindex }
    }

    /// The checked address of `N` bytes at `offset`.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Result<*mut [u8; N], Short> {
        if offset > OFFSET_MAX {
            return Err(Short);
        }
        let start = self.data + offset;
        // The verifier wants pointer against end, so no subtraction here.
        if start + N > self.end { Err(Short) } else { Ok(start as *mut [u8; N]) }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        let at = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that the N bytes lie inside the frame; an array of bytes has no alignment.
        Ok(unsafe { *at })
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Result<(), Short> {
        let at = self.at::<N>(offset)?;
        // SAFETY: as for `get`; the frame is this program's alone while it runs.
        unsafe { *at = value };
        Ok(())
    }

    #[inline(always)]
    fn put_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Result<(), Short> {
        if offset > OFFSET_MAX {
            return Err(Short);
        }
        let start = self.data + offset;
        if start + 4 * N > self.end {
            return Err(Short);
        }
        let mut at = start as *mut u32;
        for word in words {
            // SAFETY: all words lie inside the frame, as was just checked. The write is not aligned.
            unsafe {
                at.write_unaligned(word);
                at = at.add(1);
            }
        }
        Ok(())
    }
}

impl forward::Resize for Frame {
    #[inline(always)]
    fn resize(self, len: usize, front: usize) -> Result<Self, (Short, Self)> {
        let have = self.end - self.data;
        let tail = len as i32 - have as i32;
        // SAFETY: both take the program's own context and plain numbers. Packet pointers taken before are
        // dead afterwards, which is why `self` was moved in and a fresh view goes out.
        let failed = unsafe {
            bpf_xdp_adjust_tail(self.ctx, tail) != 0 || bpf_xdp_adjust_head(self.ctx, -(front as i32)) != 0
        };
        let fresh = Self::new(&XdpContext::new(self.ctx));
        if failed { Err((Short, fresh)) } else { Ok(fresh) }
    }
}
