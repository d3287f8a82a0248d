//! What a generation has of the host half: its tables, the meaning of executables to it, and its programs.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{Btf, Ebpf};
use aya_obj::generated::{
    BPF_F_MMAPABLE,
    bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY},
};
use ringfence_abi::{
    generation::SLOTS,
    host::{
        EXE_FOREIGN, EXES, ExePath, HostConsts, KEEPS_MOUNTS, KEEPS_SELF, KEEPS_SUBJECTS, KernelLayout, LEAF_UNKNOWN,
        NO_OFFSET, field, layout,
    },
    names,
};
use ringfence_engine::{host::automaton, slice::SliceTables};
use ringfence_policy::compile::CompiledHost;

use super::{
    hooks::{Needs, Place},
    maps::pinned,
};
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    mapped::Words,
    maps::{self, table},
    objects::{CGROUP, LSM, Object},
    pins::{self, Pins},
    sys,
    table::Table,
};

/// Keeps the constants: programs may be loaded later, and by a later daemon.
const RECORD: &str = "HOST_CONSTS";
/// An arena has at least this many bytes.
const MIN_ARENA: usize = 64;

/// A generation's host half, opened.
#[derive(Debug)]
pub struct HostPart {
    /// Its constants.
    pub consts: HostConsts,
    leaves: Table<u32, u32>,
    arena: PathBuf,
}

impl HostPart {
    /// Opens what [`make_maps`] made.
    pub fn open(directory: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = directory.join(name);
            let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
            map.ok_or(KernelError::Foreign { path })
        };
        let record: Table<u32, HostConsts> = table(open(RECORD)?)?;
        let consts = record.get(&0).context(|| "cannot read the record of a host chain".to_owned())?;
        let consts = consts.unwrap_or_else(sys::zeroed);
        Ok(Self { consts, leaves: table(open(names::EXE_LEAVES)?)?, arena: directory.join(names::ARENA_HOST) })
    }

    /// What it asks of the hooks.
    pub fn needs(&self) -> Needs {
        Needs::of(&self.consts)
    }

    /// Works out what each executable means to this generation.
    pub fn fill_leaves(&self, exes: &Table<ExePath, u32>) -> Result<()> {
        let what = || "cannot write down what executables mean to a generation".to_owned();
        let arena = self.read_arena()?;
        let mut leaves = Vec::new();
        exes.for_each(|path, id| leaves.push((id, self.leaf(&arena, &path)))).context(what)?;
        for (id, leaf) in leaves.iter().filter(|(id, _)| (*id as usize) < EXES) {
            self.leaves.set(id, leaf).context(what)?;
        }
        Ok(())
    }

    /// Whether a file is one that may be mapped executable without a taint.
    pub fn trusts(&self, arena: &[u8], path: &ExePath) -> bool {
        use ringfence_abi::host::{LEAF_TRUSTED, Leaf};
        use ringfence_engine::Tables as _;
        let flags = self.consts.paths.leaves
            + self.leaf(arena, path) * size_of::<Leaf>() as u32
            + std::mem::offset_of!(Leaf, flags) as u32;
        SliceTables(arena).u32(flags).is_some_and(|flags| flags & LEAF_TRUSTED != 0)
    }

    /// The tables.
    pub fn read_arena(&self) -> Result<Vec<u8>> {
        let what = || format!("cannot read {}", self.arena.display());
        let map = sys::open_pin(&self.arena).context(what)?;
        let map = map.ok_or_else(|| KernelError::Foreign { path: self.arena.clone() })?;
        let size = self.consts.chain.arena as usize;
        let mut bytes = Words::new(map.as_fd(), size.max(MIN_ARENA).next_multiple_of(8)).context(what)?.to_bytes();
        bytes.truncate(size);
        Ok(bytes)
    }

    fn leaf(&self, arena: &[u8], path: &ExePath) -> u32 {
        let paths = &self.consts.paths;
        let length = path.bytes.iter().position(|byte| *byte == 0).unwrap_or(path.bytes.len());
        let (start, path) = match path.bytes[..length].split_first() {
            Some((&EXE_FOREIGN, rest)) => (paths.foreign, rest),
            _ => (paths.host, &path.bytes[..length]),
        };
        automaton::leaf(paths, &SliceTables(arena), start, path)
    }
}

