use clap::Args;
use ringfence_api::EntryVerb;

use super::deny::EntryArgs;
use crate::context::Context;
use crate::{Exit, Failure};

/// Let an address or a path through at once, before the rules
///
/// The entry is in force before the command returns, is judged after the floor and before the rules, newest first,
/// survives restarts and ends by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl allow 198.51.100.7:22 --for 1h --reason 'vendor support'
  ringctl allow 198.51.100.0/24 --all-ports --for 10m
  ringctl allow '/tmp/build/**' --op exec --uid builder --for 2h")]
pub struct Allow {
    #[command(flatten)]
    entry: EntryArgs,
    /// Every port and protocol; needed for an address without a port
    #[arg(long)]
    all_ports: bool,
}

impl Allow {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        if !self.all_ports && self.entry.is_bare_address() {
            let message =
                "this would let every port and protocol through: name a port as in ADDR:PORT, or say --all-ports";
            return Err(Failure::BadInput(message.to_owned()));
        }
        self.entry.run(EntryVerb::Allow, self.all_ports, context)
    }
}
