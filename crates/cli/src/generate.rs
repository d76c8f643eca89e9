//! Completions and man pages, made from the same definitions as the options.

use crate::args::{Args, CompletionsArgs, ManArgs};
use clap::CommandFactory;
use std::io;
use std::path::{Path, PathBuf};

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
    // `help` has no page of its own: it only prints the others.
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &args.folder).map_err(|source| ManError { folder: args.folder.clone(), source })
}

/// One page for the command and, commands being nested two deep at most, one for each below it.
fn pages(command: &clap::Command, folder: &Path) -> Result<(), io::Error> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, folder)?;
    }
    clap_mangen::Man::new(command.clone()).section("8").generate_to(folder)?;
    Ok(())
}
