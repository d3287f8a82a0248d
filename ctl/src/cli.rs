//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::commands::Command;

/// Exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, or yes
  1  the answer is no: a policy test failed, --expect was not met, nothing to undo, refused
     without --force; for `status`: degraded, audit, loss or a pending confirmation
  2  bad usage or bad input (policy, arguments)
  3  the kernel, the daemon or a permission is missing; for `status`: not enforcing

Examples:
  ringctl check policy.yaml            try a policy without touching the kernel
  ringctl apply policy.yaml --confirm 60s
                                       put it in force; without `ringctl confirm` it goes again
  ringctl rules                        every rule with what it counted
  ringctl deny 203.0.113.5 --for 10m   refuse an address at once, for ten minutes
  ringctl explain --packet 'proto=tcp from=203.0.113.5 to=192.0.2.1 port=22'
                                       which rule decides, and why
  ringctl -H root@web1 status          the same command on another host, over ssh";

const GLOBAL: &str = "Global options";

/// One policy for a Linux host: try it, put it in force, see what it does.
#[derive(Debug, Parser)]
#[command(name = "ringctl", version, after_help = EXIT_CODES, max_term_width = 120, disable_help_subcommand = true)]
pub struct Cli {
    /// Where ringfenced listens
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", default_value = ringfence_api::DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Run the command on another host, over ssh; files it names are files there
    #[arg(short = 'H', long, global = true, help_heading = GLOBAL, value_name = "USER@HOST")]
    pub host: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}
