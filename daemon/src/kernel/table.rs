//! A BPF map with typed keys and values.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PROG_ARRAY,
    BPF_MAP_TYPE_TASK_STORAGE,
};
use ringfence_abi::Bytes;

use super::sys::{self, EXIST, NO_EXIST};

/// How many elements one system call moves.
const BATCH: usize = 4096;

/// A hash, array or storage map (keys of that are descriptors of processes) whose keys and values have the sizes of `K` and `V`.
#[derive(Debug)]
pub struct Table<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> AsFd for Table<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<K: Bytes, V: Bytes> Table<K, V> {
    /// Takes a map; an error if its sizes are others.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let shape = sys::map_shape(fd.as_fd())?;
        // Of these types the kernel reads and writes exactly one value, and not one for each CPU.
        let kinds = [
            BPF_MAP_TYPE_HASH,
            BPF_MAP_TYPE_LRU_HASH,
            BPF_MAP_TYPE_ARRAY,
            BPF_MAP_TYPE_PROG_ARRAY,
            BPF_MAP_TYPE_TASK_STORAGE,
        ];
        let known = kinds.iter().any(|kind| *kind as u32 == shape.kind);
        if !known || shape.key as usize != size_of::<K>() || shape.value as usize != size_of::<V>() {
            return Err(wrong_shape());
        }
        Ok(Self { fd, types: PhantomData })
    }

    /// Reads a value.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [sys::zeroed::<V>()];
        let found = sys::lookup(self.as_fd(), sys::bytes(key), sys::slice_bytes_mut(&mut value))?;
        Ok(found.then_some(value[0]))
    }

    /// Writes a value.
    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        sys::update(self.as_fd(), sys::bytes(key), sys::bytes(value), sys::ANY)
    }

    /// Writes a value; whether the key is new.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<bool> {
        let new = self.add(key, value)?;
        if !new {
            self.set(key, value)?;
        }
        Ok(new)
    }

    /// Writes a value unless the key has one; whether it did.
    pub fn add(&self, key: &K, value: &V) -> io::Result<bool> {
        match sys::update(self.as_fd(), sys::bytes(key), sys::bytes(value), NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Replaces the value of a key; whether there was one.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        match sys::update(self.as_fd(), sys::bytes(key), sys::bytes(value), EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a key; whether there was one.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        sys::delete(self.as_fd(), sys::bytes(key))
    }

    /// Writes many values, of which none is in the map yet.
    pub fn insert_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(BATCH) {
            let (keys, values): (Vec<K>, Vec<V>) = chunk.iter().copied().unzip();
            let (keys, values) = (sys::slice_bytes(&keys), sys::slice_bytes(&values));
            sys::update_batch(self.as_fd(), keys, values, chunk.len() as u32)?;
        }
        Ok(())
    }

    /// Calls `each` for every entry of a hash map. What is inserted or deleted meanwhile may be seen or not.
    pub fn for_each(&self, mut each: impl FnMut(K, V)) -> io::Result<()> {
        let mut room = BATCH;
        let mut position = None;
        loop {
            let (mut keys, mut values) = (vec![sys::zeroed::<K>(); room], vec![sys::zeroed::<V>(); room]);
            let (key_bytes, value_bytes) = (sys::slice_bytes_mut(&mut keys), sys::slice_bytes_mut(&mut values));
            let before = position;
            match sys::lookup_batch(self.as_fd(), &mut position, key_bytes, value_bytes, room as u32) {
                Ok((read, last)) => {
                    keys.iter().zip(&values).take(read as usize).for_each(|(key, value)| each(*key, *value));
                    if last {
                        return Ok(());
                    }
                }
                // A bucket holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    position = before;
                    room *= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// An array of which every CPU has its own values.
#[derive(Debug)]
pub struct PerCpu<V> {
    fd: OwnedFd,
    entries: usize,
    cpus: usize,
    types: PhantomData<fn() -> V>,
}

impl<V: Bytes> PerCpu<V> {
    // The kernel pads each CPU's value to eight bytes.
    const STRIDE: usize = size_of::<V>().next_multiple_of(8);

    /// Takes a map; an error if it is no per-CPU array of `V`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let shape = sys::map_shape(fd.as_fd())?;
        if shape.kind != BPF_MAP_TYPE_PERCPU_ARRAY as u32 || shape.value as usize != size_of::<V>() {
            return Err(wrong_shape());
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { fd, entries: shape.entries as usize, cpus, types: PhantomData })
    }

    /// The values of all CPUs, entry by entry.
    pub fn read(&self) -> io::Result<Vec<Vec<V>>> {
        let mut keys = vec![0_u32; self.entries];
        let mut bytes = Vec::new();
        let length = Self::STRIDE * self.cpus * self.entries;
        bytes.try_reserve_exact(length).map_err(io::Error::other)?;
        bytes.resize(length, 0_u8);
        // All entries in one call (kernel 5.13 for per-CPU arrays).
        let keys = sys::slice_bytes_mut(&mut keys);
        sys::lookup_batch(self.fd.as_fd(), &mut None, keys, &mut bytes, self.entries as u32)?;
        Ok(bytes.chunks_exact(Self::STRIDE * self.cpus).map(|entry| split(entry, Self::STRIDE)).collect())
    }
}

fn wrong_shape() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the map is of another type or has keys or values of another size")
}

fn split<V: Bytes>(bytes: &[u8], stride: usize) -> Vec<V> {
    let read = |chunk: &[u8]| {
        let mut value = [sys::zeroed::<V>()];
        let target = sys::slice_bytes_mut(&mut value);
        target.copy_from_slice(&chunk[..target.len()]);
        value[0]
    };
    bytes.chunks_exact(stride).map(read).collect()
}