/// The constants as the programs get them.
pub fn constants(compiled: &CompiledHost, serial: u32) -> HostConsts {
    let paths = compiled.consts.chain.active & 1 << field::PATH != 0;
    let subjects = compiled.needs_subjects || compiled.protect_self;
    let keep = |bit: u32, wanted: bool| if wanted { bit } else { 0 };
    let keeps = keep(KEEPS_SUBJECTS, subjects)
        | keep(KEEPS_MOUNTS, subjects || paths)
        | keep(KEEPS_SELF, compiled.protect_self);
    HostConsts { serial, keeps, ..compiled.consts }
}

/// The constants with which programs of a generation are loaded from now on; they are recorded. `None`: they keep up all
/// of `keeps` already.
pub fn raise(directory: &Path, keeps: u32) -> Result<Option<HostConsts>> {
    let consts = HostPart::open(directory)?.consts;
    if consts.keeps & keeps == keeps {
        return Ok(None);
    }
    let raised = HostConsts { keeps: consts.keeps | keeps, ..consts };
    let path = directory.join(RECORD);
    let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
    let record: Table<u32, HostConsts> = table(map.ok_or(KernelError::Foreign { path })?)?;
    record.set(&0, &raised).context(|| "cannot record the constants".to_owned())?;
    Ok(Some(raised))
}

/// Makes a generation's own maps and pins them in its directory.
pub fn make_maps(directory: &Path, compiled: &CompiledHost, consts: &HostConsts) -> Result<()> {
    let pin = |map: &std::os::fd::OwnedFd, name: &str| {
        let path = directory.join(name);
        sys::pin(map.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))
    };
    let size = compiled.arena.len().max(MIN_ARENA);
    let bytes = u32::try_from(size).map_err(|_| KernelError::Full { what: "the arena", limit: u32::MAX })?;
    let shape = maps::shape(BPF_MAP_TYPE_ARRAY, 4, bytes, 1, BPF_F_MMAPABLE);
    let arena = maps::create(names::ARENA_HOST, &shape)?;
    let words = Words::new(arena.as_fd(), size.next_multiple_of(8));
    words.context(|| format!("cannot map {}", names::ARENA_HOST))?.fill(&compiled.arena);
    pin(&arena, names::ARENA_HOST)?;

    // Until it is filled in, an executable is unknown: refusals match it, permissions do not.
    let leaves = maps::create(names::EXE_LEAVES, &maps::array::<u32>(EXES as u32, BPF_F_MMAPABLE))?;
    let words = Words::new(leaves.as_fd(), EXES * 4).context(|| format!("cannot map {}", names::EXE_LEAVES))?;
    words.fill(sys::slice_bytes(&vec![LEAF_UNKNOWN; EXES]));
    pin(&leaves, names::EXE_LEAVES)?;

    let record = maps::create(RECORD, &maps::array::<HostConsts>(1, 0))?;
    pin(&record, RECORD)?;
    table::<u32, HostConsts>(record)?.set(&0, consts).context(|| "cannot record the constants".to_owned())
}

/// The loading of a generation's programs, at places that may be added to later.
pub struct Programs<'a> {
    kernel: &'a Kernel,
    directory: &'a Path,
    consts: &'a HostConsts,
    // Opened when the first program is loaded.
    object: Option<Ebpf>,
    // The kernel's, for what belongs to a security hook.
    btf: Option<Btf>,
}

impl<'a> Programs<'a> {
    /// For the generation whose maps are in `directory`.
    pub fn of(kernel: &'a Kernel, directory: &'a Path, consts: &'a HostConsts) -> Self {
        Self { kernel, directory, consts, object: None, btf: None }
    }

