//! Why the host half is not to be had, and what to do about it.

/// What stands in the way of a part of the host half on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The kernel was built without type information.
    #[error("the kernel has no BPF type information (CONFIG_DEBUG_INFO_BTF)")]
    NoBtf,
    /// The kernel was built without the BPF security module.
    #[error("the kernel has no BPF security module (CONFIG_BPF_LSM)")]
    NotBuilt,
    /// It was built with it, but the module is not started.
    #[error("the BPF security module is not active; active are: {active}")]
    NotActive {
        /// The modules that are, as in the boot parameter `lsm=`.
        active: String,
    },
    /// The kernel attaches no program to its functions.
    #[error("this kernel refuses to attach BPF programs to security hooks: {error}")]
    Refused {
        /// Its answer.
        error: String,
    },
    /// The kernel keeps something in a way this version does not know.
    #[error("this kernel has no `{member}` where Ringfence must read it")]
    Layout {
        /// Structure and member, or symbol.
        member: String,
    },
    /// No cgroup2 file system, or not one that takes programs.
    #[error("no program can be attached to a cgroup: {error}")]
    Cgroup {
        /// Why.
        error: String,
    },
}

impl Obstacle {
    /// What an administrator can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoBtf | Self::NotBuilt => {
                "use a kernel with CONFIG_BPF_LSM and CONFIG_DEBUG_INFO_BTF, such as Debian's".to_owned()
            }
            Self::NotActive { active } => {
                format!("boot with the kernel parameter `lsm={}`", with_bpf(active))
            }
            Self::Refused { .. } => {
                "use a kernel whose configuration allows it (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS), and do not run in a \
                 sandbox that filters bpf()"
                    .to_owned()
            }
            Self::Layout { .. } => "use a newer version of Ringfence, or a kernel it was tested with".to_owned(),
            Self::Cgroup { .. } => {
                "mount a cgroup2 file system, or name its directory with `ringfenced --cgroup`".to_owned()
            }
        }
    }
}

fn with_bpf(active: &str) -> String {
    if active.is_empty() { "bpf".to_owned() } else { format!("{active},bpf") }
}
