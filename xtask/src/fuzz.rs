//! Runs each fuzz target of `fuzz/` for a minute.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{setup, shell};

/// Seconds each target runs.
const SECONDS: u32 = 60;
/// The release of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// Builds the targets and runs each for [`SECONDS`].
pub fn run() -> Result<()> {
    // libFuzzer is C++.
    setup::apt(&["g++"])?;
    setup::cargo_install("cargo-fuzz", CARGO_FUZZ, &[])?;
    let listed = shell::output(&mut fuzz(&["list"]))?;
    let targets: Vec<&str> = listed.split_whitespace().collect();
    ensure!(!targets.is_empty(), "fuzz/ has no targets");
    shell::run(&mut fuzz(&["build"]))?;
    for target in targets {
        let time = format!("-max_total_time={SECONDS}");
        // No input may take 10 s or 2 GiB: time and memory bounds are part of the promise about bad input.
        shell::run(&mut fuzz(&[
            "run",
            target,
            "--",
            &time,
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-verbosity=0",
            "-print_final_stats=1",
        ]))?;
    }
    Ok(())
}

/// `cargo fuzz` on the stable toolchain: the sanitizers are unstable flags, and the stable toolchain ships their
/// runtime.
fn fuzz(arguments: &[&str]) -> Command {
    let mut command = shell::cargo(&["fuzz"]);
    command.args(arguments).env("RUSTC_BOOTSTRAP", "1");
    command
}
