//! Another build of this program: the eBPF programs in it have other instructions, and do the same.
//!
//! Building again with another compiler would take minutes. `if a == b` may as well be `if b == a`: in each program of the
//! object one such comparison of two registers is turned round, which is enough to make it another program to the kernel.

use super::{UpgradeError, io_failed};
use object::{Object, ObjectSection, SectionKind};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const INSTRUCTION_BYTES: usize = 8;
/// Comparisons of two registers for being equal or not, of 64 and 32 bits [linux/bpf.h, bpf_common.h].
const SYMMETRIC: [u8; 4] = [0x1d, 0x5d, 0x1e, 0x5e];
/// A constant of 64 bits: it takes two places.
const LOAD_IMMEDIATE: u8 = 0x18;
/// Where an object may begin in a file: it is aligned at least so in memory, and pages are alike in both.
const ALIGNMENT: usize = 8;

/// Writes another build of the program `own` to `path`.
pub(super) fn write(own: &Path, path: &Path) -> Result<(), UpgradeError> {
    let odd = |reason: String| UpgradeError::OtherBuild { program: own.to_owned(), reason };
    let mut bytes = std::fs::read(own).map_err(io_failed("read this program"))?;
    let object = kernel::object();
    let changed = turn_round(object).map_err(odd)?;
    let start = (0..bytes.len()).step_by(ALIGNMENT).find(|at| bytes[*at..].starts_with(object));
    let start = start.ok_or_else(|| odd("it does not hold its eBPF object".to_owned()))?;
    bytes[start..start + object.len()].copy_from_slice(&changed);
    std::fs::write(path, bytes).map_err(io_failed("write another build of this program"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(io_failed("make another build of this program executable"))
}

/// The object with a comparison turned round in each section of code that has one.
fn turn_round(object: &[u8]) -> Result<Vec<u8>, String> {
    let file = object::File::parse(object).map_err(|error| error.to_string())?;
    let code = file.sections().filter(|section| section.kind() == SectionKind::Text);
    let ranges: Vec<Range<usize>> = code
        .filter_map(|section| section.file_range())
        .filter_map(|(start, length)| {
            let start = usize::try_from(start).ok()?;
            Some(start..start + usize::try_from(length).ok()?)
        })
        .collect();
    let mut changed = object.to_vec();
    let turned = ranges.into_iter().filter_map(|range| turn_first(changed.get_mut(range)?)).count();
    if turned == 0 {
        return Err("no comparison of two registers was found in its eBPF object".to_owned());
    }
    Ok(changed)
}

/// Turns the first comparison round. The second byte of an instruction holds its two registers.
fn turn_first(code: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some([operation, registers, ..]) = code.get_mut(at..at + INSTRUCTION_BYTES) {
        let (first, second) = (*registers & 0xf, *registers >> 4);
        if SYMMETRIC.contains(operation) && first != second {
            *registers = first << 4 | second;
            return Some(());
        }
        at += INSTRUCTION_BYTES * if *operation == LOAD_IMMEDIATE { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_symmetric_comparison_is_turned_round_and_nothing_else() {
        let mut code = [
            [0x18, 0x01, 0, 0, 0x1d, 0x21, 0, 0],
            // The second place of the constant, which looks like a comparison.
            [0x1d, 0x21, 0, 0, 0, 0, 0, 0],
            // A register with itself, and one that is greater.
            [0x1d, 0x11, 0, 0, 0, 0, 0, 0],
            [0x2d, 0x21, 0, 0, 0, 0, 0, 0],
            [0x5d, 0x73, 4, 0, 0, 0, 0, 0],
            [0x5d, 0x73, 4, 0, 0, 0, 0, 0],
        ]
        .concat();
        let before = code.clone();
        assert_eq!(turn_first(&mut code), Some(()));
        let changed: Vec<usize> = (0..code.len()).filter(|at| code[*at] != before[*at]).collect();
        assert_eq!((changed, code[33]), (vec![33], 0x37));
        assert_eq!(turn_first(&mut code[..32]), None);
    }

    #[test]
    fn the_object_differs_in_few_bytes() {
        let (object, changed) = (kernel::object(), turn_round(kernel::object()).expect("another object"));
        let differences = object.iter().zip(&changed).filter(|(a, b)| a != b).count();
        assert!((1..=64).contains(&differences) && object.len() == changed.len(), "{differences}");
    }
}
