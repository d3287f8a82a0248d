use std::io::Write as _;

use clap::Args;

use crate::context::Context;
use crate::{Exit, Failure};

/// Remove everything Ringfence has in the kernel, until `on`
///
/// Removes nothing else, and stays off over restarts.
#[derive(Args, Debug)]
pub struct Off {}

impl Off {
    #[expect(clippy::unused_self, reason = "every command has the same shape")]
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let answer = context.ask(context.client.off())?;
        for thing in answer.removed {
            writeln!(context, "removed {thing}")?;
        }
        writeln!(context, "off: nothing is enforced until `ringctl on`")?;
        Ok(Exit::Done)
    }
}
