use std::io::Write as _;

use clap::Args;

use super::Listing;
use crate::context::Context;
use crate::{Exit, Failure, units};

/// Print the policy of a generation
///
/// As it was applied.
#[derive(Args, Debug)]
pub struct Show {
    /// A number from `ringctl history`, `running`, `previous` or `pending`
    #[arg(default_value = "running")]
    generation: String,
    #[command(flatten)]
    listing: Listing,
}

impl Show {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let shown = context.ask(context.client.generation(&self.generation))?;
        if self.listing.json {
            context.json(&shown)?;
            return Ok(Exit::Done);
        }
        let about = &shown.about;
        let applied = units::timestamp(about.applied);
        writeln!(
            context,
            "# generation {}, {}, applied {applied} by {}",
            about.generation,
            about.state.word(),
            about.by
        )?;
        for text in &shown.texts {
            writeln!(context, "# {}", text.name)?;
            write!(context, "{}", text.text)?;
            if !text.text.ends_with('\n') {
                writeln!(context)?;
            }
        }
        Ok(Exit::Done)
    }
}
