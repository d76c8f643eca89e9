//! Any text as the file of each program that can be imported: what comes out is a good cluster file.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/cluster/tests/laws/mod.rs"]
mod laws;

fuzz_target!(|text: &str| {
    if let Err(problem) = laws::check_import(text) {
        panic!("{problem}");
    }
});
