//! The director alone, without the rest of `sluice`: for its tests.

use clap::Parser;
use std::process::ExitCode;

/// The director.
#[derive(Parser)]
struct Words {
    #[command(flatten)]
    options: director::Options,
}

fn main() -> ExitCode {
    match director::main(Words::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            runtime::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
