//! Map values in this process's memory.
//!
//! Unsafe because another party, the programs, reads and writes the same memory: what both touch is reached through
//! atomics only.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map that was created with `BPF_F_MMAPABLE` (kernel 5.5), as 64-bit words.
#[derive(Debug)]
pub struct Words {
    begin: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is shared with the kernel anyway; atomics are all that is reachable.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `bytes` bytes of the map's values, a multiple of eight.
    pub fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses one larger than the map.
        let begin = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { begin: begin.cast(), len: bytes / 8 })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as `self` lives, page-aligned, `len` words long.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.len) }
    }

    /// Fills the values from `bytes`; a rest that does not fill a word is padded with zeros.
    pub fn fill(&self, bytes: &[u8]) {
        for (word, chunk) in self.words().iter().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(raw), Ordering::Relaxed);
        }
    }

    /// A copy of the values.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words().iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.begin.cast(), self.len * 8) };
        // It can fail for a bad address only.
        debug_assert!(unmapped.is_ok());
    }
}
