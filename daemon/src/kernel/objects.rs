//! The BPF objects and their loading.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{Program, ProgramError},
};

use super::{
    error::{Context as _, KernelError, Result},
    maps::SHARED,
    pins::Pins,
};

/// One of the objects of `daemon/bpf`, or of the directory that `RINGFENCE_BPF_DIR` named at build time.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    name: &'static str,
    bytes: &'static [u8],
}

/// What is attached to interfaces.
pub const DISPATCH: Object =
    Object { name: "dispatch", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/dispatch.o")) };
/// The programs of a generation.
pub const NETWORK: Object =
    Object { name: "network", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/network.o")) };

impl Object {
    /// Creates the object's maps, except those of `pinned` (name and pin) and the shared ones, and relocates its
    /// programs; none is loaded yet. aya takes a pinned map as it is, whatever size the object gives it.
    pub fn open(&self, pins: &Pins, pinned: &[(&str, &Path)], globals: &[(&str, &[u8])]) -> Result<Ebpf> {
        let mut loader = EbpfLoader::new();
        for name in SHARED {
            loader.map_pin_path(name, pins.map(name));
        }
        for (name, path) in pinned {
            loader.map_pin_path(name, *path);
        }
        for (name, bytes) in globals {
            loader.override_global(name, *bytes, true);
        }
        loader.load(self.bytes).map_err(|source| KernelError::Object { object: self.name, source })
    }

    /// Loads one program.
    pub fn load(&self, ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd> {
        let fd = match ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => program.load().and_then(|()| program.fd()),
            Some(Program::SchedClassifier(program)) => program.load().and_then(|()| program.fd()),
            _ => return Err(KernelError::Missing { object: self.name, kind: "network", program: name }),
        };
        fd.map_err(|error| refused(name, error))?.as_fd().try_clone_to_owned().context(|| format!("cannot keep {name}"))
    }
}

/// What the verifier's log ends with says why; what comes before can be megabytes.
fn refused(program: &'static str, error: ProgramError) -> KernelError {
    const LINES: usize = 20;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let log = lines[lines.len().saturating_sub(LINES)..].join("\n");
            KernelError::Load { program, log, source: io_error }
        }
        error => KernelError::Load { program, log: error.to_string(), source: io::Error::other(error) },
    }
}
