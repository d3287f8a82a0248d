use std::io::Write as _;

use clap::Args;

use super::Listing;
use crate::context::Context;
use crate::{Exit, Failure};

/// Remove everything Ringfence has in the kernel, until `on`
///
/// Removes nothing else, and stays off over restarts.
#[derive(Args, Debug)]
pub struct Off {
    #[command(flatten)]
    listing: Listing,
}

impl Off {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let answer = context.ask(context.client.off())?;
        if self.listing.json {
            context.json(&answer)?;
            return Ok(Exit::Done);
        }
        for thing in answer.removed {
            writeln!(context, "removed {thing}")?;
        }
        writeln!(context, "off: nothing is enforced until `ringctl on`")?;
        Ok(Exit::Done)
    }
}
