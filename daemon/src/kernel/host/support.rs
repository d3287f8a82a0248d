//! What of the host half the machine can do, found out by trying.

use std::{
    fs,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type::{BPF_CGROUP_INET4_CONNECT, BPF_LSM_MAC};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use ringfence_abi::host::{HOOKS, KernelLayout};

use super::{btf::Btf, layout, mountinfo, obstacle::Obstacle};
use crate::kernel::sys;

/// What of the host half this machine can do.
#[derive(Clone, Debug)]
pub struct Support {
    /// What stands in the way of the security hooks; `None`: they can be had.
    pub lsm: Option<Obstacle>,
    /// What stands in the way of judging `connect` and `bind` at a cgroup, which is done where `lsm` is an obstacle.
    pub cgroup: Option<Obstacle>,
    /// Hooks of [`ringfence_abi::host::HOOKS`] that this kernel lacks.
    pub missing: Vec<&'static str>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// For the status.
    pub support: Support,
    /// Where the kernel keeps what the programs read.
    pub layout: Option<KernelLayout>,
    /// The cgroup; `None` with an obstacle in `support.cgroup`.
    pub cgroup: Option<OwnedFd>,
}

/// Tries everything. `cgroup` is a directory of a cgroup2 file system; `None`: the root of the one that is mounted.
pub fn find(cgroup: Option<&Path>) -> Found {
    let btf = Btf::read().ok().flatten();
    let missing = btf.as_ref().map(missing_hooks).unwrap_or_default();
    let lsm = btf.as_ref().ok_or(Obstacle::NoBtf).and_then(security);
    // Without security hooks no path is walked, and the lock over names is of no interest.
    let without_paths = || layout::resolve(btf.as_ref()?, 0).ok();
    let (lsm, layout) = match lsm {
        Ok(layout) => (None, Some(layout)),
        Err(obstacle) => (Some(obstacle), without_paths()),
    };
    let cgroup = cgroup.map_or_else(cgroup_root, |path| Ok(path.to_owned())).and_then(|path| open_cgroup(&path));
    let support = Support { lsm, cgroup: cgroup.as_ref().err().cloned(), missing };
    Found { support, layout, cgroup: cgroup.ok() }
}

fn missing_hooks(btf: &Btf) -> Vec<&'static str> {
    HOOKS.iter().map(|hook| hook.name).filter(|name| !btf.has_function(&format!("bpf_lsm_{name}"))).collect()
}

fn security(btf: &Btf) -> Result<KernelLayout, Obstacle> {
    // A hook that every kernel has, and hardly anybody calls.
    let hook = btf.function("bpf_lsm_settime").ok_or(Obstacle::NotBuilt)?;
    // Attached for an instant. A kernel may load such programs and still refuse to attach them.
    let attached = sys::security_probe(hook)
        .and_then(|program| sys::link_create(program.as_fd(), 0, BPF_LSM_MAC as u32, 0).map(drop));
    attached.map_err(|error| Obstacle::Refused { error: error.to_string() })?;
    // What is attached is never called while the module is not started.
    let active = active_modules().map_err(|error| Obstacle::NotActive { active: format!("unknown ({error})") })?;
    if !active.split(',').any(|module| module == "bpf") {
        return Err(Obstacle::NotActive { active });
    }
    let hidden = || Obstacle::Layout { member: "the symbol rename_lock (CONFIG_KALLSYMS_ALL)".to_owned() };
    let rename_lock = layout::symbol("rename_lock").ok().flatten().ok_or_else(hidden)?;
    layout::resolve(btf, rename_lock)
}

/// The names of the started security modules, as in the boot parameter `lsm=`.
fn active_modules() -> io::Result<String> {
    let text = match fs::read_to_string("/sys/kernel/security/lsm") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let securityfs = sys::private_mount(c"securityfs")?;
            let mut text = String::new();
            fs::File::from(openat(&securityfs, "lsm", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
                .read_to_string(&mut text)?;
            text
        }
        result => result?,
    };
    Ok(text.trim().to_owned())
}

fn cgroup_root() -> Result<PathBuf, Obstacle> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| Obstacle::Cgroup { error: error.to_string() })?;
    let found = mountinfo::parse(&text).into_iter().find(|line| line.kind == b"cgroup2");
    let line = found.ok_or_else(|| Obstacle::Cgroup { error: "no cgroup2 file system is mounted".to_owned() })?;
    Ok(Path::new("/").join(std::ffi::OsStr::from_bytes(&line.point)))
}

fn open_cgroup(directory: &Path) -> Result<OwnedFd, Obstacle> {
    let obstacle = |error: io::Error| Obstacle::Cgroup { error: format!("{}: {error}", directory.display()) };
    let cgroup = OwnedFd::from(fs::File::open(directory).map_err(obstacle)?);
    // The kernel answers for cgroups of version 2 only.
    sys::attached(cgroup.as_raw_fd().cast_unsigned(), BPF_CGROUP_INET4_CONNECT as u32).map_err(obstacle)?;
    Ok(cgroup)
}
