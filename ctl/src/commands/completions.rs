use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::context::Context;
use crate::{Cli, Exit, Failure};

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl completions bash > /etc/bash_completion.d/ringctl
  ringctl completions fish > ~/.config/fish/completions/ringctl.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        // Into memory first: the generator panics when its output cannot be written.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ringctl", &mut script);
        std::io::Write::write_all(context, &script)?;
        Ok(Exit::Done)
    }
}
