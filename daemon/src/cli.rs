//! The command line of `ringfenced`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The policy that is tried when nothing else says which.
pub const DEFAULT_POLICY: &str = "/etc/ringfence/policy.yaml";

/// Enforces one YAML policy: loads it into the kernel, follows the interfaces, and answers `ringctl`.
///
/// Runs in the foreground. What it loaded stays in force when it ends.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringfenced", version)]
pub struct Arguments {
    /// Policy file, or directory of *.yaml, to put in force; otherwise the last confirmed generation is, otherwise
    /// /etc/ringfence/policy.yaml
    #[arg(long, value_name = "FILE|DIR")]
    pub policy: Option<PathBuf>,
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH", default_value = ringfence_api::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Directory for generations, dynamic entries and set elements
    #[arg(long, value_name = "DIR", default_value = ringfence_api::DEFAULT_STATE)]
    pub state_dir: PathBuf,
    /// Directory on a BPF filesystem for pins
    #[arg(long, value_name = "DIR", default_value = ringfence_api::DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
    /// Directory of a cgroup2 file system: where `connect` and `bind` rules are enforced if the kernel has no security
    /// hooks to give; otherwise the root of the hierarchy
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Remove everything Ringfence owns from the kernel, note that it is off, and end: what `ringctl off` calls where no
    /// daemon runs
    #[arg(long, conflicts_with_all = ["policy", "require"])]
    pub off: bool,
    /// Halves whose hooks must all be there: fail instead of running degraded
    #[arg(long, value_name = "HALF", value_delimiter = ',')]
    pub require: Vec<Half>,
}

/// A half of Ringfence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Half {
    /// Packets.
    Network,
    /// System calls.
    Host,
}

impl Arguments {
    /// Whether a half was named in `--require`.
    #[must_use]
    pub fn requires(&self, half: Half) -> bool {
        self.require.contains(&half)
    }

    /// What a reload reads.
    #[must_use]
    pub fn configured_policy(&self) -> PathBuf {
        self.policy.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_POLICY))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        Arguments::command().debug_assert();
        let arguments = Arguments::try_parse_from(["ringfenced"]).unwrap();
        assert_eq!(arguments.socket, PathBuf::from("/run/ringfence/ringfenced.sock"));
        assert_eq!(arguments.state_dir, PathBuf::from("/var/lib/ringfence"));
        assert_eq!(arguments.bpffs, PathBuf::from("/sys/fs/bpf/ringfence"));
        assert_eq!(arguments.configured_policy(), PathBuf::from("/etc/ringfence/policy.yaml"));
        assert!(!arguments.requires(Half::Network));
    }

    #[test]
    fn require_takes_a_list_of_halves_and_nothing_else() {
        let arguments = Arguments::try_parse_from(["ringfenced", "--require", "network,host"]).unwrap();
        assert!(arguments.requires(Half::Network) && arguments.requires(Half::Host));
        let error = Arguments::try_parse_from(["ringfenced", "--require", "nework"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
