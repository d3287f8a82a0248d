//! Faults that tests ask for: the daemon ends or stops at a named step, as if it had been killed there.
//!
//! They are compiled only where `debug_assertions` are, which the release profile does not have: in a release build
//! [`reach`] is empty, and nothing in the program reads the variable. A test build reads it, but does nothing without it.

/// The daemon has come to this step. Steps are named after what has just been done.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_step: &str) {}

#[cfg(debug_assertions)]
pub use asked::reach;

/// The version below which pins are: the layouts', or in a test build the one that a test pretends.
#[must_use]
pub fn abi_version() -> u32 {
    #[cfg(debug_assertions)]
    if let Some(version) = asked::abi_version() {
        return version;
    }
    ringfence_abi::ABI_VERSION
}

#[cfg(debug_assertions)]
mod asked {
    use std::env;
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::path::Path;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    /// Names a file with one of these lines:
    ///
    /// * `kill STEP`: end there by SIGKILL, once: the file is removed before;
    /// * `stop STEP`: stop there by SIGSTOP, once, until SIGCONT;
    /// * `trace`: every step is added to the file as a line of its own.
    const FILE: &str = "RINGFENCE_FAULTS";
    /// The number of the layouts that is to be pretended.
    const ABI: &str = "RINGFENCE_ABI";

    /// The daemon has come to this step.
    pub fn reach(step: &str) {
        let Some(path) = env::var_os(FILE) else { return };
        let path = Path::new(&path);
        let Ok(text) = fs::read_to_string(path) else { return };
        let signal = match text.lines().next().unwrap_or_default().split_once(' ') {
            Some(("kill", asked)) if asked == step => Signal::SIGKILL,
            Some(("stop", asked)) if asked == step => Signal::SIGSTOP,
            None if text.starts_with("trace\n") => {
                // A step that cannot be noted is missing in the trace, and so the test that reads it fails.
                let _ = File::options().append(true).open(path).and_then(|mut file| writeln!(file, "{step}"));
                return;
            }
            _ => return,
        };
        if fs::remove_file(path).is_ok() {
            // A signal to oneself is delivered before this returns; if not, the test waits in vain and fails.
            let _ = kill(getpid(), signal);
        }
    }

    pub(super) fn abi_version() -> Option<u32> {
        env::var(ABI).ok()?.parse().ok()
    }
}
