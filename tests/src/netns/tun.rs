//! A device whose frames begin at the IP header, as those of VPNs do, or at an Ethernet header.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Host;

nix::ioctl_write_int!(set_interface, b'T', 202);

/// The far end of a tun or tap device on a host.
#[derive(Debug)]
pub struct Tun {
    device: File,
}

impl Tun {
    /// Makes the device `name` on the host; it is down, and goes with this value.
    pub fn new(host: &Host, name: &str) -> Result<Self> {
        Self::with(host, name, libc::IFF_TUN)
    }

    /// The same with Ethernet frames: a tap device.
    pub fn ethernet(host: &Host, name: &str) -> Result<Self> {
        Self::with(host, name, libc::IFF_TAP)
    }

    fn with(host: &Host, name: &str, kind: i32) -> Result<Self> {
        let open = || -> Result<File> {
            let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
            // `struct ifreq`: the name and a union whose first member here is the flags.
            let mut request = [0_u8; 40];
            request[..name.len()].copy_from_slice(name.as_bytes());
            let flags = kind | libc::IFF_NO_PI;
            request[16..18].copy_from_slice(&(flags as i16).to_ne_bytes());
            // SAFETY: the kernel reads and writes the 40 bytes of a `struct ifreq`, which `request` has.
            unsafe { set_interface(device.as_raw_fd(), request.as_mut_ptr().addr() as u64) }?;
            Ok(device)
        };
        let device = host.run(open)?.with_context(|| format!("cannot make the tun device {name}"))?;
        nix::fcntl::fcntl(&device, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { device })
    }

    /// Lets a packet arrive at the host.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        (&self.device).write_all(packet).context("cannot write to a tun device")
    }

    /// The next packet (or frame) that left the host and that `wanted` accepts; `None` when there is none within `patience`.
    pub fn receive(&self, patience: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + patience;
        let mut buffer = vec![0; 65_536];
        while Instant::now() < end {
            match (&self.device).read(&mut buffer) {
                Ok(length) if wanted(&buffer[..length]) => return Ok(Some(buffer[..length].to_vec())),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}
