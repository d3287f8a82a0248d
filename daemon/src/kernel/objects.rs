//! The BPF objects and their loading.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    path::Path,
    thread,
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{Program, ProgramError, ProgramFd},
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

/// Programs that say themselves where they belong.
const KIND: &str = "network or cgroup";

/// What is attached to interfaces.
pub const DISPATCH: Object =
    Object { name: "dispatch", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/dispatch.o")) };
/// The programs of a generation.
pub const NETWORK: Object =
    Object { name: "network", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/network.o")) };

/// What is attached to security hooks.
pub const LSM_DISPATCH: Object = Object {
    name: "lsm_dispatch",
    bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/lsm_dispatch.o")),
};
/// The programs of a generation at security hooks, and the one that explains accesses.
pub const LSM: Object =
    Object { name: "lsm", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/lsm.o")) };
/// What stands in for security hooks at a cgroup: dispatchers and the programs of a generation.
pub const CGROUP: Object =
    Object { name: "cgroup", bytes: include_bytes_aligned!(concat!(env!("RINGFENCE_BPF_DIR"), "/cgroup.o")) };

impl Object {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Creates the object's maps, except those of `pinned` (name and pin) and the shared ones, and relocates its
    /// programs; none is loaded yet. aya takes a pinned map as it is, whatever size the object gives it.
    pub fn open(&self, pins: &Pins, pinned: &[(&str, &Path)], globals: &[(&str, &[u8])]) -> Result<Ebpf> {
        let mut loader = EbpfLoader::new();
        // aya has no type for storage at tasks, which only the programs use.
        loader.allow_unsupported_maps();
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

    /// Loads one program that says itself where it belongs.
    pub fn load(&self, ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
        let program = ebpf.program_mut(name).ok_or_else(|| self.missing(KIND, name))?;
        self.load_program(program, name)
    }

    /// Loads several programs side by side: an apply spends most of its time in the verifier. In the order of `names`.
    pub fn load_all(&self, ebpf: &mut Ebpf, names: &[&str]) -> Result<Vec<OwnedFd>> {
        let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
        let mut found = Vec::new();
        for &name in names {
            found.push((name, programs.remove(name).ok_or_else(|| self.missing(KIND, name))?));
        }
        thread::scope(|scope| {
            let load = |(name, program)| scope.spawn(move || self.load_program(program, name));
            let loading: Vec<_> = found.into_iter().map(load).collect();
            // A panic in the loader goes on here, where it would have been without threads.
            let joined = loading.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.collect()
        })
    }

    fn load_program(&self, program: &mut Program, name: &str) -> Result<OwnedFd> {
        let loaded = match program {
            Program::Xdp(program) => program.load().and_then(|()| program.fd()),
            Program::SchedClassifier(program) => program.load().and_then(|()| program.fd()),
            Program::CgroupSockAddr(program) => program.load().and_then(|()| program.fd()),
            _ => return Err(self.missing(KIND, name)),
        };
        keep(name, loaded)
    }

    /// Loads one program for a security hook, whose type is in `btf`.
    pub fn load_security(&self, ebpf: &mut Ebpf, name: &str, hook: &str, btf: &Btf) -> Result<OwnedFd> {
        match ebpf.program_mut(name) {
            Some(Program::Lsm(program)) => keep(name, program.load(hook, btf).and_then(|()| program.fd())),
            _ => Err(self.missing("LSM", name)),
        }
    }

    fn missing(&self, kind: &'static str, program: &str) -> KernelError {
        KernelError::Missing { object: self.name, kind, program: program.to_owned() }
    }
}

fn keep(name: &str, loaded: std::result::Result<&ProgramFd, ProgramError>) -> Result<OwnedFd> {
    let fd = loaded.map_err(|error| refused(name, error))?;
    fd.as_fd().try_clone_to_owned().context(|| format!("cannot keep {name}"))
}

/// What the verifier's log ends with says why; what comes before can be megabytes.
fn refused(program: &str, error: ProgramError) -> KernelError {
    const LINES: usize = 20;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let log = lines[lines.len().saturating_sub(LINES)..].join("\n");
            KernelError::Load { program: program.to_owned(), log, source: io_error }
        }
        error => {
            KernelError::Load { program: program.to_owned(), log: error.to_string(), source: io::Error::other(error) }
        }
    }
}
