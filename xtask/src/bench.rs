//! `cargo xtask bench`: builds the benchmark with optimisations and runs it. What it measures is in `bench/README.md`.

use crate::shell;

/// Builds and runs.
pub fn run() -> anyhow::Result<()> {
    shell::run(&mut shell::cargo(&["run", "--quiet", "--release", "--package", "ringfence-bench"]))
}
