//! Medians, and how they are shown.

use super::case::Case;
use super::error::BenchError;
use super::measure::Sample;
use super::rig::Rig;
use serde::Serialize;
use std::io::{self, Write};

const INSTRUCTION_BYTES: u32 = 8;

/// The figures of one case. Times are ns a packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// Median over the rounds.
    pub ns: f64,
    /// Fastest round.
    pub min: f64,
    /// Slowest round.
    pub max: f64,
    /// The median in multiples of that of `floor/tx`.
    pub ratio: f64,
    /// Median of what the harness took, which is in none of the others.
    pub harness_ns: f64,
    /// Length of the frame in bytes.
    pub frame_bytes: usize,
    /// Instructions, after the kernel's translation, of the director's programs that such a packet goes through. A
    /// static size: how many of them run is another number. 0 for the floors, which go through none.
    pub static_instructions: u32,
}

/// The size of one program under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRow {
    /// Name of the program.
    pub program: String,
    /// Instructions after the kernel's translation.
    pub instructions: u32,
    /// Instructions that the verifier walked through.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub machine_code_bytes: u32,
}

/// What a run found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Model of the CPU, as the kernel names it.
    pub cpu: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The CPU it ran on.
    pub cpu_number: usize,
    /// Rounds.
    pub rounds: u32,
    /// A row a case.
    pub rows: Vec<Row>,
    /// A row a program.
    pub programs: Vec<ProgramRow>,
}

/// Makes the report of what was measured.
pub(super) fn make(
    rig: &Rig,
    samples: &[Vec<Sample>],
    rounds: u32,
    cpu_number: usize,
) -> Result<Report, BenchError> {
    let column = |samples: &[Sample], of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
    let floor = rig.cases().iter().position(|prepared| prepared.case == Case::FloorTx);
    let floor = floor.and_then(|at| samples.get(at)).map_or(f64::NAN, |s| median(column(s, |s| s.ns)));
    let programs = rig.programs()?;
    let size_of = |case: &Case| -> u32 {
        let names: &[&str] = match case {
            Case::FloorTx | Case::FloorParse => &[],
            Case::New { .. } => &["director", "schedule"],
            _ => &["director"],
        };
        let on_path = programs.iter().filter(|program| names.contains(&program.name.as_str()));
        on_path.map(|program| program.translated_bytes / INSTRUCTION_BYTES).sum()
    };
    let row = |(prepared, samples): (&super::rig::Prepared, &Vec<Sample>)| {
        let all = column(samples, |sample| sample.ns);
        let ns = median(all.clone());
        Row {
            case: prepared.name.clone(),
            ns: rounded(ns),
            min: rounded(all.iter().copied().fold(f64::INFINITY, f64::min)),
            max: rounded(all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            ratio: rounded(ns / floor),
            harness_ns: rounded(median(column(samples, |sample| sample.harness_ns))),
            frame_bytes: prepared.frame.bytes.len(),
            static_instructions: size_of(&prepared.case),
        }
    };
    let program = |info: &kernel::ProgramInfo| ProgramRow {
        program: info.name.clone(),
        instructions: info.translated_bytes / INSTRUCTION_BYTES,
        verified_instructions: info.verified_instructions,
        machine_code_bytes: info.jited_bytes,
    };
    let uname = nix::sys::utsname::uname()
        .map_err(|error| BenchError::System { operation: "read the kernel's name", source: error.into() })?;
    Ok(Report {
        cpu: cpu_model(),
        kernel: uname.release().to_string_lossy().into_owned(),
        cpu_number,
        rounds,
        rows: rig.cases().iter().zip(samples).map(row).collect(),
        programs: programs.iter().map(program).collect(),
    })
}

impl Report {
    /// One JSON object a line, one for each case.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.rows {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
        }
        Ok(())
    }

    /// A table for people.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { cpu, kernel, cpu_number, rounds, .. } = self;
        writeln!(out, "{cpu}, CPU {cpu_number}, Linux {kernel}, {rounds} rounds; ns a packet")?;
        writeln!(out)?;
        writeln!(
            out,
            "{:<20} {:>8} {:>8} {:>8} {:>7} {:>8}",
            "case", "median", "min", "max", "ratio", "harness"
        )?;
        for row in &self.rows {
            let Row { case, ns, min, max, ratio, harness_ns, .. } = row;
            writeln!(out, "{case:<20} {ns:>8.1} {min:>8.1} {max:>8.1} {ratio:>7.2} {harness_ns:>8.1}")?;
        }
        writeln!(out)?;
        writeln!(
            out,
            "{:<20} {:>12} {:>12} {:>14}",
            "program", "instructions", "verified", "machine code B"
        )?;
        for row in &self.programs {
            let ProgramRow { program, instructions, verified_instructions, machine_code_bytes } = row;
            writeln!(
                out,
                "{program:<20} {instructions:>12} {verified_instructions:>12} {machine_code_bytes:>14}"
            )?;
        }
        Ok(())
    }
}

/// The middle of the values; the mean of the two middle ones of an even number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 }
}

/// Two places after the point: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| "unknown CPU".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_row_has_the_fields_of_the_issue() {
        let row = Row {
            case: "hit/v4/tcp/1".to_owned(),
            ns: 123.45,
            min: 120.0,
            max: 130.0,
            ratio: 4.41,
            harness_ns: 5.0,
            frame_bytes: 62,
            static_instructions: 2000,
        };
        let json = serde_json::to_value(&row).expect("plain data");
        for field in ["case", "ns", "min", "max", "ratio"] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
