use std::io::Write as _;

use clap::{Args, ValueEnum};
use ringfence_api::ModeRequest;

use crate::context::Context;
use crate::{Exit, Failure, units};

/// Switch between enforcing and only counting
///
/// With --for it turns back by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl mode audit --for 10m    count what would be refused, for ten minutes
  ringctl mode enforce")]
pub struct Mode {
    /// The mode wanted
    mode: Wanted,
    /// Turn back after so long, such as 90s, 10m or 1h30m
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    for_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    /// Nothing is refused, everything is counted
    Audit,
    /// What the policy refuses is refused
    Enforce,
}

impl Mode {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let mode = match self.mode {
            Wanted::Audit => ringfence_api::Mode::Audit,
            Wanted::Enforce => ringfence_api::Mode::Enforce,
        };
        let answer = context.ask(context.client.mode(ModeRequest { mode, for_seconds: self.for_seconds }))?;
        let end = answer.until.map_or_else(String::new, |until| format!(" until {}", units::timestamp(until)));
        writeln!(context, "mode {}{end}", answer.mode.word())?;
        Ok(Exit::Done)
    }
}
