//! The host half of the model.

use std::net::IpAddr;

use super::{AddressMatch, Location, Verdict};
use crate::ranges::Ranges;

/// The rules about what processes do. Every policy has them; without `host:` they allow everything.
#[derive(Clone, Debug)]
pub struct HostChain {
    /// The policy says nothing about the host: the chain is there for `ringctl deny PATH`.
    pub implicit: bool,
    /// Verdict where no rule decides: [`Verdict::Accept`] (allow) or [`Verdict::Drop`] (deny).
    pub default: Verdict,
    /// Where `default` was written; `None` in an implicit chain.
    pub default_at: Option<Location>,
    /// Rules in order, flattened.
    pub rules: Vec<HostRule>,
    /// Whether Ringfence guards its own pins, state and processes.
    pub protect_self: bool,
}

impl HostChain {
    /// What a policy without `host:` has.
    #[must_use]
    pub fn implicit() -> Self {
        Self { implicit: true, default: Verdict::Accept, default_at: None, rules: Vec::new(), protect_self: false }
    }
}

/// One rule about the host.
#[derive(Clone, Debug)]
pub struct HostRule {
    /// Given, or `FILE:host[N]`; in a group or block `GROUP/NAME`, a block's default `BLOCK/default`.
    pub name: String,
    /// Whether the name was given: only then do counters carry over by name.
    pub named: bool,
    /// Where the rule was written.
    pub at: Location,
    /// [`Verdict::Accept`] (allow), [`Verdict::Drop`] (deny) or [`Verdict::Count`].
    pub verdict: Verdict,
    /// `mode: audit` on a deny: reports, never decides.
    pub audit: bool,
    /// What it matches.
    pub matches: HostMatch,
}

impl HostRule {
    /// Whether evaluation goes on after a match.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.audit || self.verdict == Verdict::Count
    }

    /// The verb: `allow`, `deny`, `count`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        host_word(self.verdict)
    }
}

/// A verdict's word in the host half.
#[must_use]
pub fn host_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "allow",
        Verdict::Drop | Verdict::Reject => "deny",
        Verdict::Count => "count",
    }
}

/// The conditions of a rule, all of which must hold. `None` or an empty `Vec`: the rule does not read the field; where
/// there are several in a `Vec`, all must hold (a block's `when` adds to a rule's own).
///
/// *Absent* matches nothing that reads the field; *unknown* matches exactly when the verdict
/// [refuses](Verdict::refuses).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostMatch {
    /// Bit per operation ([`ringfence_abi::host::op`]); never 0.
    pub ops: u32,
    /// The object's path, or Unix socket.
    pub path: Vec<PathMatch>,
    /// Name of its file system's type.
    pub fstype: Vec<NameMatch>,
    /// Whether what is executed or mapped has no name.
    pub anonymous: Option<bool>,
    /// The caller's executable.
    pub exe: Vec<PathMatch>,
    /// The executable of some ancestor (in an exclusion: of none).
    pub ancestor: Vec<PathMatch>,
    /// Executable of the process acted on.
    pub target: Vec<PathMatch>,
    /// fsuid for files, euid otherwise.
    pub uid: Option<Ranges>,
    /// Group ids, supplementary ones included.
    pub gid: Vec<GidMatch>,
    /// Whether the file belongs to the caller's uid.
    pub owner: Option<bool>,
    /// Login uid; `u32::MAX` is `unset`.
    pub auid: Option<Ranges>,
    /// The caller's cgroup; `unit` is written as one, see [`PathGlob::Unit`].
    pub cgroup: Vec<PathMatch>,
    /// Whether the caller is in another PID namespace than the host's.
    pub container: Option<bool>,
    /// Address of a socket call; no dynamic sets.
    pub to: Vec<AddressMatch>,
    /// Port of a socket call.
    pub port: Option<Ranges>,
    /// Protocol number of the socket.
    pub proto: Option<Ranges>,
    /// Address family (`AF_`).
    pub family: Option<Ranges>,
    /// Socket type.
    pub kind: Vec<SocketMatch>,
    /// Capability numbers.
    pub capability: Option<Ranges>,
    /// Signal numbers.
    pub signal: Option<Ranges>,
}

