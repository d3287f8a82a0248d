//! More packets than sockets can send: made in the kernel, by `BPF_PROG_TEST_RUN`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result};

use crate::{
    foreign::{Foreign, bpf, halves},
    netns::Host,
};

// From include/uapi/linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const XDP_TX: i32 = 3;

/// Sends frames out of an interface without a socket: each is made for an XDP program that sends it back where it is said
/// to come from. Needs Linux 5.18.
#[derive(Debug)]
pub struct Injector {
    sends: Foreign,
    index: u32,
    // Without a program of its own a veth has no queue that frames could be said to come from.
    _passes: Foreign,
}

impl Injector {
    /// For an interface of the host, which must be a veth whose other end has an XDP program.
    pub fn new(host: &Host, interface: &str) -> Result<Self> {
        let passes = Foreign::xdp(host, interface)?;
        // Where it has nothing to do. The kernel patches its code for each XDP program that comes into use and waits until
        // all CPUs have seen that: for one that is attached nowhere, at each run.
        let sends = Foreign::xdp_that(XDP_TX, host, "lo")?;
        Ok(Self { sends, index: host.index(interface)?, _passes: passes })
    }

    /// Sends a frame this many times. To be called in the host's network ([`Host::run`]).
    pub fn send(&self, frame: &[u8], times: u32) -> Result<()> {
        // `struct xdp_md`: begin, end, metadata, interface, queue, interface to leave by.
        let context = [0, frame.len() as u32, 0, self.index, 0, 0_u32];
        let mut attributes = run(&self.sends.program, frame, times);
        attributes[10] = size_of_val(&context) as u32;
        (attributes[12], attributes[13]) = halves(context.as_ptr().addr());
        attributes[16] = BPF_F_TEST_XDP_LIVE_FRAMES;
        bpf(BPF_PROG_TEST_RUN, &mut attributes).context("cannot inject frames")?;
        Ok(())
    }
}

/// A program that is pinned, to be run without an interface.
#[derive(Debug)]
pub struct Pinned {
    program: OwnedFd,
}

impl Pinned {
    /// Opens a pin of the host's.
    pub fn open(host: &Host, path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = [0; 4];
        (attributes[0], attributes[1]) = halves(name.as_ptr().addr());
        let descriptor = host.run(|| bpf(BPF_OBJ_GET, &mut attributes))?;
        let descriptor = descriptor.with_context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: on success the call returns a new file descriptor, which nothing else owns.
        Ok(Self { program: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// Runs it over a frame this many times, on the CPU of the calling thread.
    pub fn run(&self, frame: &[u8], times: u32) -> io::Result<()> {
        bpf(BPF_PROG_TEST_RUN, &mut run(&self.program, frame, times)).map(drop)
    }
}

/// `union bpf_attr` of a test run.
fn run(program: &OwnedFd, frame: &[u8], times: u32) -> [u32; 20] {
    let mut attributes = [0; 20];
    attributes[0] = program.as_raw_fd().cast_unsigned();
    attributes[2] = frame.len() as u32;
    (attributes[4], attributes[5]) = halves(frame.as_ptr().addr());
    attributes[8] = times;
    attributes
}
