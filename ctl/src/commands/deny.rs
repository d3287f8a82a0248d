use std::io::Write as _;

use clap::Args;
use ringfence_api::{Calls, Direction, Entry, EntryRequest, EntryVerb, What};

use super::Listing;
use crate::context::Context;
use crate::target::Typed;
use crate::{Exit, Failure, accounts, table, target, units};

/// Refuse an address or a path at once, before the rules
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
  ringctl deny /srv/keys/ca.pem --op read     whoever asks
  ringctl deny '/srv/data/**' --op read --exe /usr/bin/tar --uid backup --for 1h

One that would cut your own session, a `never` member of a set, root's login or ringfenced itself is refused without
--force.")]
pub struct Deny {
    #[command(flatten)]
    entry: EntryArgs,
}

/// Arguments of `deny` and `allow`.
#[derive(Args, Debug)]
pub struct EntryArgs {
    /// What it is about.
    #[arg(
        value_parser = target::parse,
        help = "Address, prefix, ADDR:PORT or [V6]:PORT (the port is the destination port); or a path, or DIR/**"
    )]
    what: Typed,
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
    /// Also when it cuts your own session, root's login or ringfenced
    #[arg(long)]
    force: bool,
    /// Operations on the path, such as read,write,exec
    #[arg(long, value_name = "OPERATION", value_delimiter = ',')]
    op: Vec<String>,
    /// Only by this executable
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// Only by this user: a number, or a name of /etc/passwd
    #[arg(long, value_name = "USER", value_parser = accounts::uid)]
    uid: Option<u32>,
    #[command(flatten)]
    listing: Listing,
}

impl Deny {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        self.entry.run(EntryVerb::Deny, false, context)
    }
}

impl EntryArgs {
    /// Whether it is about an address, and every port of it.
    pub fn is_bare_address(&self) -> bool {
        matches!(&self.what, Typed::Packets(target) if target.port.is_none())
    }

    /// Adds the entry and shows it.
    pub fn run(self, verb: EntryVerb, all_ports: bool, context: &mut Context) -> Result<Exit, Failure> {
        let direction = match (self.out, self.both) {
            (_, true) => Direction::Both,
            (true, false) => Direction::Out,
            (false, false) => Direction::In,
        };
        let bad = |message: &str| Failure::BadInput(message.to_owned());
        let about_calls = !self.op.is_empty() || self.exe.is_some() || self.uid.is_some();
        let what = match self.what {
            Typed::Packets(_) if about_calls => {
                return Err(bad("--op, --exe and --uid go with a path, not with an address"));
            }
            Typed::Packets(target) => What::Packets(target),
            Typed::Path(_) if self.out || self.both || all_ports => {
                return Err(bad("--out, --both and --all-ports go with an address, not with a path"));
            }
            Typed::Path(_) if self.op.is_empty() => {
                return Err(bad("say what may not, or may, be done with the path: --op read,write,exec"));
            }
            Typed::Path(path) => What::Calls(Calls { path, op: self.op, exe: self.exe, uid: self.uid }),
        };
        let request = EntryRequest {
            verb,
            what,
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
    format!("{}  {} {}  {end}{reason}", entry.id, entry.verb.word(), table::clean(&entry.rule()))
}
