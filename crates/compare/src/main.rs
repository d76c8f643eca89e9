//! `compare play`, `compare diff` and `compare run`, which does all: see docs/compare.md. `compare flood`: see docs/syn-flood.md.

use clap::{Args, Parser, Subcommand};
use compare::flood::{self, FloodOptions};
use compare::{Options, Record, Script, Target, diff, play, random, script};
use runtime::Chain;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

/// Seconds the virtual machine may take, boot included.
const VM_S: &str = "3600";
/// Scripts made at random that a run of everything plays beside the written ones.
const RANDOM: u32 = 200;

/// Plays the same scripts into kernel IPVS and into Sluice and compares what happened
#[derive(Parser)]
#[command(name = "compare")]
struct Words {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Play into IPVS in the virtual machine and into Sluice here, and compare
    Run(Run),
    /// Play into one target, as root, and write a record
    Play(Play),
    /// Compare two records
    Diff {
        /// Record of the one
        a: PathBuf,
        /// Record of the other
        b: PathBuf,
    },
    /// Print a record
    Show {
        /// The record
        record: PathBuf,
        /// Only scripts whose name fits; * stands for anything
        #[arg(long, value_name = "GLOB", default_value = "*")]
        script: String,
    },
    /// Print the scripts that would be played
    List(Choice),
    /// A SYN flood into IPVS and into Sluice, in the virtual machine; prints a table
    Flood(Flood),
}

