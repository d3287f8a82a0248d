use std::io::Write as _;

use clap::Args;
use ringfence_api::{Direction, Element, Entry, EntryList};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, word};
use crate::{Exit, Failure, units};

/// List dynamic entries and set elements
///
/// Entries newest first.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    listing: Listing,
}

impl List {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let list = context.ask(context.client.entries())?;
        if self.listing.json {
            context.json(&list)?;
            return Ok(Exit::Done);
        }
        write_list(&list, context)?;
        Ok(Exit::Done)
    }
}

fn write_list(list: &EntryList, context: &mut Context) -> Result<(), Failure> {
    let now = units::now();
    if list.entries.is_empty() && list.elements.is_empty() {
        writeln!(context, "no dynamic entries, no set elements")?;
    }
    if !list.entries.is_empty() {
        entries(&list.entries, now).write(context)?;
    }
    if !list.elements.is_empty() {
        elements(&list.elements, now).write(context)?;
    }
    if list.elements_left_out > 0 {
        writeln!(context, "... and {} more elements: `ringctl set list NAME`", list.elements_left_out)?;
    }
    Ok(())
}

fn entries(entries: &[Entry], now: u64) -> Table {
    let mut table =
        Table::new(["ID", "VERB", "WHAT", "DIRECTION", "EXPIRES", "HITS", "BYTES", "BY", "REASON"], &[0, 5, 6]);
    for entry in entries {
        let direction = match entry.direction {
            Some(Direction::In) => "in",
            Some(Direction::Out) => "out",
            Some(Direction::Both) => "both",
            None => "-",
        };
        table.row([
            entry.id.to_string().into(),
            word(entry.verb.word()),
            entry.what.to_string().into(),
            direction.into(),
            units::left(entry.expires, now).into(),
            units::count(entry.hits.max(entry.packets)).into(),
            if entry.direction.is_some() { units::count(entry.bytes).into() } else { "-".into() },
            entry.by.as_str().into(),
            entry.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

/// Elements as a table.
pub fn elements(elements: &[Element], now: u64) -> Table {
    let mut table = Table::new(["SET", "ELEMENT", "EXPIRES", "BY", "REASON"], &[]);
    for element in elements {
        table.row([
            element.set.as_str().into(),
            element.address.to_string().into(),
            units::left(element.expires, now).into(),
            element.by.as_deref().unwrap_or_default().into(),
            element.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}
