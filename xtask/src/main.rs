//! Everything a contributor runs: `cargo xtask COMMAND`. Each command does its own set-up and prints what it installs.

mod bench;
mod bpf;
mod demo;
mod fuzz;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test and show Ringfence", max_term_width = 100)]
enum Command {
    /// Measure speed, as ratios within one run
    Bench(bench::Args),
    /// Rebuild the committed BPF objects from their sources
    Bpf(bpf::Args),
    /// Show Ringfence at work on real packets, in two network namespaces
    Demo,
    /// Run every check there is; fails if one fails
    Test(test::Args),
    /// Run tests on Debian's kernels, in virtual machines
    Vm(vm::Args),
}

fn main() -> ExitCode {
    // Not by returning the result: with RUST_BACKTRACE set that would bury the last lines of a log below a backtrace.
    run().map_or_else(
        |error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> anyhow::Result<()> {
    if bpf::is_rustc() {
        return bpf::rustc();
    }
    match Command::parse() {
        Command::Bench(args) => bench::run(&args),
        Command::Bpf(args) => bpf::run(&args),
        Command::Demo => demo::run(),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
    }
}
