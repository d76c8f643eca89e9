//! Builds the eBPF programs: their own workspace, another target and mostly another compiler.
//!
//! A compiler of the BPF target comes from Debian (the standard library's core precompiled for BPF)
//! or from a rustup nightly with rust-src (core is built on the way). Both need bpf-linker.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// What to install; `./dev` prints the same text.
const HELP: &str = include_str!("../../scripts/ebpf-toolchain.txt");

const TARGET: &str = "bpfel-unknown-none";

/// The first Debian release whose compiler was tried with this target: (major, minor).
const OLDEST: (u32, u32) = (1, 96);

/// v3: the instruction set with fetching atomics and 32-bit jumps; kernels since 5.12 have it.
/// BTF must be in the object: programs with callbacks (`bpf_loop`) are refused without it.
const FLAGS: [&str; 5] = [
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    // Atomic additions that give the old value.
    "-Ctarget-cpu=v3",
    // Packet headers are at odd offsets; without this every field is read byte by byte. The kernels that
    // matter (x86-64, arm64) allow it for packet and map pointers.
    "-Ctarget-feature=+allows-misaligned-mem-access",
];

/// A compiler and a cargo that can build for the BPF target.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// The compiler's own description, with its LLVM: `rustc 1.96.0, LLVM 22.1.8`.
    version: String,
    /// Whether core must be built from source.
    build_std: bool,
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Let clippy look at them too; a warning is an error
    #[arg(long)]
    lint: bool,
}

/// Builds every program and leaves the objects in `target/bpf/NAME.o`.
///
/// # Errors
/// No toolchain, no linker, or the build failed; each says what to do.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let manifest = root.join("bpf/Cargo.toml");
    let Some(toolchain) = find_toolchain() else {
        bail!("no compiler for {TARGET} was found.\n{HELP}");
    };
    if !linker_starts() {
        bail!("bpf-linker is not on PATH, or does not start.\n{HELP}");
    }
    let build_dir = root.join("target/bpf-build");
    if options.lint {
        let mut command = compile(&toolchain, "clippy", &manifest, &build_dir);
        command.args(["--", "-D", "warnings", "-D", "clippy::undocumented_unsafe_blocks"]);
        if !succeeds(&mut command)? {
            bail!("clippy does not like the eBPF programs, or is not there (Debian package rust-web-clippy)");
        }
    }
    if !succeeds(&mut compile(&toolchain, "build", &manifest, &build_dir))? {
        bail!(
            "building the eBPF programs failed. Compiler: {}; the LLVM that bpf-linker is built with \
             must not be older than the compiler's",
            toolchain.version
        );
    }
    let out = root.join("target/bpf");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in binaries(&toolchain, &manifest)? {
        let object = build_dir.join(TARGET).join("release").join(&name);
        let object = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        replace(&out.join(name).with_extension("o"), &object)?;
    }
    replace(&out.join("toolchain.txt"), toolchain.version.as_bytes())
}

/// A cargo command that compiles the eBPF workspace.
fn compile(toolchain: &Toolchain, subcommand: &str, manifest: &Path, build_dir: &Path) -> Command {
    let mut command = cargo(toolchain);
    command.args([subcommand, "--release", "--quiet", "--target", TARGET]);
    command.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(build_dir);
    if toolchain.build_std {
        command.args(["-Z", "build-std=core"]);
    }
    command
}

fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    let status =
        command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    Ok(status.success())
}

/// Finds a toolchain: Debian's first (nothing is compiled twice), then a rustup nightly.
fn find_toolchain() -> Option<Toolchain> {
    let debian = probe(PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"))
        .filter(|found| release(&found.version).is_some_and(|release| release >= OLDEST));
    if debian.is_some() {
        return debian;
    }
    let listed = clean(&mut Command::new("rustup")).args(["toolchain", "list"]).output().ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let nightlies = listed.lines().filter_map(|line| line.split_whitespace().next());
    nightlies.filter(|name| name.starts_with("nightly")).find_map(|name| {
        let which = |tool| line_of(Command::new("rustup").args(["which", "--toolchain", name, tool]));
        probe(PathBuf::from(which("cargo")?), PathBuf::from(which("rustc")?))
    })
}

/// The toolchain, if it is there and has core for BPF, precompiled or as source.
fn probe(cargo: PathBuf, rustc: PathBuf) -> Option<Toolchain> {
    if !cargo.exists() {
        return None;
    }
    let described = clean(&mut Command::new(&rustc)).arg("-vV").output().ok()?;
    let version = describe(&String::from_utf8_lossy(&described.stdout))?;
    let sysroot = PathBuf::from(line_of(Command::new(&rustc).args(["--print", "sysroot"]))?);
    let precompiled = std::fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib"))
        .is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| is_core(&file.file_name()))));
    let source = sysroot.join("lib/rustlib/src/rust/library/core").exists();
    (precompiled || source).then_some(Toolchain { cargo, rustc, version, build_std: !precompiled })
}

