use std::io::Write as _;

use clap::Args;
use ringfence_api::GenerationRequest;

use crate::context::Context;
use crate::{Exit, Failure};

/// Go back to an earlier generation
#[derive(Args, Debug)]
pub struct Rollback {
    /// Which one, from `ringctl history`; the previous one unless said
    generation: Option<u64>,
    /// Also when it would cut your own session
    #[arg(long)]
    force: bool,
}

impl Rollback {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let request = GenerationRequest { generation: self.generation, force: self.force };
        let answer = context.ask(context.client.rollback(request))?;
        writeln!(context, "generation {} is in force", answer.generation)?;
        Ok(Exit::Done)
    }
}
