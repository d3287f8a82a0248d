use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::Listing;
use crate::context::Context;
use crate::recovery::{self, Removed};
use crate::{Exit, Failure};

/// Remove everything Ringfence has in the kernel, until `on`
///
/// Removes nothing else, and stays off over restarts. Where ringfenced does not run, the pins are removed without it, as
/// root: what is attached goes with them, and nothing is enforced when the command returns.
#[derive(Args, Debug)]
#[command(after_help = "\
If not even this command can be run any more: boot with `ringfence=off` on the kernel's command line.")]
pub struct Off {
    /// Where ringfenced pins what enforces; used when it is down
    #[arg(long, value_name = "DIR", default_value = ringfence_api::DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Its state directory; used when it is down
    #[arg(long, value_name = "DIR", default_value = ringfence_api::DEFAULT_STATE)]
    state_dir: PathBuf,
    /// Its program; used when it is down. Looked for beside this one, then in PATH, unless said
    #[arg(long, value_name = "PATH")]
    ringfenced: Option<PathBuf>,
    #[command(flatten)]
    listing: Listing,
}

impl Off {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let removed = match context.ask(context.client.off()) {
            Ok(answer) => answer.removed,
            Err(error) if error.daemon_is_down() => {
                let pinned = !self.bpffs.read_dir().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
                match (pinned, self.state_dir.exists()) {
                    (false, false) => return Err(error.into()),
                    // A start must not bring back what was to go.
                    (false, true) => recovery::stay_off(&self.state_dir).map(|()| Vec::new())?,
                    (true, _) => self.without_daemon()?,
                }
            }
            Err(error) => return Err(error.into()),
        };
        if self.listing.json {
            context.json(&ringfence_api::OffAnswer { removed })?;
            return Ok(Exit::Done);
        }
        for thing in removed {
            writeln!(context, "removed {thing}")?;
        }
        writeln!(context, "off: nothing is enforced until `ringctl on`")?;
        Ok(Exit::Done)
    }

    /// Links first: with the last pin of its link a program is detached, before anything it reads goes. The daemon's own
    /// `--off` does the rest, TC filters of old kernels included; where it cannot be run, the pins go without it.
    fn without_daemon(&self) -> Result<Vec<String>, Failure> {
        let Removed { mut things, clsact } = recovery::remove_links(&self.bpffs)?;
        recovery::stay_off(&self.state_dir)?;
        let beside =
            std::env::current_exe().ok().map(|path| path.with_file_name("ringfenced")).filter(|path| path.exists());
        let mut daemon = Command::new(self.ringfenced.clone().or(beside).unwrap_or_else(|| "ringfenced".into()));
        daemon.arg("--off").arg("--bpffs").arg(&self.bpffs).arg("--state-dir").arg(&self.state_dir);
        match daemon.output() {
            Ok(output) if output.status.success() => {}
            _ if clsact => {
                return Err(Failure::Missing(format!(
                    "the links are gone, but TC filters of this kernel may still judge packets by what is pinned below {}: \
                     run `ringfenced --off`, or `tc qdisc del dev DEVICE clsact` for each device",
                    self.bpffs.display()
                )));
            }
            _ => recovery::remove_pins(&self.bpffs)?,
        }
        things.push(format!("pins below {}", self.bpffs.display()));
        Ok(things)
    }
}
