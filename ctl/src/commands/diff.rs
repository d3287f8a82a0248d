use std::io::Write;

use anstyle::{AnsiColor, Style};
use clap::Args;
use ringfence_api::{Change, ChangeKind, DiffQuery};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, clean, styled, word};
use crate::{Exit, Failure};

/// Print what differs between two generations
///
/// Their rules first, then their texts.
#[derive(Args, Debug)]
pub struct Diff {
    /// The older; the previous generation unless said
    from: Option<u64>,
    /// The newer; the running generation unless said
    to: Option<u64>,
    #[command(flatten)]
    listing: Listing,
}

impl Diff {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let diff = context.ask(context.client.diff(DiffQuery { from: self.from, to: self.to }))?;
        if self.listing.json {
            context.json(&diff)?;
        } else {
            write_diff(&diff, context)?;
        }
        Ok(Exit::Done)
    }
}

/// Writes a difference for people.
pub fn write_diff(diff: &ringfence_api::Diff, out: &mut dyn Write) -> std::io::Result<()> {
    if diff.rules.is_empty() && diff.files.is_empty() {
        return writeln!(out, "no changes");
    }
    let mut table = Table::plain();
    for change in &diff.rules {
        let (sign, style) = sign(change.change);
        table.row([
            styled(sign, style),
            change.chain.as_str().into(),
            word(&change.verb),
            styled(change.name.as_str(), style),
            place(change).into(),
        ]);
    }
    table.write(out)?;
    for file in &diff.files {
        for line in file.unified.lines() {
            let style = line_style(line);
            writeln!(out, "{style}{}{style:#}", clean_line(line))?;
        }
    }
    Ok(())
}

fn sign(change: ChangeKind) -> (&'static str, Style) {
    match change {
        ChangeKind::Added => ("+", AnsiColor::Green.on_default()),
        ChangeKind::Removed => ("-", AnsiColor::Red.on_default()),
        ChangeKind::Changed => ("~", AnsiColor::Yellow.on_default()),
        ChangeKind::Moved => (">", AnsiColor::Cyan.on_default()),
    }
}

fn line_style(line: &str) -> Style {
    match line.as_bytes().first() {
        _ if line.starts_with("+++") || line.starts_with("---") => Style::new().bold(),
        Some(b'+') => AnsiColor::Green.on_default(),
        Some(b'-') => AnsiColor::Red.on_default(),
        Some(b'@') => AnsiColor::Cyan.on_default(),
        _ => Style::new(),
    }
}

/// A policy's own text: tabs are what they are, other control characters are not for the terminal.
fn clean_line(line: &str) -> String {
    line.split('\t').map(clean).collect::<Vec<_>>().join("\t")
}

fn place(change: &Change) -> String {
    match (&change.file, change.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => String::new(),
    }
}
