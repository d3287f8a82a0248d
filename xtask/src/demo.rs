//! `cargo xtask demo`: builds what the demonstration needs and runs it.

use anyhow::{Result, ensure};

use crate::{setup, shell};

/// Builds and runs `tests/src/bin/demo.rs`.
pub fn run() -> Result<()> {
    ensure!(setup::is_root(), "the demo makes network namespaces and loads BPF programs: run it as root");
    println!("The first run builds Ringfence, which takes a few minutes. Nothing is installed on this machine.");
    shell::run(&mut shell::cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    shell::run(&mut shell::cargo(&["run", "--quiet", "--locked", "--package", "ringfence-tests", "--bin", "demo"]))
}
