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
    /// Packets, and compiling policies, on this machine
    Network,
    /// Instructions of system calls, in a virtual machine
    Host,
}

/// Builds and runs.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args.part {
        Part::Network => {
            shell::run(&mut shell::cargo(&["run", "--quiet", "--release", "--package", "ringfence-bench"]))
        }
        Part::Host => vm::bench(),
    }
}
