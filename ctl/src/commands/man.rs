use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::context::Context;
use crate::{Cli, Exit, Failure};

/// Write the manual pages
///
/// One a command, for packagers.
#[derive(Args, Debug)]
pub struct Man {
    /// An existing directory to write them to
    directory: PathBuf,
}

impl Man {
    pub fn run(self, _: &mut Context) -> Result<Exit, Failure> {
        let command = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, &self.directory)
            .map_err(|error| Failure::BadInput(format!("cannot write to {}: {error}", self.directory.display())))?;
        Ok(Exit::Done)
    }
}