#[derive(Args)]
struct Flood {
    /// SYNs from made-up addresses
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    syns: u32,
    /// How many between two looks at the connections
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    wave: u32,
    /// The binary sluice
    #[arg(long, value_name = "FILE", default_value_os_t = beside("sluice"))]
    sluice: PathBuf,
    /// Only the variant of this number, on the running kernel, as root
    #[arg(long, value_name = "N", requires = "out")]
    here: Option<usize>,
    /// Folder for the records
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct Choice {
    /// Only scripts whose name fits; * stands for anything; may be given several times
    #[arg(long, value_name = "GLOB")]
    script: Vec<String>,
    /// Only the short part, which the tests play
    #[arg(long)]
    short: bool,
    /// As many more scripts made at random; a run of everything: 200, else none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000))]
    random: Option<u32>,
    /// What the random scripts are made from; a run draws one and prints it
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Folder of the written scripts
    #[arg(long, value_name = "DIR", default_value_os_t = script::directory())]
    scripts: PathBuf,
}

#[derive(Args)]
struct Play {
    /// Into what
    #[arg(long)]
    target: Target,
    /// Where the record goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The binary sluice
    #[arg(long, value_name = "FILE", default_value_os_t = beside("sluice"))]
    sluice: PathBuf,
    /// How many scripts at a time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Args)]
struct Run {
    /// Play Sluice in the virtual machine too, on the same kernel
    #[arg(long)]
    same_kernel: bool,
    /// The binary sluice
    #[arg(long, value_name = "FILE", default_value_os_t = beside("sluice"))]
    sluice: PathBuf,
    /// Compare with this record of IPVS, without the virtual machine
    #[arg(long, value_name = "FILE", conflicts_with = "same_kernel")]
    ipvs: Option<PathBuf>,
    /// Folder for the records
    #[arg(long, value_name = "DIR", default_value_os_t = root().join("target/compare"))]
    out: PathBuf,
    #[command(flatten)]
    choice: Choice,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// A binary in the folder of this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().map(|own| own.with_file_name(name)).unwrap_or_else(|_| PathBuf::from(name))
}

fn main() -> ExitCode {
    let done = match Words::parse().command {
        What::Run(words) => run(words),
        What::Play(words) => play_one(&words).map(|()| true),
        What::Diff { a, b } => compare(&a, &b),
        What::Show { record, script } => show(&record, &script).map(|()| true),
        What::List(choice) => list(&choice).map(|()| true),
        What::Flood(words) => flood_all(&words).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {}", Chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn chosen(choice: &Choice) -> Result<Vec<Script>, Box<dyn Error>> {
    let patterns = &choice.script;
    let fits = |name: &str| patterns.is_empty() || patterns.iter().any(|it| script::fits(it, name));
    let wanted = |name: &str, is_short: bool| fits(name) && (is_short || !choice.short);
    let mut scripts = script::read_some(&choice.scripts, wanted)?;
    if let Some(count) = choice.random.filter(|count| *count > 0) {
        let seed = choice.seed.ok_or("random scripts need --seed")?;
        let made = random::scripts(seed, count)?;
        scripts.extend(made.into_iter().filter(|it| wanted(&it.name, it.short)));
    }
    if scripts.is_empty() {
        return Err("no script is chosen; `compare list` prints their names".into());
    }
    Ok(scripts)
}

fn list(choice: &Choice) -> Result<(), Box<dyn Error>> {
    for script in chosen(choice)? {
        println!("{}", script.name);
        for (line, _) in script.steps {
            println!("    {}", line.replace('\n', "\n    "));
        }
    }
    Ok(())
}

fn play_one(words: &Play) -> Result<(), Box<dyn Error>> {
    let scripts = chosen(&words.choice)?;
    let options =
        Options { target: words.target, sluice: words.sluice.clone(), workers: words.workers.into() };
    let record = play(&scripts, &options)?;
    let text = serde_json::to_vec(&record)?;
    std::fs::write(&words.out, text)
        .map_err(|error| format!("cannot write {}: {error}", words.out.display()))?;
    Ok(())
}

fn read(path: &Path) -> Result<Record, Box<dyn Error>> {
    let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{} is no record: {error}", path.display()))?)
}

fn show(path: &Path, pattern: &str) -> Result<(), Box<dyn Error>> {
    for played in read(path)?.scripts.iter().filter(|it| script::fits(pattern, &it.name)) {
        println!("{played}");
    }
    Ok(())
}

fn compare(a: &Path, b: &Path) -> Result<bool, Box<dyn Error>> {
    let report = diff::diff(&read(a)?, &read(b)?);
    println!("{report}");
    Ok(report.is_clean())
}

/// Compares those scripts that the second record holds.
fn compare_played(a: &Path, b: &Path) -> Result<bool, Box<dyn Error>> {
    let (mut a, b) = (read(a)?, read(b)?);
    a.scripts.retain(|played| b.scripts.iter().any(|other| other.name == played.name));
    let report = diff::diff(&a, &b);
    println!("{report}");
    Ok(report.is_clean())
}

fn run(mut words: Run) -> Result<bool, Box<dyn Error>> {
    let is_everything = words.choice.script.is_empty() && !words.choice.short && words.ipvs.is_none();
    let random = *words.choice.random.get_or_insert(if is_everything { RANDOM } else { 0 });
    if random > 0 {
        let seed = words.choice.seed.map_or_else(runtime::random::random_u64, Ok)?;
        // Short enough to be typed again.
        let seed = *words.choice.seed.insert(seed % 1_000_000_000);
        println!("random scripts: --random {random} --seed {seed}");
    }
    let count = chosen(&words.choice)?.len();
    println!("playing {count} scripts into ipvs and sluice");
    std::fs::create_dir_all(&words.out)
        .map_err(|error| format!("cannot make {}: {error}", words.out.display()))?;
    let (ipvs, sluice) = (words.out.join("ipvs.json"), words.out.join("sluice.json"));
    if let Some(known) = words.ipvs.take() {
        play_here(&words, &sluice)?;
        return compare_played(&known, &sluice);
    }
    for path in [&ipvs, &sluice] {
        // A record of an earlier run must not be compared again.
        let _ = std::fs::remove_file(path);
    }
    let mut vm = vec![player(&words, "ipvs", "2")];
    if words.same_kernel {
        vm.push(player(&words, "sluice", "2"));
    }
    let virtual_machine = start_vm(&words.out, &vm)?;
    let here = if words.same_kernel { Ok(()) } else { play_here(&words, &sluice) };
    let there = finish(virtual_machine, "the virtual machine");
    here?;
    there?;
    compare(&ipvs, &sluice)
}

/// The words that play one target, but for the record's place.
fn player(words: &Run, target: &str, workers: &str) -> Vec<String> {
    let own = std::env::current_exe().map(|own| own.display().to_string()).unwrap_or_default();
    let path =
        |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut line = vec![own, "play".to_owned(), "--target".to_owned(), target.to_owned()];
    line.extend(["--workers".to_owned(), workers.to_owned()]);
    line.extend(["--sluice".to_owned(), path(&words.sluice)]);
    line.extend(["--scripts".to_owned(), path(&words.choice.scripts)]);
    line.extend(["--random".to_owned(), words.choice.random.unwrap_or_default().to_string()]);
    let seed = words.choice.seed.iter().map(u64::to_string);
    line.extend(seed.flat_map(|seed| ["--seed".to_owned(), seed]));
    line.extend(words.choice.short.then(|| "--short".to_owned()));
    let script = words.choice.script.iter().cloned();
    line.extend(script.flat_map(|script| ["--script".to_owned(), script]));
    line
}

fn start_vm(out: &Path, players: &[Vec<String>]) -> Result<Child, Box<dyn Error>> {
    // In the guest only $OUT outlives the command, and only a shell knows it.
    let lines = players.iter().map(|line| format!("{} --out \"$OUT/{}.json\"", quoted(line), line[3]));
    start_job(out, &lines.collect::<Vec<_>>().join(" && "))
}

/// The words of a command for a shell.
fn quoted(line: &[String]) -> String {
    let words = line.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    words.collect::<Vec<_>>().join(" ")
}

fn start_job(out: &Path, job: &str) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(root().join("tools/vm"));
    command.args(["run", "--cpus", "2", "--mem", "2048", "--timeout", VM_S, "--out"]).arg(out);
    // So that the kernel tells the memory of connections apart from other memory.
    command.args(["--append", "slab_nomerge"]);
    command.args(["--", "/bin/bash", "-c", job]).stdin(Stdio::null());
    Ok(command.spawn().map_err(|error| format!("cannot start tools/vm: {error}"))?)
}

/// Floods every variant in the virtual machine, each by a process of its own, and prints what came of it.
fn flood_all(words: &Flood) -> Result<(), Box<dyn Error>> {
    let out = words.out.clone().unwrap_or_else(|| root().join("target/flood"));
    std::fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    if let Some(number) = words.here {
        let variant = flood::VARIANTS.get(number).ok_or("there is no variant of this number")?;
        let options = FloodOptions { sluice: words.sluice.clone(), syns: words.syns, wave: words.wave };
        let flooded = flood::flood(variant, &options)?;
        eprintln!("{flooded}");
        let path = out.join(format!("{number}.json"));
        let written = std::fs::write(&path, serde_json::to_vec(&flooded)?);
        return Ok(written.map_err(|error| format!("cannot write {}: {error}", path.display()))?);
    }
    let own = std::env::current_exe()?.display().to_string();
    let sluice = std::path::absolute(&words.sluice)?.display().to_string();
    let (syns, wave) = (words.syns.to_string(), words.wave.to_string());
    let lines = (0..flood::VARIANTS.len()).map(|number| {
        let number = number.to_string();
        let line = [&own, "flood", "--here", &number, "--sluice", &sluice, "--syns", &syns, "--wave", &wave];
        format!("{} --out \"$OUT\"", quoted(&line.map(str::to_owned)))
    });
    finish(start_job(&out, &lines.collect::<Vec<_>>().join(" && "))?, "the virtual machine")?;
    println!("{}", flood::HEAD);
    flood::read(&out)?.iter().for_each(|flooded| println!("{flooded}"));
    Ok(())
}

fn play_here(words: &Run, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(root().join("scripts/as-root"));
    command.args(player(words, "sluice", "4")).arg("--out").arg(out).stdin(Stdio::null());
    let child = command.spawn().map_err(|error| format!("cannot start scripts/as-root: {error}"))?;
    finish(child, "playing into sluice")
}

fn finish(mut child: Child, what: &str) -> Result<(), Box<dyn Error>> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})").into()) }
}
