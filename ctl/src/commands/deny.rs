use std::io::Write as _;

use clap::Args;
use ringfence_api::{Direction, Entry, EntryRequest, EntryVerb, Target};

use super::Listing;
use crate::context::Context;
use crate::{Exit, Failure, table, target, units};

/// Refuse an address at once, before the rules
///
/// The entry is in force before the command returns, is judged after the floor and before the rules, newest first,
/// survives restarts and ends by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl deny 203.0.113.5
  ringctl deny 203.0.113.0/24 --for 10m --reason 'scans us'
  ringctl deny 203.0.113.5:22                 only packets to port 22
  ringctl deny '[2001:db8::5]:443' --both     from there to port 443, and to port 443 there

One that would cut your own session, or a `never` member of a set, is refused without --force.")]
pub struct Deny {
    #[command(flatten)]
    entry: EntryArgs,
}

/// Arguments of `deny` and `allow`.
#[derive(Args, Debug)]
pub struct EntryArgs {
    /// What it is about.
    #[arg(value_parser = target::parse, help = "Address, prefix, ADDR:PORT or [V6]:PORT; the port is the destination port")]
    what: Target,
    /// How long, such as 90s, 10m, 1h30m or 7d; until undone unless said
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    for_seconds: Option<u64>,
    /// Why, for `ringctl list`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Packets that leave for the address instead of those that arrive from it
    #[arg(long, conflicts_with = "both")]
    out: bool,
    /// Packets in both directions
    #[arg(long)]
    both: bool,
    /// Also when it cuts your own session
    #[arg(long)]
    force: bool,
    /// Belongs to the host half; only here to say so
    #[arg(long, hide = true, value_name = "OPERATION")]
    op: Vec<String>,
    #[command(flatten)]
    listing: Listing,
}

impl Deny {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        self.entry.run(EntryVerb::Deny, false, context)
    }
}

impl EntryArgs {
    /// Whether a port was named.
    pub fn has_port(&self) -> bool {
        self.what.port.is_some()
    }

    /// Adds the entry and shows it.
    pub fn run(self, verb: EntryVerb, all_ports: bool, context: &mut Context) -> Result<Exit, Failure> {
        if !self.op.is_empty() {
            let message = "--op belongs to the host half, which this version does not have";
            return Err(Failure::BadInput(message.to_owned()));
        }
        let direction = match (self.out, self.both) {
            (_, true) => Direction::Both,
            (true, false) => Direction::Out,
            (false, false) => Direction::In,
        };
        let request = EntryRequest {
            verb,
            what: self.what,
            direction,
            for_seconds: self.for_seconds,
            reason: self.reason,
            force: self.force,
            all_ports,
        };
        let entry = context.ask(context.client.add_entry(&request))?;
        if self.listing.json {
            context.json(&entry)?;
        } else {
            writeln!(context, "{}", describe(&entry, units::now()))?;
        }
        Ok(Exit::Done)
    }
}

/// An entry in one line: id, rule, end, reason.
pub fn describe(entry: &Entry, now: u64) -> String {
    let end = entry.expires.map_or_else(
        || "until undone".to_owned(),
        |expires| format!("for {}", units::duration(expires.saturating_sub(now))),
    );
    let reason = entry.reason.as_ref().map_or_else(String::new, |reason| format!(" ({})", table::clean(reason)));
    format!("{}  {} {}  {end}{reason}", entry.id, entry.verb.word(), entry.rule())
}
