//! What the kernel and the process must be able to do, found out by trying.

use std::{io, path::Path};

use aya_obj::generated::{
    BPF_F_MMAPABLE, BPF_F_XDP_HAS_FRAGS,
    bpf_attach_type::BPF_TCX_INGRESS,
    bpf_func_id::{BPF_FUNC_ktime_get_boot_ns, BPF_FUNC_loop},
    bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY,
    bpf_prog_type::{BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP},
};
use caps::{CapSet, Capability};

use super::{
    error::{Context as _, KernelError, Result},
    maps, sys,
};

/// Fails unless the process may do what the daemon does.
pub fn privileges() -> Result<()> {
    let has = |capability| {
        caps::has_cap(None, CapSet::Effective, capability)
            .map_err(io::Error::other)
            .context(|| format!("cannot read this process's capabilities (looking for {capability})"))
    };
    // CAP_SYS_ADMIN includes the other two (kernel 5.8, which made them, keeps that).
    let needed: &[(Capability, &'static str)] = if has(Capability::CAP_SYS_ADMIN)? {
        &[(Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN")]
    } else {
        &[
            (Capability::CAP_BPF, "CAP_BPF"),
            (Capability::CAP_PERFMON, "CAP_PERFMON"),
            (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        ]
    };
    for (capability, name) in needed {
        if !has(*capability)? {
            return Err(KernelError::Privilege { capability: name });
        }
    }
    Ok(())
}

/// Fails unless the kernel has everything that the network half cannot do without.
pub fn kernel() -> Result<()> {
    let xdp = BPF_PROG_TYPE_XDP as u32;
    need("BPF type information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)", "5.4", btf())?;
    need("XDP programs", "4.8", sys::program_loads(xdp, 0, 0))?;
    need("TC programs", "4.1", sys::program_loads(BPF_PROG_TYPE_SCHED_CLS as u32, 0, 0))?;
    let programs = maps::shape(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0);
    need("program arrays", "4.2", sys::map_create("probe", &programs, None).map(drop))?;
    let mapped = maps::array::<u64>(1, BPF_F_MMAPABLE);
    need("maps in the memory of a process", "5.5", sys::map_create("probe", &mapped, None).map(drop))?;
    need("the helper bpf_ktime_get_boot_ns", "5.8", helper(BPF_FUNC_ktime_get_boot_ns as i32))?;
    need("the helper bpf_loop", "5.17", helper(BPF_FUNC_loop as i32))?;
    need("XDP programs for fragmented buffers", "5.18", sys::program_loads(xdp, BPF_F_XDP_HAS_FRAGS, 0))
}

/// Whether the kernel has tcx (6.6): a query of a device that does not exist says so, where an unknown attach type
/// is invalid.
pub fn tcx() -> bool {
    let no_device = sys::attached(u32::MAX >> 1, BPF_TCX_INGRESS as u32);
    no_device.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

fn need(feature: &'static str, since: &'static str, probe: io::Result<()>) -> Result<()> {
    match probe {
        Ok(()) => Ok(()),
        // What a kernel says to a type, flag or helper that it does not know.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG | libc::ENOENT | libc::ENOSYS)) =>
        {
            Err(KernelError::Unsupported { feature, since })
        }
        Err(error) => Err(error).context(|| format!("cannot find out whether the kernel has {feature}")),
    }
}

fn btf() -> io::Result<()> {
    Path::new("/sys/kernel/btf/vmlinux").metadata().map(drop)
}

/// A program that calls nothing but the helper, without arguments: the verifier refuses these with EACCES, a helper it
/// does not know with EINVAL.
fn helper(number: i32) -> io::Result<()> {
    match sys::program_loads(BPF_PROG_TYPE_XDP as u32, 0, number) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        result => result,
    }
}
