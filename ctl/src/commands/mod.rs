//! One file a command: its arguments, its question and how the answer is shown.

mod allow;
mod apply;
mod check;
mod completions;
mod confirm;
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
    /// Compile a policy and run its tests, without touching the kernel
    Check(check::Check),
    /// Put a policy in force, whole or not at all
    Apply(apply::Apply),
    /// Keep the generation that waits for confirmation
    Confirm(confirm::Confirm),
    /// Go back to an earlier generation
    Rollback(rollback::Rollback),
    /// List the generations kept on disk
    History(history::History),
    /// Print the policy of a generation
    Show(show::Show),
    /// Print what differs between two generations
    Diff(diff::Diff),
    /// Print what is enforced, where and how
    Status(status::Status),
    /// List every rule with what it counted
    Rules(rules::Rules),
    /// Refuse an address at once, before the rules
    Deny(deny::Deny),
    /// Let an address through at once, before the rules
    Allow(allow::Allow),
    /// List dynamic entries and set elements
    List(list::List),
    /// Take a dynamic entry or a set element back
    Undo(undo::Undo),
    /// Change or list a dynamic set
    Set(set::Set),
    /// Switch between enforcing and only counting
    Mode(mode::Mode),
    /// Say which rule decides about a packet, and why
    Explain(explain::Explain),
    /// Remove everything Ringfence has in the kernel, until `on`
    Off(off::Off),
    /// Enforce again after `off`
    On(on::On),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write the manual pages
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
        Command::Mode(command) => command.run(context),
        Command::Explain(command) => command.run(context),
        Command::Off(command) => command.run(context),
        Command::On(command) => command.run(context),
        Command::Completions(command) => command.run(context),
        Command::Man(command) => command.run(context),
    }
}
