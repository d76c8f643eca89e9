//! The one binary: `sluice`, and `ipvsadm` as its second name.
//!
//! Assembles and nothing else: the daemon is in `director`, the demo and the benchmarks are in `lab`, the
//! classic command line is in `ipvsadm`.
// They panic when nobody reads any more, as in `sluice ... | head`: `show::write_out` and `runtime::tell` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod apply;
mod args;
mod capture;
mod doctor;
mod file;
mod flows;
mod generate;
mod health;
mod ipvsadm;
mod mark;
mod policy;
mod show;
mod top;

use args::{Args, Command};
use clap::Parser;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()).map(|name| name.to_os_string());
    if name.as_ref().is_some_and(|name| name.to_string_lossy().starts_with("ipvsadm")) {
        return ipvsadm::run(words);
    }
    // Before clap sees it: the classic tool has its own rules for every word.
    if words.get(1).is_some_and(|word| word == "ipvsadm") {
        return ipvsadm::run(words[1..].to_vec());
    }
    run(Args::parse())
}

fn run(args: Args) -> ExitCode {
    let code = |done: Result<ExitCode, file::FileError>| {
        done.unwrap_or_else(|error| {
            runtime::print_error(&error);
            ExitCode::FAILURE
        })
    };
    let done = match args.command {
        Command::Validate(options) => return code(file::validate(&options)),
        Command::Fmt(options) => return code(file::fmt(&options)),
        Command::Schema => return code(file::schema()),
        Command::Import(options) => return code(file::import(&options)),
        Command::Doctor(options) => return doctor::run(&options),
        Command::Director(options) => director::main(options),
        Command::Demo(options) => return lab::demo::main(options),
        Command::LabUdpEcho(options) => return lab::udp::main(&options),
        Command::Bench(options) => lab::bench::run(&options).map_err(Into::into),
        Command::Status(options) => show::status(&options).map_err(Into::into),
        Command::Sync(options) => show::sync(&options).map_err(Into::into),
        Command::Verdicts(options) => show::verdicts(&options).map_err(Into::into),
        Command::Explain(options) => show::explain(&options).map_err(Into::into),
        Command::Flows(options) => flows::run(&options).map_err(Into::into),
        Command::Capture(options) => capture::run(&options).map_err(Into::into),
        Command::Mark(options) => mark::run(&options).map_err(Into::into),
        Command::Policy(options) => policy::run(&options).map_err(Into::into),
        Command::Plan(options) => apply::plan(&options).map_err(Into::into),
        Command::Apply(options) => apply::apply(&options).map_err(Into::into),
        Command::Save(options) => apply::save(&options).map_err(Into::into),
        Command::Confirm(options) => apply::confirm(&options).map_err(Into::into),
        Command::Rollback(options) => apply::roll_back(&options).map_err(Into::into),
        Command::History(options) => apply::history(&options).map_err(Into::into),
        Command::Health(options) => health::show(&options).map_err(Into::into),
        Command::Metrics(options) => health::metrics(&options).map_err(Into::into),
        Command::Top(options) => top::run(&options).map_err(Into::into),
        Command::Events(options) => health::events(&options).map_err(Into::into),
        Command::Drain(options) => health::drain(&options, true).map_err(Into::into),
        Command::Undrain(options) => health::drain(&options, false).map_err(Into::into),
        Command::Set(options) => show::set(&options).map_err(Into::into),
        Command::Completions(options) => generate::completions(&options).map_err(Into::into),
        Command::Man(options) => generate::man(&options).map_err(Into::into),
        Command::Ipvsadm(_) => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            runtime::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
