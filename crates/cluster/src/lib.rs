//! The cluster file: one TOML file that describes directors, servers, services and all that belongs to them.
//!
//! ```text
//! text -> parse -> File -> resolve -> Cluster -> changes -> (plan::difference, director)
//! Model -> render -> text            Model + the file applied last -> save -> text
//! other programs' files -> import -> text
//! ```
//!
//! Everything wrong with a file is found at once, each thing with its place. The rules are those of [`plan::Model`];
//! this crate adds only what a file has and the model has not: names, templates, clusters, places.
//!
//! Deliberately absent: reading and writing of files, and what is running (`plan::difference` compares with it).
#![forbid(unsafe_code)]

mod check_table;
mod file;
mod finding;
mod format;
mod import;
mod read;
mod render;
mod resolve;
mod save;
mod schema;
mod settings;
mod values;

/// Bytes of a file at most.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// The bytes of a file as text.
///
/// # Errors
/// They are too many, or no UTF-8: the text before the first wrong byte, and the finding.
pub fn decode(bytes: &[u8]) -> Result<&str, (&str, Finding)> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file is too large: at most {} MiB", FILE_BYTES_MAX >> 20);
        return Err(("", Finding::error(0..0, message)));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, rest) = bytes.split_at(error.valid_up_to());
        let byte = rest.first().copied().unwrap_or_default();
        let message = format!("byte 0x{byte:02x} is no UTF-8: save the file as UTF-8");
        let good = std::str::from_utf8(good).unwrap_or_default();
        (good, Finding::error(good.len()..good.len(), message))
    })
}

pub use finding::{FINDINGS_MAX, Finding, Lines, Place, Severity};
pub use format::format;
pub use import::{Format, Import, Left, Names, import};
pub use render::{Hints, render};
pub use resolve::{Cluster, DeclaredDirector, Parsed, parse};
pub use save::save;
pub use schema::{reference, schema};