    /// Loads the programs for these places into a slot, and then says that it judges there.
    pub fn load(&mut self, slot: u8, places: &[Place]) -> Result<()> {
        let state = &self.kernel.host.maps.state;
        let mut bits = state.hooks(slot);
        for place in places {
            let program = self.load_one(place)?;
            let number = program.as_raw_fd().cast_unsigned();
            let set = make_array(&self.kernel.pins, place)?.set(&u32::from(slot), &number);
            set.context(|| format!("cannot put {} into slot {slot}", place.program()))?;
            bits |= 1 << place.bit;
        }
        state.set_hooks(slot, bits);
        Ok(())
    }

    fn load_one(&mut self, place: &Place) -> Result<std::os::fd::OwnedFd> {
        let (object, name) = (object_of(place), place.program());
        let ebpf = match &mut self.object {
            Some(ebpf) => ebpf,
            none => none.insert(open(self.kernel, object, self.directory, self.consts, false)?),
        };
        let program = if place.is_security() {
            object.load_security(ebpf, &name, place.name, kernel_btf(&mut self.btf)?)?
        } else {
            object.load(ebpf, &name)?
        };
        let path = self.directory.join(&name);
        pins::remove(&path)?;
        sys::pin(program.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))?;
        Ok(program)
    }
}

/// aya's view of the kernel's types, read when it is first needed.
pub fn kernel_btf(btf: &mut Option<Btf>) -> Result<&Btf> {
    match btf {
        Some(btf) => Ok(btf),
        none => {
            let read = Btf::from_sys_fs().map_err(|error| std::io::Error::other(error.to_string()));
            Ok(none.insert(read.context(|| "cannot read the kernel's type information".to_owned())?))
        }
    }
}

/// The object that the programs of a place are in.
pub fn object_of(place: &Place) -> &'static Object {
    if place.is_security() { &LSM } else { &CGROUP }
}

/// Opens an object over a generation's maps and the shared ones.
pub fn open(kernel: &Kernel, object: &Object, directory: &Path, consts: &HostConsts, explain: bool) -> Result<Ebpf> {
    let own = [names::ARENA_HOST, names::EXE_LEAVES, names::COUNTERS].map(|name| (name, directory.join(name)));
    let shared = pinned(&kernel.pins);
    let all: Vec<(&str, &Path)> = own.iter().chain(&shared).map(|(name, path)| (*name, path.as_path())).collect();
    // Without security hooks nothing reads the kernel's structures.
    let nowhere = KernelLayout { rename_lock: 0, offsets: [NO_OFFSET; layout::COUNT] };
    let layout = kernel.host.layout.as_ref().unwrap_or(&nowhere);
    let explain = u32::from(explain);
    let mut globals = vec![(names::HOST, sys::bytes(consts)), (names::KERNEL, sys::bytes(layout))];
    if object.name() == LSM.name() {
        globals.push((names::EXPLAIN, sys::bytes(&explain)));
    }
    object.open(&kernel.pins, &all, &globals)
}

/// The array of a place's programs; `None`: nothing was ever attached there.
pub fn array(pins: &Pins, place: &Place) -> Result<Option<Table<u32, u32>>> {
    let path = pins.map(place.array);
    let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
    map.map(table).transpose()
}

/// Empties a slot: first it judges nowhere, then its programs go.
pub fn clear_slot(kernel: &Kernel, slot: u8) -> Result<()> {
    kernel.host.maps.state.set_hooks(slot, 0);
    for place in Place::security().chain(Place::cgroup()) {
        if let Some(array) = array(&kernel.pins, &place)? {
            array.remove(&u32::from(slot)).context(|| format!("cannot clear slot {slot}"))?;
        }
    }
    Ok(())
}

fn make_array(pins: &Pins, place: &Place) -> Result<Table<u32, u32>> {
    let shape = maps::shape(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, SLOTS, 0);
    table(maps::obtain(pins, place.array, &shape, |_| Ok(()))?)
}
