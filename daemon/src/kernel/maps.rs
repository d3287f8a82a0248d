//! The maps that outlive generations: made once, then adopted by every daemon of the same ABI version.

use std::os::fd::{AsFd as _, OwnedFd};

use aya_obj::generated::{
    BPF_F_MMAPABLE, BPF_F_NO_PREALLOC,
    bpf_map_type::{
        self, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_PROG_ARRAY,
    },
};
use ringfence_abi::{
    connection::{FRAGMENTS, Fragment, FragmentKey},
    dynamic::{ENTRY_LENGTHS, Element, ElementKey, Entry, EntryKey, Lengths, MAX_SETS},
    generation::{self, SLOTS, VARIANTS},
    names,
};

use super::{
    cell::{Cell, NOTHING},
    error::{Context as _, KernelError, Result},
    mapped::Words,
    pins::Pins,
    sys::{self, Shape},
    table::{PerCpu, Table},
};

/// Most entries of `ringctl deny` and `allow`.
pub const MAX_ENTRIES: u32 = 65_536;
/// Most elements of all dynamic sets together.
pub const MAX_ELEMENTS: u32 = 4_000_000;

/// The maps that outlive generations.
#[derive(Debug)]
pub struct Shared {
    /// Names the generation in force.
    pub cell: Cell,
    /// Programs of the slots at XDP.
    pub xdp: Table<u32, u32>,
    /// Programs of the slots at TC.
    pub tc: Table<u32, u32>,
    /// Packets the dispatchers dropped for want of a generation.
    pub misses: PerCpu<u64>,
    /// Dynamic entries.
    pub entries: Table<EntryKey, Entry>,
    /// Prefix lengths of the entries.
    pub entry_lengths: Words,
    /// Elements of dynamic sets.
    pub elements: Table<ElementKey, Element>,
    /// Prefix lengths of the sets.
    pub set_lengths: Words,
    // Only the programs use it.
    _fragments: OwnedFd,
}

/// The names of these maps, as the objects know them.
pub const SHARED: [&str; 9] = [
    names::CELL,
    names::XDP_PROGS,
    names::TC_PROGS,
    names::DISPATCH_MISS,
    names::ENTRIES,
    names::ENTRY_LENGTHS,
    names::ELEMENTS,
    names::SET_LENGTHS,
    names::FRAGMENTS,
];

impl Shared {
    /// Opens the pinned maps, making those that are not there.
    pub fn open(pins: &Pins) -> Result<Self> {
        let cell = obtain(pins, names::CELL, &array::<generation::Cell>(1, BPF_F_MMAPABLE), |fresh| {
            // An all-zero cell would name slot 0.
            Cell::new(fresh.as_fd()).map(|cell| cell.write(NOTHING))
        })?;
        let programs = shape(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, SLOTS * VARIANTS, 0);
        let misses = shape(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1, 0);
        let entry_lengths = array::<Lengths>(ENTRY_LENGTHS, BPF_F_MMAPABLE);
        let set_lengths = array::<Lengths>(MAX_SETS, BPF_F_MMAPABLE);
        let plain = |name, shape: &Shape| obtain(pins, name, shape, |_| Ok(()));
        Ok(Self {
            cell: Cell::new(cell.as_fd())?,
            xdp: table(plain(names::XDP_PROGS, &programs)?)?,
            tc: table(plain(names::TC_PROGS, &programs)?)?,
            misses: PerCpu::new(plain(names::DISPATCH_MISS, &misses)?).context(|| names::DISPATCH_MISS.to_owned())?,
            entries: table(plain(names::ENTRIES, &hash::<EntryKey, Entry>(MAX_ENTRIES))?)?,
            entry_lengths: words(&plain(names::ENTRY_LENGTHS, &entry_lengths)?, &entry_lengths)?,
            elements: table(plain(names::ELEMENTS, &hash::<ElementKey, Element>(MAX_ELEMENTS))?)?,
            set_lengths: words(&plain(names::SET_LENGTHS, &set_lengths)?, &set_lengths)?,
            _fragments: plain(names::FRAGMENTS, &lru::<FragmentKey, Fragment>(FRAGMENTS))?,
        })
    }
}

/// The shape of an array of `V`.
pub fn array<V>(entries: u32, flags: u32) -> Shape {
    shape(BPF_MAP_TYPE_ARRAY, 4, size_of::<V>() as u32, entries, flags)
}

/// The shape of a hash map, which takes memory for what is in it only (and its buckets).
pub fn hash<K, V>(entries: u32) -> Shape {
    shape(BPF_MAP_TYPE_HASH, size_of::<K>() as u32, size_of::<V>() as u32, entries, BPF_F_NO_PREALLOC)
}

/// The shape of a hash map that has its memory from the beginning: an insertion never waits for any.
pub fn ready<K, V>(entries: u32) -> Shape {
    shape(BPF_MAP_TYPE_HASH, size_of::<K>() as u32, size_of::<V>() as u32, entries, 0)
}

/// The shape of a hash map that pushes out what was not used for long.
pub fn lru<K, V>(entries: u32) -> Shape {
    shape(BPF_MAP_TYPE_LRU_HASH, size_of::<K>() as u32, size_of::<V>() as u32, entries, 0)
}

/// A shape.
pub fn shape(kind: bpf_map_type, key: u32, value: u32, entries: u32, flags: u32) -> Shape {
    Shape { kind: kind as u32, key, value, entries, flags }
}

/// Creates a map.
pub fn create(name: &str, shape: &Shape) -> Result<OwnedFd> {
    sys::map_create(name, shape, None).context(|| format!("cannot create the map {name} of {} bytes", shape.value))
}

/// A map with typed keys and values.
pub fn table<K: ringfence_abi::Bytes, V: ringfence_abi::Bytes>(map: OwnedFd) -> Result<Table<K, V>> {
    Table::new(map).context(|| "a map is not of its own type".to_owned())
}

/// Maps all values of an array.
fn words(map: &OwnedFd, shape: &Shape) -> Result<Words> {
    Words::new(map.as_fd(), (shape.value * shape.entries) as usize).context(|| "cannot map an array".to_owned())
}

/// Opens a pinned map, or creates, prepares and pins it.
pub fn obtain(pins: &Pins, name: &str, shape: &Shape, prepare: impl Fn(&OwnedFd) -> Result<()>) -> Result<OwnedFd> {
    let path = pins.map(name);
    if let Some(map) = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))? {
        // `map_shape` of what is no map: something else is pinned here.
        return match sys::map_shape(map.as_fd()) {
            Ok(found) if found == *shape => Ok(map),
            _ => Err(KernelError::Foreign { path }),
        };
    }
    let map = create(name, shape)?;
    prepare(&map)?;
    sys::pin(map.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))?;
    Ok(map)
}
