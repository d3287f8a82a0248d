//! One file a command: its arguments, its question and how the answer is shown.

mod allow;
mod apply;
mod check;
mod completions;
mod confirm;
mod connections;
mod deny;
mod diff;
mod explain;
mod history;
mod list;
mod man;
mod mode;
mod off;
mod on;
mod rollback;
mod rules;
mod schema;
mod set;
mod show;
mod status;
mod undo;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::{Exit, Failure};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Check(check::Check),
    Apply(apply::Apply),
    Confirm(confirm::Confirm),
    Rollback(rollback::Rollback),
    History(history::History),
    Show(show::Show),
    Diff(diff::Diff),
    Status(status::Status),
    Rules(rules::Rules),
    Deny(deny::Deny),
    Allow(allow::Allow),
    List(list::List),
    Undo(undo::Undo),
    Set(set::Set),
    Connections(connections::Connections),
    Mode(mode::Mode),
    Explain(explain::Explain),
    Off(off::Off),
    On(on::On),
    Schema(schema::Schema),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

/// For commands that list something.
#[derive(Args, Clone, Copy, Debug)]
pub struct Listing {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs a command.
pub fn run(command: Command, context: &mut Context) -> Result<Exit, Failure> {
    match command {
        Command::Check(command) => command.run(context),
        Command::Apply(command) => command.run(context),
        Command::Confirm(command) => command.run(context),
        Command::Rollback(command) => command.run(context),
        Command::History(command) => command.run(context),
        Command::Show(command) => command.run(context),
        Command::Diff(command) => command.run(context),
        Command::Status(command) => command.run(context),
        Command::Rules(command) => command.run(context),
        Command::Deny(command) => command.run(context),
        Command::Allow(command) => command.run(context),
        Command::List(command) => command.run(context),
        Command::Undo(command) => command.run(context),
        Command::Set(command) => command.run(context),
        Command::Connections(command) => command.run(context),
        Command::Mode(command) => command.run(context),
        Command::Explain(command) => command.run(context),
        Command::Off(command) => command.run(context),
        Command::On(command) => command.run(context),
        Command::Schema(command) => command.run(context),
        Command::Completions(command) => command.run(context),
        Command::Man(command) => command.run(context),
    }
}
