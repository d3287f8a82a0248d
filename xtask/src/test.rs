//! `cargo xtask test`: every check there is, in one command, on a fresh machine.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    bpf, demo, fuzz, setup,
    shell::{self, TARGET},
    vm,
};

/// The package whose tests join the others together.
const INTEGRATION: &str = "ringfence-tests";

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Run these parts only (may be given several times)
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// A part of the checks that can be run on its own.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting, lints, documentation
    Style,
    /// The committed BPF objects are what their sources give
    Bpf,
    /// Each crate's own tests; the daemon's load programs into the kernel
    Unit,
    /// The test programs with real packets in network namespaces, and the differential tests
    Netns,
    /// The demonstrations run to their ends; where this kernel cannot show the host half, in a virtual machine
    Demo,
    /// The same packets on Debian's kernels, in virtual machines
    Vm,
    /// Each fuzz target for a minute
    Fuzz,
}

/// What the parts share.
#[derive(Default)]
pub struct Checks {
    /// The tests so far.
    pub tally: Tally,
    /// BPF objects to test in place of the committed ones, where those could not be compared with a rebuild.
    objects: Option<PathBuf>,
}

impl Checks {
    /// Cargo for what is tested.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = shell::static_cargo(arguments);
        if let Some(objects) = &self.objects {
            command.env("RINGFENCE_BPF_DIR", objects);
        }
        command
    }

    /// Builds all programs, and returns their directory. With one small test, though nobody runs it here: where cargo builds
    /// any test, dependencies have the features that tests need, and everything would be built twice.
    pub fn programs(&self) -> Result<PathBuf> {
        shell::run(&mut self.cargo(&["build", "--locked", "--workspace", "--bins", "--test", "tcx"]))?;
        Ok(shell::target_dir().join(TARGET).join("debug"))
    }
}

/// How many tests ran, summed over cargo test's result lines, and what the failed ones printed.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    /// What the summary repeats: often the end of a log is all that is at hand.
    failures: Vec<String>,
    /// Lines of the failed test's output that may still be kept, if such output is being read.
    open: Option<usize>,
}

/// How cargo's errors begin; tests print errors of their own.
const CARGO_ERRORS: [&str; 3] = ["error: test failed", "error: could not compile", "error["];
/// The most lines kept of one failed test.
const FAILURE_LINES: usize = 40;

/// Runs the parts in order, also after one failed, and fails if any did.
pub fn run(args: &Args) -> Result<()> {
    ensure!(setup::is_root(), "the tests make network namespaces and load BPF programs: run them as root");
    let mut checks = Checks::default();
    let mut summary = Vec::new();
    for &part in Part::value_variants() {
        if args.only.is_empty() || args.only.contains(&part) {
            let begin = Instant::now();
            println!("\n==== {}", part.name());
            let result = part.run(&mut checks);
            if let Err(error) = &result {
                println!("{} failed: {error:#}", part.name());
            }
            summary.push((part.name(), result, begin.elapsed()));
        }
    }
    report(&summary, &checks.tally)
}

fn report(summary: &[(String, Result<()>, Duration)], tally: &Tally) -> Result<()> {
    if !tally.failures.is_empty() {
        println!("\n==== failures\n{}", tally.failures.join("\n"));
    }
    println!("\n==== summary");
    for (part, result, time) in summary {
        let outcome = result.as_ref().map_or_else(|error| format!("FAILED: {error:#}"), |()| "ok".to_owned());
        println!("{part:6} {:5.0} s  {outcome}", time.as_secs_f32());
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    if summary.iter().any(|(_, result, _)| result.is_err()) {
        bail!("not all checks passed");
    }
    Ok(())
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, checks: &mut Checks) -> Result<()> {
        match self {
            Self::Style => style(),
            Self::Bpf => {
                checks.objects = bpf::check()?;
                Ok(())
            }
            Self::Unit => tests(&["--lib", "--bins"], |package| package != INTEGRATION, checks),
            Self::Netns => tests(&[], |package| package == INTEGRATION, checks),
            Self::Demo => demo::show(checks),
            Self::Vm => vm::run_all(checks),
            Self::Fuzz => fuzz::run(),
        }
    }
}

fn style() -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    shell::run(&mut shell::static_cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    let mut doc = shell::static_cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// `cargo test`, all of it even after a failure, so that one run shows everything that is wrong. Besides `further`: the test
/// programs of the packages that are meant. The selection of packages is always the same: with another, dependencies have
/// other features and would be built anew.
fn tests(further: &[&str], meant: impl Fn(&str) -> bool, checks: &mut Checks) -> Result<()> {
    let programs = checks.programs()?;
    let mut command = checks.cargo(&["test", "--locked", "--no-fail-fast", "--workspace"]);
    command.args(further).env("RINGFENCE_BINARIES", programs);
    for name in test_programs(meant)? {
        command.args(["--test", &name]);
    }
    shell::run_lines(&mut command, |line| checks.tally.add(line))
}

/// Names of the test programs of these packages, but for those that only virtual machines run.
fn test_programs(meant: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let metadata = shell::output(&mut shell::cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let packages = packages.iter().filter(|package| package["name"].as_str().is_some_and(&meant));
    let targets = packages.filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test" && target["test"] == true);
    Ok(tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`, and keeps the output of failed tests.
    pub fn add(&mut self, line: &str) {
        self.keep(line);
        let Some((_, counts)) = line.split_once("test result: ") else { return };
        let count = |name: &str| {
            let before = counts.split(';').find_map(|part| part.trim_end().strip_suffix(name))?;
            before.split_whitespace().next_back()?.parse::<u64>().ok()
        };
        self.passed += count(" passed").unwrap_or(0);
        self.failed += count(" failed").unwrap_or(0);
    }

    /// Keeps what stands between `---- NAME stdout ----` and the list of failed tests, and cargo's own errors.
    fn keep(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.open = Some(FAILURE_LINES);
        } else if line == "failures:" {
            self.open = None;
        }
        let error =
            CARGO_ERRORS.iter().any(|error| line.starts_with(error)) || line.contains("didn't exit successfully");
        match &mut self.open {
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                self.failures.push(line.to_owned());
            }
            None if error => self.failures.push(line.to_owned()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn result_lines_are_summed() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        tally.add("test some_test ... ok");
        assert_eq!((tally.passed, tally.failed), (15, 2));
    }

    #[test]
    fn the_output_of_failed_tests_is_kept_and_nothing_else() {
        let mut tally = Tally::default();
        let lines = [
            "test a ... FAILED",
            "failures:",
            "---- a stdout ----",
            "it broke",
            "failures:",
            "    a",
            "error: test failed",
        ];
        for line in lines {
            tally.add(line);
        }
        assert_eq!(tally.failures, ["---- a stdout ----", "it broke", "error: test failed"]);
    }
}
