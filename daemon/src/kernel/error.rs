//! What can go wrong between the daemon and the kernel.

use std::{io, path::PathBuf};

use super::host::Obstacle;

/// An error of the kernel half of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not load BPF programs or attach them.
    #[error("lacks the capability {capability}; run it as root, or as the unit file does")]
    Privilege {
        /// Name of the capability.
        capability: &'static str,
    },
    /// The kernel lacks something that Ringfence cannot do without.
    #[error("the kernel lacks {feature}, which Linux has since {since}")]
    Unsupported {
        /// What it lacks, and the configuration option where there is one.
        feature: &'static str,
        /// First kernel that has it.
        since: &'static str,
    },
    /// The directory for pins is not on a BPF filesystem.
    #[error("{path} is not on a BPF filesystem; mount one with `mount -t bpf bpf {path}`", path = path.display())]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The BPF filesystem with the pins is not mounted any more.
    #[error(
        "the BPF filesystem at {path} was unmounted: what is in force ends with this daemon; `mount -t bpf bpf {path}` (or where it was mounted), and everything is pinned there again",
        path = path.display()
    )]
    Unmounted {
        /// Where it was.
        path: PathBuf,
    },
    /// The pins were removed one by one.
    #[error("the pins below {path} were removed by somebody, and what was attached with them: restart ringfenced", path = path.display())]
    Removed {
        /// Where they were.
        path: PathBuf,
    },
    /// Another daemon holds the same pins.
    #[error("another ringfenced owns {path}", path = path.display())]
    Owned {
        /// The directory.
        path: PathBuf,
    },
    /// Another daemon, with pins elsewhere, judges system calls already.
    #[error(
        "another ringfenced, with pins elsewhere, judges system calls already (at {place}): `ringctl off` it by its `--socket`, or leave the rules about the host to it"
    )]
    Another {
        /// Where it does.
        place: &'static str,
    },
    /// Something pinned under our names is not what this version makes.
    #[error("{path} is pinned but is not what this version of Ringfence pins there; remove it, or run `ringctl off` of the version that made it", path = path.display())]
    Foreign {
        /// The pin.
        path: PathBuf,
    },
    /// All slots are taken by generations that are in force or being loaded.
    #[error("no free slot for another generation")]
    NoSlot,
    /// The generation is still the current or the previous one.
    #[error("generation {generation} is in force")]
    InForce {
        /// Its number.
        generation: u64,
    },
    /// The frame is too short for a test run.
    #[error("the kernel takes no frame of {length} bytes for a test run, it needs at least {needed}")]
    FrameTooShort {
        /// Bytes given.
        length: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The generation has no program for the question.
    #[error("the policy has no {chain} chain")]
    NoChain {
        /// The chain asked about.
        chain: &'static str,
    },
    /// A value is larger than the table it goes into.
    #[error("{what} is full: {limit} entries")]
    Full {
        /// The table.
        what: &'static str,
        /// Its size.
        limit: u32,
    },
    /// A table changes faster than it can be read.
    #[error("{what} changes all the time")]
    Busy {
        /// The table.
        what: &'static str,
    },
    /// The kernel refused to load a program.
    #[error("the kernel refuses the program {program}: {log}")]
    Load {
        /// Its name.
        program: String,
        /// The last lines of the verifier's log.
        log: String,
        /// The answer of the system call.
        #[source]
        source: io::Error,
    },
    /// The object could not be relocated or its maps not made.
    #[error("cannot load the object {object}")]
    Object {
        /// Its name.
        object: &'static str,
        /// Why.
        #[source]
        source: aya::EbpfError,
    },
    /// An object lacks a program that this version expects: the build is broken.
    #[error("the object {object} has no {kind} program {program}")]
    Missing {
        /// Its name.
        object: &'static str,
        /// The program's type.
        kind: &'static str,
        /// The program's name.
        program: String,
    },
    /// A test run failed.
    #[error("test run of {program}")]
    TestRun {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// `off` removed everything it knows, and something is still there.
    #[error("still present after removal: {left}")]
    Left {
        /// What.
        left: String,
    },
    /// The host half, or a part of it, is not to be had on this machine.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Host(Obstacle),
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Result of a kernel operation.
pub type Result<T> = std::result::Result<T, KernelError>;

/// Names what was attempted.
pub trait Context<T> {
    /// Wraps the error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| KernelError::Io { what: what(), source: error.into() })
    }
}
