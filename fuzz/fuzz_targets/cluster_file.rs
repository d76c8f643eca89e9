//! Any bytes as a cluster file: they are read or refused with findings inside the text, and what is good stays the same
//! through `fmt` and `save`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/cluster/tests/laws/mod.rs"]
mod laws;

fuzz_target!(|bytes: &[u8]| {
    if let Err(problem) = laws::check_file(bytes) {
        panic!("{problem}");
    }
});
