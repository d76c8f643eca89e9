//! The kernel's routing table and neighbours, for replies.

use abi::{Address, FlowKey};
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LKUP_RET_UNREACHABLE, bpf_fib_lookup as Question,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use core::ffi::c_void;
use forward::Route;

/// Address families as the kernel numbers them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Where a packet with these ends would be forwarded to, had it come by `ingress`. Rules by source address apply. The
/// length of the packet is not asked about.
#[inline(always)]
pub fn look_up(ctx: *mut c_void, ingress: u32, ends: &FlowKey) -> Route {
    // SAFETY: plain numbers and unions of such, for which all zeroes is a value.
    let mut question: Question = unsafe { core::mem::zeroed() };
    let (Address(source), Address(destination)) = (ends.client, ends.virtual_address);
    question.ifindex = ingress;
    question.l4_protocol = ends.protocol as u8;
    question.sport = ends.client_port_be;
    question.dport = ends.virtual_port_be;
    if ends.virtual_address.is_v4() {
        question.family = AF_INET;
        question.__bindgen_anon_3.ipv4_src = source[3];
        question.__bindgen_anon_4.ipv4_dst = destination[3];
    } else {
        question.family = AF_INET6;
        question.__bindgen_anon_3.ipv6_src = source;
        question.__bindgen_anon_4.ipv6_dst = destination;
    }
    // SAFETY: the context of this run, and a structure of the size said that lives during the call.
    let answer = unsafe { bpf_fib_lookup(ctx, &raw mut question, size_of::<Question>() as i32, 0) };
    match u32::try_from(answer) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => Route::Known { ifindex: question.ifindex, macs: macs(&question) },
        Ok(BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT) => {
            Route::Refused
        }
        _ => Route::Unknown,
    }
}

/// The first twelve bytes of the frame. The addresses stand two bytes off a word, and the compiler would read them in
/// words that the verifier refuses; volatile reads are taken as they are.
#[inline(always)]
fn macs(answer: &Question) -> [u32; 3] {
    let (source, destination) = (answer.smac.as_ptr().cast::<u16>(), answer.dmac.as_ptr().cast::<u16>());
    // SAFETY: three halves of six bytes each, at even offsets (52 and 58) of an aligned structure.
    let half = |from: *const u16, i: usize| unsafe { u32::from(from.add(i).read_volatile().to_le()) };
    let word = |low: u32, high: u32| u32::from_le(low | high << 16);
    [
        word(half(destination, 0), half(destination, 1)),
        word(half(destination, 2), half(source, 0)),
        word(half(source, 1), half(source, 2)),
    ]
}
