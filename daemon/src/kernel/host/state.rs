//! The words that every host program reads first, in this process's memory.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use ringfence_abi::{generation::SLOTS, host::HostState};

use crate::kernel::{
    error::{Context as _, Result},
    mapped::Words,
};

// Words of `HostState`.
const EPOCH_ENTRIES: usize = 0;
const NAMESPACE: usize = 1;
const EXES: usize = 2;
const SECRET: usize = 3;
const HOOKS: usize = 4;
const KEEPERS: usize = HOOKS + SLOTS as usize;

// The places above are those of the fields.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(HostState, epoch) == 8 * EPOCH_ENTRIES && offset_of!(HostState, entries) == 4);
    assert!(offset_of!(HostState, mount_namespace) == 8 * NAMESPACE && offset_of!(HostState, exes) == 8 * EXES);
    assert!(offset_of!(HostState, secret) == 8 * SECRET && offset_of!(HostState, hooks) == 8 * HOOKS);
    assert!(offset_of!(HostState, keepers) == 8 * KEEPERS);
};

/// `HostState`, of which halves of words are written by the programs, too: every change is one exchange of a word.
#[derive(Debug)]
pub struct State(Words);

impl State {
    /// Maps the value.
    pub fn new(map: &OwnedFd) -> Result<Self> {
        let words = Words::new(map.as_fd(), size_of::<HostState>());
        Ok(Self(words.context(|| "cannot map the state of the host half".to_owned())?))
    }

    /// Fills in what never changes: the secret.
    pub fn prepare(map: &OwnedFd) -> Result<()> {
        let mut secret = [0; 8];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut secret));
        read.context(|| "cannot read random bytes".to_owned())?;
        let state = Self::new(map)?;
        state.word(SECRET).store(u64::from_ne_bytes(secret), SeqCst);
        // Directories are remembered with the epoch they were walked in; 0 is the one of memory nobody has written.
        state.bump_epoch();
        Ok(())
    }

    /// The secret of path hashes.
    pub fn secret(&self) -> u64 {
        self.word(SECRET).load(SeqCst)
    }

    /// Makes the programs walk every directory anew.
    pub fn bump_epoch(&self) {
        self.change(EPOCH_ENTRIES, |[epoch, entries]| [epoch.wrapping_add(1), entries]);
    }

    /// Says how many dynamic entries there are, and makes the programs walk every directory anew.
    pub fn set_entries(&self, count: u32) {
        self.change(EPOCH_ENTRIES, |[epoch, _]| [epoch.wrapping_add(1), count]);
    }

    /// Says which mount namespace is the host's; whether that is news.
    pub fn set_namespace(&self, inode: u32) -> bool {
        self.change(NAMESPACE, |[_, zero]| [inode, zero])[0] != inode
    }

    /// Takes the next id of an executable.
    pub fn next_exe(&self) -> u64 {
        self.word(EXES).fetch_add(1, SeqCst).wrapping_add(1)
    }

    /// Says which executables may reach what is Ringfence's own.
    pub fn set_keepers(&self, [a, b, c, d]: [u32; 4]) {
        self.word(KEEPERS).store(join([a, b]), SeqCst);
        self.word(KEEPERS + 1).store(join([c, d]), SeqCst);
    }

    /// Bit per hook at which a slot's generation judges.
    pub fn hooks(&self, slot: u8) -> u64 {
        self.0.words().get(HOOKS + usize::from(slot)).map_or(0, |word| word.load(SeqCst))
    }

    /// Says at which hooks a slot's generation judges.
    pub fn set_hooks(&self, slot: u8, hooks: u64) {
        if let Some(word) = self.0.words().get(HOOKS + usize::from(slot)) {
            word.store(hooks, SeqCst);
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    /// Changes the two halves of a word, in the order they lie in memory; returns what they were.
    fn change(&self, index: usize, change: impl Fn([u32; 2]) -> [u32; 2]) -> [u32; 2] {
        let word = self.word(index);
        let mut old = word.load(SeqCst);
        loop {
            match word.compare_exchange_weak(old, join(change(split(old))), SeqCst, SeqCst) {
                Ok(_) => return split(old),
                Err(now) => old = now,
            }
        }
    }
}

fn split(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

fn join([first, second]: [u32; 2]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}
