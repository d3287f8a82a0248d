use clap::Args;

use super::Listing;
use crate::context::Context;
use crate::table::Table;
use crate::{Exit, Failure, units};

/// List the generations kept on disk
///
/// Newest first.
#[derive(Args, Debug)]
pub struct History {
    #[command(flatten)]
    listing: Listing,
}

impl History {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let generations = context.ask(context.client.history())?;
        if self.listing.json {
            context.json(&generations)?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["GENERATION", "STATE", "APPLIED", "BY", "RULES", "POLICY"], &[0, 4]);
        for one in generations {
            table.row([
                one.generation.to_string().into(),
                one.state.word().into(),
                units::timestamp(one.applied).into(),
                one.by.into(),
                one.rules.to_string().into(),
                one.policy.into(),
            ]);
        }
        table.write(context)?;
        Ok(Exit::Done)
    }
}
