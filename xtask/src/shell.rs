//! Running other programs: each command is printed, and its failure names it.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// The longest a step's single command may take: a test that hangs must fail, and name the command.
const BOUND: Duration = Duration::from_mins(30);

/// What the tests are built for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's directory.
pub fn root() -> PathBuf {
    // The manifest is in `xtask/`, one level below.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A command in the workspace's directory that ends after a bounded time and reads nothing.
pub fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    // `--foreground`: ^C on a terminal reaches the command too.
    command.args(["--foreground", "--kill-after=10", &BOUND.as_secs().to_string()]).arg(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` with these arguments, in the workspace's directory.
pub fn cargo(arguments: &[&str]) -> Command {
    command("cargo", arguments)
}

/// `cargo` for everything that is tested: static programs, which also run in machines that hold nothing else, so that all
/// steps share one build. Debug information is left out: it would double the time to build.
pub fn static_cargo(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    // Only with an explicit target do build scripts and macros stay dynamic, as they must.
    command.env("CARGO_BUILD_TARGET", TARGET);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}

/// Runs a command to its end; an error if it does not end well.
pub fn run(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}

/// Runs a command, gives each line of its output and of its errors to `each` after printing it.
pub fn run_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    announce(command);
    run_quietly(command, |line| {
        println!("{line}");
        each(line);
    })
}

/// The same without printing.
pub fn run_quietly(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    let line = line(command);
    let (output, input) = io::pipe()?;
    let child = command.stdout(input.try_clone()?).stderr(input).spawn();
    // The command holds the writing ends: while one is open, reading does not end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot run `{line}`"))?;
    let mut reader = BufReader::new(output);
    let mut bytes = Vec::new();
    // Not `lines()`: a test may print what is not UTF-8.
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        each(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}

/// Runs a command for its standard output, without printing either.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
}

fn announce(command: &Command) -> String {
    let line = line(command);
    println!("\n$ {line}");
    line
}

/// The command as one would type it, without the bound that [`command`] puts before it.
fn line(command: &Command) -> String {
    let settings = command
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), value?.to_string_lossy())));
    let skipped = if command.get_program() == "timeout" { 3 } else { 0 };
    let program = (skipped == 0).then(|| command.get_program());
    let words =
        program.into_iter().chain(command.get_args().skip(skipped)).map(|word| word.to_string_lossy().into_owned());
    settings.chain(words).collect::<Vec<_>>().join(" ")
}
