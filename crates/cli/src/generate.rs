//! Completions and man pages, made from the same definitions as the options.

use crate::args::{Args, CompletionsArgs, ManArgs};
use clap::CommandFactory;
use std::io;
use std::path::PathBuf;

/// A page could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write man pages to {}", folder.display())]
pub(crate) struct ManError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), io::Error> {
    clap_complete::generate(args.shell, &mut Args::command(), "sluice", &mut io::stdout());
    Ok(())
}

/// Writes `sluice.8` and one page for each command.
pub(crate) fn man(args: &ManArgs) -> Result<(), ManError> {
    let failed = |source| ManError { folder: args.folder.clone(), source };
    // `help` has no page of its own: it only prints the others.
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.folder).map_err(failed)?;
    Ok(())
}
