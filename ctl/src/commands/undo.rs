use std::io::Write as _;

use clap::Args;
use ringfence_api::UndoRequest;

use super::Listing;
use super::deny::describe;
use crate::context::Context;
use crate::target::Typed;
use crate::{Exit, Failure, target, units};

/// Take a dynamic entry or a set element back
///
/// By id, or by what it is about.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl undo 7
  ringctl undo 203.0.113.5      entries about exactly this address, and the address in every dynamic set
  ringctl undo /etc/shadow      entries about exactly this path")]
pub struct Undo {
    /// Id from `ringctl list`, or WHAT as it was given to deny, allow or set add
    #[arg(value_name = "ID|WHAT", value_parser = parse)]
    what: UndoRequest,
    #[command(flatten)]
    listing: Listing,
}

fn parse(text: &str) -> Result<UndoRequest, String> {
    match text.parse() {
        Ok(id) => Ok(UndoRequest::Id(id)),
        Err(_) => Ok(match target::parse(text)? {
            Typed::Packets(target) => UndoRequest::What(target),
            Typed::Path(path) => UndoRequest::Path(path),
        }),
    }
}

impl Undo {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let undone = context.ask(context.client.undo(self.what))?;
        if self.listing.json {
            context.json(&undone)?;
            return Ok(Exit::Done);
        }
        let now = units::now();
        for entry in &undone.entries {
            writeln!(context, "undone: {}", describe(entry, now))?;
        }
        for element in &undone.elements {
            writeln!(context, "undone: {} in set {}", element.address, element.set)?;
        }
        Ok(Exit::Done)
    }
}
