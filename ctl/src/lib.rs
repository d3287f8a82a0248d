//! `ringctl`: parses what people type, asks the daemon (or, offline, the policy crate) and shows the answer.
//!
//! Results go to standard output, everything else to standard error; [`Exit`] is the whole contract of exit codes.

mod access;
mod accounts;
mod cli;
mod commands;
mod context;
mod failure;
mod host_report;
mod interfaces;
mod packet;
mod policy_source;
mod recovery;
mod remote;
mod report;
mod table;
mod target;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

pub use cli::Cli;
pub use failure::{Exit, Failure};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.host {
        Some(host) => remote::run(host, std::env::args_os().skip(1).collect()),
        None => context::Context::new(&cli).and_then(|mut context| {
            let exit = commands::run(cli.command, &mut context)?;
            context.flush()?;
            Ok(exit)
        }),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}
