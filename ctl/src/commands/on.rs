use std::io::Write as _;

use clap::Args;

use crate::context::Context;
use crate::{Exit, Failure};

/// Enforce again after `off`
///
/// The last confirmed generation is in force then.
#[derive(Args, Debug)]
pub struct On {}

impl On {
    #[expect(clippy::unused_self, reason = "every command has the same shape")]
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let answer = context.ask(context.client.on())?;
        writeln!(context, "generation {} is in force", answer.generation)?;
        Ok(Exit::Done)
    }
}
