//! What the daemon gives up once it has started.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::stat::{Mode, umask};

use crate::error::{Error, Result};

/// What is kept, and what for.
const KEPT: [Capability; 6] = [
    // Maps, programs and pins.
    Capability::CAP_BPF,
    // Pointer arithmetic in programs; test runs.
    Capability::CAP_PERFMON,
    // Attaching to devices, rtnetlink.
    Capability::CAP_NET_ADMIN,
    // The socket's group, files of the state directory that root owns.
    Capability::CAP_CHOWN,
    // Reading an ancestor's descriptors: the caller's own session (see `dynamic::session`); executables, namespaces and
    // mounts of processes that run as others.
    Capability::CAP_SYS_PTRACE,
    // The address of the kernel's rename_lock, at the start and at `ringctl on`. Who may load programs that read kernel
    // memory learns nothing more by it.
    Capability::CAP_SYSLOG,
];

/// Files the daemon makes are root's alone unless it says otherwise.
pub fn restrict_new_files() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Drops all other capabilities for good: also a program the daemon would start cannot get them back.
pub fn drop_unneeded() -> Result<()> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Error::System {
        what: format!("cannot drop privileges ({what})"),
        error: std::io::Error::other(error.to_string()),
    };
    nix::sys::prctl::set_no_new_privs().map_err(|error| failed("no_new_privs", &error))?;
    let held = caps::read(None, CapSet::Permitted).map_err(|error| failed("reading", &error))?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| held.contains(capability)).collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(|error| failed("reading", &error))? {
        for capability in caps::read(None, CapSet::Bounding).map_err(|error| failed("reading", &error))? {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(|error| failed("bounding set", &error))?;
            }
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| failed("inheritable set", &error))?;
    }
    // Effective before permitted: what is effective must be permitted.
    caps::set(None, CapSet::Effective, &kept).map_err(|error| failed("effective set", &error))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(|error| failed("permitted set", &error))?;
    Ok(())
}
