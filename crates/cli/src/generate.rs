//! Completions and man pages, made from the same definitions as the options.

use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::show::{ShowError, write_out};
use clap::CommandFactory;
use clap_mangen::roff::{Roff, roman};
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
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), ShowError> {
    // Not straight to standard output: it panics where that cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "sluice", &mut script);
    write_out(&String::from_utf8_lossy(&script)).map_err(ShowError::Print)
}

/// Writes `sluice.8`, one page for each command, and those of the classic tool's names.
pub(crate) fn man(args: &ManArgs) -> Result<(), ManError> {
    // `help` has no page of its own: it only prints the others.
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &args.folder)
        .and_then(|()| classic_pages(&args.folder))
        .map_err(|source| ManError { folder: args.folder.clone(), source })
}

/// The page of `ipvsadm`, which is its help text, and two more names for it.
fn classic_pages(folder: &Path) -> Result<(), io::Error> {
    let lines = |text: &str| text.lines().map(|line| [roman(line.to_owned())]).collect::<Vec<_>>();
    let mut page = Roff::new();
    page.control("TH", ["ipvsadm", "8"]).control("SH", ["NAME"]);
    page.text([roman(
        "ipvsadm, ipvsadm-save, ipvsadm-restore - the classic commands, for the director of Sluice",
    )]);
    page.control("SH", ["DESCRIPTION"]).control("nf", []);
    for line in lines(&crate::ipvsadm::help()) {
        page.text(line);
    }
    page.control("fi", []).control("SH", ["FILES"]);
    page.text([roman(format!(
        "{}: the director's control socket, or the one that SLUICE_SOCKET names.",
        api::DEFAULT_SOCKET_PATH
    ))]);
    page.control("SH", ["SEE ALSO"])
        .text([roman("sluice(8), sluice-director(8), sluice-policy(8), sluice-set(8)")]);
    std::fs::write(folder.join("ipvsadm.8"), page.render())?;
    for name in ["ipvsadm-save.8", "ipvsadm-restore.8"] {
        std::fs::write(folder.join(name), ".so man8/ipvsadm.8\n")?;
    }
    Ok(())
}

/// One page for the command and, commands being nested two deep at most, one for each below it.
fn pages(command: &clap::Command, folder: &Path) -> Result<(), io::Error> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, folder)?;
    }
    clap_mangen::Man::new(command.clone()).section("8").generate_to(folder)?;
    Ok(())
}
