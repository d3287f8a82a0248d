//! The programs that are attached to interfaces. They never change within an ABI version: a daemon adopts those that
//! are pinned, and no link is ever updated.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::ProgramInfo;
use ringfence_abi::names;

use super::{
    error::{Context as _, KernelError, Result},
    objects::DISPATCH,
    pins::Pins,
    sys,
};

const NAMES: [&str; 7] = [
    names::DISPATCH_XDP,
    names::DISPATCH_TC_IN,
    names::DISPATCH_TC_IN_L3,
    names::DISPATCH_TC_OUT,
    names::DISPATCH_TC_OUT_L3,
    names::PASS_XDP,
    names::PASS_TC,
];

/// A pinned program.
#[derive(Debug)]
pub struct Dispatcher {
    /// Its name.
    pub name: &'static str,
    /// Its descriptor.
    pub fd: OwnedFd,
    /// Its id, by which an attachment is known to be ours.
    pub id: u32,
}

/// All of them.
#[derive(Debug)]
pub struct Dispatchers(Vec<Dispatcher>);

impl Dispatchers {
    /// Opens the pinned programs, loading those that are not there.
    pub fn open(pins: &Pins) -> Result<Self> {
        let mut object = None;
        let mut all = Vec::new();
        for name in NAMES {
            let path = pins.program(name);
            let pinned = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
            let fd = if let Some(fd) = pinned {
                fd
            } else {
                let ebpf = match &mut object {
                    Some(ebpf) => ebpf,
                    None => object.insert(DISPATCH.open(pins, &[], &[])?),
                };
                let fd = DISPATCH.load(ebpf, name)?;
                sys::pin(fd.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))?;
                fd
            };
            let info = ProgramInfo::from_pin(&path).map_err(|_| KernelError::Foreign { path })?;
            all.push(Dispatcher { name, fd, id: info.id() });
        }
        Ok(Self(all))
    }

    /// The program of this name.
    pub fn get(&self, name: &'static str) -> Result<&Dispatcher> {
        let missing = KernelError::Missing { object: "dispatch", kind: "dispatcher", program: name.to_owned() };
        self.0.iter().find(|dispatcher| dispatcher.name == name).ok_or(missing)
    }

    /// Whether a program is one of these.
    pub fn owns(&self, id: u32) -> bool {
        self.0.iter().any(|dispatcher| dispatcher.id == id)
    }

    /// Ids of all.
    pub fn ids(&self) -> Vec<u32> {
        self.0.iter().map(|dispatcher| dispatcher.id).collect()
    }
}