fn is_core(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("libcore-") && name.ends_with(".rlib")
}

/// `rustc -vV` in one line: `rustc 1.96.0, LLVM 22.1.8`.
fn describe(verbose: &str) -> Option<String> {
    let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(format!("rustc {}, LLVM {}", field("release:")?, field("LLVM version:")?))
}

/// The major and minor number out of [`describe`]'s line.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Also false when the LLVM library that the linker was built with is gone.
fn linker_starts() -> bool {
    let paths = search_path(None).unwrap_or_default();
    let mut found =
        std::env::split_paths(&paths).map(|dir| dir.join("bpf-linker")).filter(|path| path.is_file());
    found.next().is_some_and(|linker| line_of(Command::new(linker).arg("--version")).is_some())
}

/// The only line a command prints, if it succeeds.
fn line_of(command: &mut Command) -> Option<String> {
    let output = clean(command).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The toolchain's cargo, free of what the host's cargo and the developer set for the host.
fn cargo(toolchain: &Toolchain) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    clean(&mut command);
    command.env("RUSTC", &toolchain.rustc);
    // cargo looks for its clippy on PATH; the one beside this compiler must come first.
    if let Some(paths) = search_path(toolchain.rustc.parent()) {
        command.env("PATH", paths);
    }
    // The stable compiler refuses the unstable features that aya-ebpf and build-std need without it.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    command
}

/// PATH with one more folder in front, and behind it the one that `cargo install` fills.
fn search_path(first: Option<&Path>) -> Option<OsString> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let last = home.map(|home| home.join("bin"));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&paths).chain(last);
    std::env::join_paths(first.map(Path::to_owned).into_iter().chain(paths)).ok()
}

/// Takes the host toolchain's variables away. What reaches the network or the terminal stays.
fn clean(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let kept = KEPT.iter().any(|prefix| name.starts_with(prefix));
        let host = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"];
        if host.iter().any(|prefix| name.starts_with(prefix)) && !kept {
            command.env_remove(&*name);
        }
    }
    command
}

/// The names of the binaries of the eBPF workspace.
fn binaries(toolchain: &Toolchain, manifest: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = cargo(toolchain);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = command.output().context("cannot run cargo metadata for the eBPF workspace")?;
    let text = String::from_utf8(output.stdout).context("cargo metadata printed no text")?;
    let metadata = cargo_metadata::MetadataCommand::parse(text)
        .with_context(|| format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)))?;
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    Ok(targets.filter(|target| target.is_bin()).map(|target| target.name.clone()).collect())
}

/// Writes the file unless it already holds these bytes, so that nothing after it is rebuilt in vain.
/// A reader sees the old or the new file, never a part.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_described_by_release_and_llvm() {
        let verbose = "rustc 1.96.0 (x 2026-05-25)\nhost: x86_64\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let line = describe(verbose).unwrap();
        assert_eq!(line, "rustc 1.96.0, LLVM 22.1.8");
        assert_eq!(release(&line), Some((1, 96)));
        assert_eq!(release("rustc 1.97.0-nightly, LLVM 22.1.4"), Some((1, 97)));
        assert_eq!(describe("not a compiler"), None);
    }

    #[test]
    fn a_file_with_the_same_bytes_is_not_touched() {
        let dir = std::env::temp_dir().join(format!("xtask-replace-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a.o");
        replace(&file, b"one").unwrap();
        let before = std::fs::metadata(&file).unwrap().modified().unwrap();
        replace(&file, b"one").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before);
        replace(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
