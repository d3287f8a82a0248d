//! `cargo xtask demo`: builds what the demonstration needs and runs it.

use anyhow::{Result, ensure};

use crate::{
    setup,
    shell::{self, TARGET},
    test::Checks,
};

/// Builds and runs the demonstration.
pub fn run() -> Result<()> {
    ensure!(setup::is_root(), "the demo makes network namespaces and loads BPF programs: run it as root");
    println!("The first run builds Ringfence, which takes a few minutes. Nothing is installed on this machine.");
    show(&Checks::default())
}

/// Runs `tests/src/bin/demo.rs`; fails unless it shows what it promises. Built as the tests are: a newcomer who runs both
/// commands builds once.
pub fn show(checks: &Checks) -> Result<()> {
    shell::run(&mut checks.cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    let programs = shell::target_dir().join(TARGET).join("debug");
    let mut demo = shell::command(programs.join("demo"), &[]);
    shell::run(demo.env("RINGFENCE_BINARIES", programs))
}
