use clap::Args;

use crate::context::Context;
use crate::{Exit, Failure};

/// Print the JSON Schema of the policy language, for editors
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ringctl schema > ringfence.schema.json
  # then in a policy:  # yaml-language-server: $schema=ringfence.schema.json")]
pub struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "every command has the same shape")]
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        context.json(&ringfence_policy::schema())?;
        Ok(Exit::Done)
    }
}
