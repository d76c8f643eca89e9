//! Makes the Debian package: lays out what goes into it in `target/package`, then `cargo deb`.
//!
//! What is in it, and where, stands in `crates/cli/Cargo.toml`; its scripts and the unit are in `packaging/debian`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program to package [default: target/release/sluice]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the package goes [default: target/debian]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Version of the package, instead of the workspace's with -1
    #[arg(long, value_name = "VERSION")]
    deb_version: Option<String>,
    /// Compress less: for tests
    #[arg(long)]
    fast: bool,
}

/// Makes the package and prints where it is.
///
/// # Errors
/// A program is missing or failed; the message names it.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let target = root.join("target");
    let binary = options.binary.clone().unwrap_or_else(|| target.join("release/sluice"));
    if !binary.is_file() {
        bail!("there is no program {}: run `./dev build` first, or name one with --binary", binary.display());
    }
    let output = options.output.clone().unwrap_or_else(|| target.join("debian"));
    let stage = target.join("package");
    lay_out(&binary, &stage)?;
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;

    let mut deb = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    deb.current_dir(root).args(["deb", "--quiet", "--no-build", "--no-strip", "--offline", "--locked"]);
    deb.args(["--package", "sluice-cli", "--output"]).arg(&output);
    if options.fast {
        deb.arg("--fast");
    }
    if let Some(version) = &options.deb_version {
        deb.args(["--deb-version", version]);
    }
    // It prints the package's name.
    succeed(&mut deb).context("no package was made; cargo-deb is installed by `./dev setup package`")?;
    std::fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))
}

/// Puts the program without its debug information, the man pages and the completions it makes, into an empty directory.
fn lay_out(binary: &Path, stage: &Path) -> anyhow::Result<()> {
    if stage.exists() {
        std::fs::remove_dir_all(stage).with_context(|| format!("cannot empty {}", stage.display()))?;
    }
    let (man, completions) = (stage.join("man"), stage.join("completions"));
    for directory in [&man, &completions] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut strip = Command::new("strip");
    succeed(
        strip
            .args(["--strip-unneeded", "--remove-section=.comment", "-o"])
            .arg(stage.join("sluice"))
            .arg(binary),
    )?;
    succeed(Command::new(binary).arg("man").arg(&man))?;
    for shell in SHELLS {
        let path = completions.join(shell);
        let file =
            std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        succeed(Command::new(binary).args(["completions", shell]).stdout(file))?;
    }
    Ok(())
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("{} failed: {status}", program.display());
    }
    Ok(())
}
