use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use ringfence_api::{ApplyAnswer, ApplyRequest, ApplySource, CutConnections, end};

use super::Listing;
use super::diff::write_diff;
use crate::context::Context;
use crate::table::Table;
use crate::{Exit, Failure, policy_source, units};

/// Put a policy in force, whole or not at all
///
/// Prints what changes first, and which connections that are there would be cut, with the rule that refuses each: those that go
/// on today and would not under this policy, as far as they are followed (or this host's own, where none are). A policy with
/// a mistake, or with a test that fails, changes nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl apply                             read the daemon's configured policy again
  ringctl apply policy.yaml --dry-run       only say what would change, and whom it would cut
  ringctl apply policy.yaml --confirm 60s   goes back by itself unless `ringctl confirm` comes within a minute

UNTIL: packets of the connection are refused until that end sends one, which the rules then take for a new beginning.")]
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
    #[command(flatten)]
    listing: Listing,
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
        if !self.listing.json {
            write_diff(&planned.diff, context)?;
            write_cut(planned.cut.as_ref(), context)?;
        }
        if self.dry_run {
            if self.listing.json {
                context.json(&planned)?;
            }
            return Ok(Exit::Done);
        }
        // On the screen before it is in force: what changes may be this very connection.
        context.flush()?;
        request.dry_run = false;
        request.expect_digest = Some(planned.digest);
        let applied = context.ask(context.client.apply(&request))?;
        if self.listing.json {
            context.json(&applied)?;
        } else {
            writeln!(context, "{}", outcome(&applied))?;
        }
        Ok(Exit::Done)
    }
}

/// Says which connections a policy cuts.
fn write_cut(cut: Option<&CutConnections>, out: &mut dyn Write) -> std::io::Result<()> {
    let Some(cut) = cut else {
        // Nothing is left to tell it to when standard error is gone.
        let _ = writeln!(anstream::stderr(), "warning: which connections it cuts could not be found out");
        return Ok(());
    };
    if cut.total == 0 {
        return Ok(());
    }
    let number = if cut.total == 1 { "1 connection".to_owned() } else { format!("{} connections", cut.total) };
    writeln!(out, "cuts {number} of {}:", cut.judged)?;
    let mut table = Table::new(["PROTO", "FROM", "TO", "CHAIN", "RULE", "WHERE", "UNTIL", ""], &[]);
    for one in &cut.connections {
        let connection = &one.connection;
        let place = match (&one.file, one.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => "built in".to_owned(),
        };
        table.row([
            connection.proto.as_str().into(),
            end(connection.from, connection.from_port).into(),
            end(connection.to, connection.to_port).into(),
            one.chain.as_str().into(),
            one.rule.as_str().into(),
            place.into(),
            one.until.map_or_else(|| "-".to_owned(), |until| until.to_string()).into(),
            if one.own { "your own session" } else { "" }.into(),
        ]);
    }
    table.write(out)?;
    if cut.left_out > 0 {
        writeln!(out, "and {} more", cut.left_out)?;
    }
    Ok(())
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
