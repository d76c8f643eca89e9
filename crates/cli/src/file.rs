//! `sluice validate`, `fmt`, `import`, `schema`: the cluster file, without a director.

use crate::ipvsadm::MachineNames;
use crate::show::write_out;
use abi::Limits;
use cluster::{FILE_BYTES_MAX, Finding, Format, Lines, Severity};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file, as a word of the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// The cluster file, or `-` for standard input.
    file: PathBuf,
    /// Most virtual services of the director it is for.
    #[arg(long, value_name = "N", default_value_t = Limits::default().services_max)]
    services_max: u32,
    /// Most real servers of the director it is for.
    #[arg(long, value_name = "N", default_value_t = Limits::default().reals_max)]
    reals_max: u32,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FmtArgs {
    /// The cluster file, which is written anew if its layout differs; or `-`, from standard input to standard output.
    file: PathBuf,
    /// Write nothing; the exit code is 1 if the layout differs.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Whose file it is: ipvsadm-save, keepalived, ldirectord, lvs-dr or piranha.
    format: Format,
    /// The file, or `-` for standard input.
    file: PathBuf,
    /// What was left as a list in JSON on standard error, instead of text.
    #[arg(long)]
    json: bool,
}

/// Exit code if something was not carried over.
const LEFT: u8 = 3;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write {}; it is as it was", file.display())]
    Write {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What is printed has nowhere to go.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

/// The whole file, or a byte more than it may have.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, FileError> {
    let limit = FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let done = match file.to_str() {
        Some("-") => io::stdin().lock().take(limit).read_to_end(&mut bytes),
        _ => File::open(file).and_then(|it| it.take(limit).read_to_end(&mut bytes)),
    };
    done.map_err(|source| FileError::Read { file: file.to_owned(), source })?;
    Ok(bytes)
}

/// What the file is called in messages.
pub(crate) fn shown(file: &Path) -> String {
    if file.to_str() == Some("-") { "<stdin>".to_owned() } else { file.display().to_string() }
}

/// Prints to standard output; whoever closed it has seen enough.
pub(crate) fn print(text: &str) -> Result<(), FileError> {
    write_out(text).map_err(FileError::Print)
}

fn tell(file: &Path, findings: &[Finding], lines: &Lines) {
    let name = shown(file);
    for finding in findings {
        runtime::tell(finding.text(&name, lines).trim_end());
    }
}

/// `sluice validate`: the exit code is 1 if there is an error.
pub(crate) fn validate(args: &ValidateArgs) -> Result<ExitCode, FileError> {
    let bytes = read(&args.file)?;
    let limits = Limits { services_max: args.services_max, reals_max: args.reals_max, ..Limits::default() };
    let options = plan::Options { limits, ..plan::Options::default() };
    let (lines, parsed) = match cluster::decode(&bytes) {
        Ok(text) => (Lines::new(text), cluster::parse(text, &options)),
        Err((before, finding)) => {
            (Lines::new(before), cluster::Parsed { cluster: None, findings: vec![finding] })
        }
    };
    let counts = parsed.cluster.as_ref().map(|it| (it.model.services().len(), it.model.reals_len()));
    if args.json {
        let name = shown(&args.file);
        let findings: Vec<_> = parsed.findings.iter().map(|finding| finding.json(&name, &lines)).collect();
        let mut report = serde_json::json!({ "good": counts.is_some(), "findings": findings });
        if let Some((services, reals)) = counts {
            report["services"] = services.into();
            report["reals"] = reals.into();
        }
        print(&format!("{report}\n"))?;
    } else {
        tell(&args.file, &parsed.findings, &lines);
        print(&summary(&shown(&args.file), counts, &parsed.findings))?;
    }
    Ok(if counts.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(file: &str, counts: Option<(usize, usize)>, findings: &[Finding]) -> String {
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let (errors, warnings) = (count(of(Severity::Error), "error"), count(of(Severity::Warning), "warning"));
    match counts {
        Some((services, reals)) => {
            let (services, reals) = (count(services, "service"), count(reals, "real server"));
            format!("{file}: good: {services} with {reals} in all, {warnings}\n")
        }
        None => format!("{file}: {errors}, {warnings}\n"),
    }
}

/// `sluice fmt`.
pub(crate) fn fmt(args: &FmtArgs) -> Result<ExitCode, FileError> {
    let bytes = read(&args.file)?;
    let formatted = match cluster::decode(&bytes) {
        Ok(text) => cluster::format(text).map_err(|findings| (Lines::new(text), findings)),
        Err((before, finding)) => Err((Lines::new(before), vec![finding])),
    };
    let formatted = match formatted {
        Ok(formatted) => formatted,
        Err((lines, findings)) => {
            tell(&args.file, &findings, &lines);
            return Ok(ExitCode::FAILURE);
        }
    };
    let differs = formatted.as_bytes() != bytes;
    if args.check {
        if differs {
            runtime::tell(format_args!(
                "{}: the layout differs: `sluice fmt' writes it anew",
                shown(&args.file)
            ));
        }
        return Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    match args.file.to_str() {
        Some("-") => print(&formatted)?,
        _ if differs => replace(&args.file, &formatted)
            .map_err(|source| FileError::Write { file: args.file.clone(), source })?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a new file in place of the old one, whole or not at all, with the old one's owner and mode.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    // Of a link, what it points to is written anew, not the link.
    let file = fs::canonicalize(file)?;
    let metadata = fs::metadata(&file)?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let write = || {
        let mut it = File::create_new(&new)?;
        it.write_all(text.as_bytes())?;
        it.set_permissions(metadata.permissions())?;
        let own = it.metadata()?;
        if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
            chown(&new, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        it.sync_all()?;
        fs::rename(&new, &file)
    };
    write().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    })
}

/// `sluice import`: the exit code is 3 if something was left.
pub(crate) fn import(args: &ImportArgs) -> Result<ExitCode, FileError> {
    let bytes = read(&args.file)?;
    let text = match cluster::decode(&bytes) {
        Ok(text) => text,
        Err((before, finding)) => {
            tell(&args.file, &[finding], &Lines::new(before));
            return Ok(ExitCode::FAILURE);
        }
    };
    let import = cluster::import(args.format, text, &plan::Options::default(), &MachineNames::default());
    print(&import.text)?;
    let name = shown(&args.file);
    if args.json {
        let one = |left: &cluster::Left| serde_json::json!({ "file": name, "line": left.line, "what": left.what, "why": left.why });
        runtime::tell(serde_json::Value::from_iter(import.left.iter().map(one)));
    } else {
        for left in &import.left {
            runtime::tell(format_args!(
                "{name}:{}: not carried over: {}: {}",
                left.line, left.what, left.why
            ));
        }
    }
    Ok(if import.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LEFT) })
}

/// `sluice schema`.
pub(crate) fn schema() -> Result<ExitCode, FileError> {
    print(&cluster::schema()).map(|()| ExitCode::SUCCESS)
}
