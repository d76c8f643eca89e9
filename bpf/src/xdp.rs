//! Packet access: the core's `Bytes` over the packet pointers of XDP.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{
    bpf_loop, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;
use core::ffi::c_void;
use wire::{Bytes, Short};

/// Largest offset that is looked at: the verifier follows packet offsets up to 65,535, and no frame is longer.
const OFFSET_MAX: usize = 0xff00;

/// Bytes that are added up at a time.
const CHUNK: usize = 64;

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

    /// Length of the whole frame, of which a jumbo frame has only the beginning between `data` and `end`.
    #[inline(always)]
    fn whole_len(&self) -> usize {
        // SAFETY: takes the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
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
    fn holds(&self, len: usize) -> bool {
        // The helper is called for jumbo frames only, and for frames that are cut short.
        len <= self.len() || len <= self.whole_len()
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the kernel gives the program a valid context for its whole run.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        let at = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that the N bytes lie inside the frame; an array of bytes has no alignment.
        Ok(unsafe { *at })
    }

    #[inline(always)]
    fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), Short> {
        let (place, len) = (out.as_mut_ptr().cast::<c_void>(), out.len() as u32);
        // SAFETY: the program's own context, and as many bytes as the slice has room for.
        let failed = unsafe { bpf_xdp_load_bytes(self.ctx, offset as u32, place, len) };
        if failed < 0 { Err(Short) } else { Ok(()) }
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
        let tail = len as i32 - self.whole_len() as i32;
        // SAFETY: both take the program's own context and plain numbers. Packet pointers taken before are
        // dead afterwards, which is why `self` was moved in and a fresh view goes out.
        let failed = unsafe {
            (tail != 0 && bpf_xdp_adjust_tail(self.ctx, tail) != 0)
                || bpf_xdp_adjust_head(self.ctx, -(front as i32)) != 0
        };
        let fresh = Self::new(&XdpContext::new(self.ctx));
        if failed { Err((Short, fresh)) } else { Ok(fresh) }
    }

    #[inline(always)]
    fn cut_front(self, len: usize) -> Result<Self, (Short, Self)> {
        // SAFETY: as for `resize`.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, len as i32) != 0 };
        let fresh = Self::new(&XdpContext::new(self.ctx));
        if failed { Err((Short, fresh)) } else { Ok(fresh) }
    }

    #[inline(always)]
    fn sum(&self, offset: usize, len: usize) -> Result<u16, Short> {
        let mut sum = Sum { ctx: self.ctx, at: offset as u32, left: len as u32, words: 0 };
        let chunks = len.div_ceil(CHUNK) as u32;
        // SAFETY: the kernel calls `add_chunk` only before `bpf_loop` returns, so `sum` outlives it.
        unsafe { bpf_loop(chunks, add_chunk as *mut c_void, (&raw mut sum).cast(), 0) };
        if sum.left != 0 {
            return Err(Short);
        }
        let words = (sum.words & 0xffff_ffff) + (sum.words >> 32);
        let words = (words & 0xffff) + ((words >> 16) & 0xffff) + (words >> 32);
        // The words were added up as they stand in the packet: RFC 1071 section 2 (B).
        Ok(wire::checksum::fold(words as u32).swap_bytes())
    }
}

/// Words that are being added up.
struct Sum {
    ctx: *mut xdp_md,
    at: u32,
    left: u32,
    words: u64,
}

/// What the kernel calls for each chunk of a sum, the last of which may be shorter: 0 goes on, 1 stops.
#[inline(never)]
extern "C" fn add_chunk(_index: u64, sum: *mut c_void) -> i64 {
    // SAFETY: `sum` above passes a pointer to a value of this type.
    let sum = unsafe { &mut *sum.cast::<Sum>() };
    if sum.at as usize > OFFSET_MAX {
        return 1;
    }
    let mut chunk = [0_u64; CHUNK / 8];
    // Never 0, which the verifier of 6.1 would not see from a comparison.
    let len = if sum.left >= CHUNK as u32 {
        CHUNK as u32
    } else {
        (sum.left.wrapping_sub(1) & (CHUNK as u32 - 1)) + 1
    };
    // SAFETY: the program's own context, and a buffer of at least `len` bytes.
    if unsafe { bpf_xdp_load_bytes(sum.ctx, sum.at, chunk.as_mut_ptr().cast(), len) } != 0 {
        return 1;
    }
    for word in chunk {
        sum.words += (word & 0xffff_ffff) + (word >> 32);
    }
    sum.at += len;
    sum.left = sum.left.saturating_sub(len);
    0
}
