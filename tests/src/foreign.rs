//! BPF programs of somebody else: what Ringfence must leave alone.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use rtnetlink::{
    LinkUnspec,
    packet_route::link::{LinkAttribute, LinkXdp},
};

use crate::netns::Host;

// From include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_TCX_INGRESS: u32 = 46;
const XDP_PASS: i32 = 2;
/// `TC_ACT_UNSPEC`: the next program decides.
const TCX_NEXT: i32 = -1;

/// A program that lets every packet pass.
#[derive(Debug)]
pub struct Foreign {
    pub(crate) program: OwnedFd,
}

impl Foreign {
    /// Loads an XDP program and attaches it to an interface as `ip link set ... xdp` does.
    pub fn xdp(host: &Host, interface: &str) -> Result<Self> {
        Self::xdp_that(XDP_PASS, host, interface)
    }

    /// The same with another verdict.
    pub(crate) fn xdp_that(verdict: i32, host: &Host, interface: &str) -> Result<Self> {
        let program = load(BPF_PROG_TYPE_XDP, verdict).context("cannot load an XDP program")?;
        let mut message = LinkUnspec::new_with_index(host.index(interface)?).build();
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(program.as_raw_fd())]));
        host.netlink(async |handle| handle.link().set(message).execute().await).context("cannot attach to XDP")?;
        Ok(Self { program })
    }

    /// Loads a TC program and attaches it to an interface's tcx ingress. Needs Linux 6.6.
    pub fn tcx(host: &Host, interface: &str) -> Result<Self> {
        let program = load(BPF_PROG_TYPE_SCHED_CLS, TCX_NEXT).context("cannot load a TC program")?;
        let index = host.index(interface)?;
        let mut attributes = [0; 16];
        attributes[..3].copy_from_slice(&[index, program.as_raw_fd().cast_unsigned(), BPF_TCX_INGRESS]);
        host.run(|| bpf(BPF_PROG_ATTACH, &mut attributes))?.context("cannot attach to tcx")?;
        Ok(Self { program })
    }

    /// The kernel's id of the program.
    pub fn id(&self) -> Result<u32> {
        let information = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()))?;
        let id = information.lines().find_map(|line| line.strip_prefix("prog_id:")).context("no prog_id in fdinfo")?;
        Ok(id.trim().parse()?)
    }
}

impl Host {
    /// The id of the program at an interface's XDP hook.
    pub fn xdp_program(&self, interface: &str) -> Result<Option<u32>> {
        use futures_util::TryStreamExt as _;
        let name = interface.to_owned();
        let link = self.netlink(async |handle| handle.link().get().match_name(name).execute().try_next().await)?;
        let attributes = link.context("no such interface")?.attributes;
        let xdp = attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
        Ok(xdp.into_iter().flatten().find_map(|xdp| match xdp {
            LinkXdp::ProgId(id) => Some(id),
            _ => None,
        }))
    }

    /// The ids of the programs at an interface's tcx ingress, in order. Needs Linux 6.6.
    pub fn tcx_programs(&self, interface: &str) -> Result<Vec<u32>> {
        let index = self.index(interface)?;
        let mut ids = [0_u32; 16];
        let mut attributes = [0; 16];
        attributes[..2].copy_from_slice(&[index, BPF_TCX_INGRESS]);
        (attributes[4], attributes[5]) = halves(ids.as_mut_ptr().addr());
        attributes[6] = ids.len() as u32;
        self.run(|| bpf(BPF_PROG_QUERY, &mut attributes))?.context("cannot query tcx")?;
        Ok(ids[..attributes[6] as usize].to_vec())
    }
}

/// Loads a program of two instructions: return `verdict`.
fn load(kind: u32, verdict: i32) -> io::Result<OwnedFd> {
    // BPF_ALU64 | BPF_MOV | BPF_K into r0, then BPF_EXIT; opcode in the low byte, immediate in the high half.
    let instructions = [0xb7 | u64::from(verdict.cast_unsigned()) << 32, 0x95];
    let license = c"GPL";
    let mut attributes = [0; 16];
    attributes[..2].copy_from_slice(&[kind, 2]);
    (attributes[2], attributes[3]) = halves(instructions.as_ptr().addr());
    (attributes[4], attributes[5]) = halves(license.as_ptr().addr());
    let descriptor = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: on success the call returns a new file descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A pointer as the two words that it takes in `union bpf_attr` (little-endian).
pub(crate) fn halves(address: usize) -> (u32, u32) {
    (address as u32, (address as u64 >> 32) as u32)
}

/// The bpf system call with the first bytes of `union bpf_attr`; the kernel takes the others for zeroes.
pub(crate) fn bpf(command: libc::c_long, attributes: &mut [u32]) -> io::Result<i32> {
    // SAFETY: `attributes` is valid for the size given, and each caller's pointers in it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
