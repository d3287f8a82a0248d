use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use ringfence_api::{ApplyAnswer, ApplyRequest, ApplySource};

use super::diff::write_diff;
use crate::context::Context;
use crate::{Exit, Failure, policy_source, units};

/// Put a policy in force, whole or not at all
///
/// Prints what changes first. A policy with a mistake, or with a test that fails, changes nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl apply                             read the daemon's configured policy again
  ringctl apply policy.yaml --dry-run       only say what would change
  ringctl apply policy.yaml --confirm 60s   goes back by itself unless `ringctl confirm` comes within a minute")]
pub struct Apply {
    /// A policy file, a directory of *.yaml, or `-` for standard input; the daemon's configured policy unless said
    file: Option<PathBuf>,
    /// Go back to the generation in force unless confirmed within so long, such as 60s or 5m
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    confirm: Option<u64>,
    /// Compile, test and compare, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also when it would cut your own session
    #[arg(long)]
    force: bool,
}

impl Apply {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let source = match &self.file {
            None => ApplySource::Reload,
            Some(path) => ApplySource::Texts(policy_source::texts(path)?),
        };
        let mut request = ApplyRequest {
            source,
            confirm_seconds: self.confirm,
            dry_run: true,
            force: self.force,
            expect_digest: None,
        };
        let planned = context.ask(context.client.apply(&request))?;
        policy_source::warn(&planned.warnings);
        write_diff(&planned.diff, context)?;
        if self.dry_run {
            return Ok(Exit::Done);
        }
        // On the screen before it is in force: what changes may be this very connection.
        context.flush()?;
        request.dry_run = false;
        request.expect_digest = Some(planned.digest);
        let applied = context.ask(context.client.apply(&request))?;
        writeln!(context, "{}", outcome(&applied))?;
        Ok(Exit::Done)
    }
}

fn outcome(applied: &ApplyAnswer) -> String {
    let number = applied.generation.map_or_else(String::new, |number| format!(" {number}"));
    match &applied.pending {
        None => format!("generation{number} is in force"),
        Some(pending) => {
            let back = pending.previous.map_or_else(
                || "nothing is enforced".to_owned(),
                |previous| format!("generation {previous} comes back"),
            );
            let left = units::duration(pending.seconds);
            format!("generation{number} is in force for {left}: `ringctl confirm` keeps it, otherwise {back}")
        }
    }
}