/// A condition on paths: some of `any_of` (if given) and none of `none_of`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathMatch {
    /// `None`: any path.
    pub any_of: Option<Vec<PathGlob>>,
    /// Exclusions.
    pub none_of: Vec<PathGlob>,
}

/// A pattern of paths, as it was written and known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathGlob {
    /// `/etc/*.conf`, `/srv/**`, `**/.ssh/**`, `@abstract`; for cgroups `/system.slice/**`.
    Path(String),
    /// A unit of the system manager, with its suffix: that cgroup and all below it, in slices only, so that nothing
    /// below a cgroup delegated to a user passes for it.
    Unit(String),
}

impl std::fmt::Display for PathGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(text) | Self::Unit(text) => f.write_str(text),
        }
    }
}

/// A condition on a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameMatch {
    /// `None`: any name.
    pub any_of: Option<Vec<String>>,
    /// Exclusions.
    pub none_of: Vec<String>,
}

/// A condition on group ids: some of the caller's is in `any_of` (if given), and none is in `none_of`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GidMatch {
    /// `None`: any.
    pub any_of: Option<Ranges>,
    /// Exclusions, perhaps none.
    pub none_of: Ranges,
}

/// A condition on what kind of socket it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketMatch {
    /// `None`: any.
    pub any_of: Option<SocketKinds>,
    /// Exclusions, perhaps none.
    pub none_of: SocketKinds,
}

/// Socket types, and `packet`, which is a family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketKinds {
    /// `SOCK_` numbers.
    pub types: Ranges,
    /// Any socket of the family `AF_PACKET`.
    pub packet: bool,
}

/// One of `tests:` about an access.
#[derive(Clone, Debug)]
pub struct AccessTest {
    /// Where it stands.
    pub at: Location,
    /// The access.
    pub access: Access,
    /// The verdict that must come: accept (allow) or drop (deny).
    pub expect: Verdict,
    /// The rule that must decide, `default` included.
    pub rule: Option<String>,
}

/// What a process asks for, as `tests:` and `ringctl explain --access` describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// One of [`ringfence_abi::host::op`].
    pub op: u32,
    /// Host path of the object, or `@name` of an abstract socket.
    pub path: Option<ObjectPath>,
    /// Type of its file system.
    pub fstype: Option<String>,
    /// `None`: the operation has no such property.
    pub anonymous: Option<bool>,
    /// Host path of the caller's executable; `None`: it has none, as kernel threads.
    pub exe: Option<String>,
    /// The caller runs foreign code: no permission by `exe` holds.
    pub tainted: bool,
    /// Executables of its ancestors.
    pub ancestors: Vec<String>,
    /// fsuid or euid.
    pub uid: u32,
    /// Group ids.
    pub gids: Vec<u32>,
    /// `None`: the operation has no file.
    pub owner: Option<bool>,
    /// Login uid.
    pub auid: u32,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// In another PID namespace than the host's.
    pub container: bool,
    /// Address of a socket call.
    pub to: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// Protocol of the socket.
    pub proto: Option<u8>,
    /// Its family (`AF_`).
    pub family: Option<u8>,
    /// Its type (`SOCK_`).
    pub kind: Option<u8>,
    /// Capability number.
    pub capability: Option<u8>,
    /// Signal number.
    pub signal: Option<u8>,
    /// Executable of the process acted on.
    pub target: Option<String>,
}

/// Whose path it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectPath {
    /// On the host's mounts.
    Host(String),
    /// Within a file system that the host has not mounted: only patterns that begin with `**/` apply.
    Foreign(String),
    /// Abstract socket, without the `@`.
    Abstract(String),
    /// It cannot be told.
    Unknown,
}
