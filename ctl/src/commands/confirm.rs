use std::io::Write as _;

use clap::Args;
use ringfence_api::GenerationRequest;

use crate::context::Context;
use crate::{Exit, Failure};

/// Keep the generation that waits for confirmation
#[derive(Args, Debug)]
pub struct Confirm {
    /// Refuse unless it is this one that waits
    generation: Option<u64>,
}

impl Confirm {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let request = GenerationRequest { generation: self.generation, force: false };
        let answer = context.ask(context.client.confirm(request))?;
        writeln!(context, "generation {} is confirmed", answer.generation)?;
        Ok(Exit::Done)
    }
}
