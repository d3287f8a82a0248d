//! `cargo xtask bench`: what it measures is in `bench/README.md`.

use crate::{shell, vm};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_value_t = Part::Network)]
    part: Part,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Packets, compiling policies, and changes without an apply, on this machine
    Network,
    /// Changes without an apply alone: `ringctl deny`, elements of sets
    Dynamic,
    /// Instructions of system calls, in a virtual machine
    Host,
}

/// Builds and runs.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args.part {
        Part::Network => measure(&[]),
        Part::Dynamic => measure(&["dynamic"]),
        Part::Host => vm::bench(),
    }
}

/// The programs that are measured are built together with the one that measures.
fn measure(arguments: &[&str]) -> anyhow::Result<()> {
    let packages = ["--package", "ringfence-bench", "--package", "ringfenced", "--package", "ringctl"];
    shell::run(shell::cargo(&["build", "--quiet", "--release", "--locked", "--bins"]).args(packages))?;
    let program = shell::target_dir().join("release/ringfence-bench");
    shell::run(&mut shell::command(program, arguments))
}
