//! Working memory of a call.

use ringfence_abi::host::{Directory, ExePath, HostState, Mount};
use ringfence_engine::{
    host::{access::Access, automaton::Walk},
    search::{Outcome, Search},
};

use crate::{arena::Arena, maps::state};

/// Longest host path that is judged.
pub const MAX_LENGTH: u32 = 4096;
/// Most components of one.
pub const MAX_DEPTH: u32 = 64;
/// Dentries on the longest way, with room for one more.
pub const MAX_VISITS: usize = MAX_DEPTH as usize + 4;
/// Room before a path within its file system, for the mount point.
pub const HEAD: u32 = 256;
/// Where the path of a directory ends, and the last component begins.
pub const TOP: u32 = HEAD + MAX_LENGTH;
/// Size of the buffer: a name has up to 255 bytes.
pub const BUFFER: usize = TOP as usize + 512;

/// A thread's working memory.
#[repr(C)]
pub struct Scratch {
    pub access: Access,
    /// Non-zero: what is asked is not counted.
    pub quiet: u32,
    /// User id that the subject acts by.
    pub uid: u32,
    /// Id of its executable.
    pub exe: u32,
    /// What must be found out of the caller before rules are searched: `subject::CALLER_`.
    pub caller: u32,
    /// Operations yet to be asked, of the first place and of the second.
    pub questions: [u32; 2],
    /// Non-zero: the call is refused.
    pub refused: u32,
    pub mask: u32,
    /// Non-zero: what lies below the place counts, too.
    pub below: u32,
    pub places: [Place; 2],
    pub entry: EntryProbe,
    pub climb: Climb,
    pub progress: Progress,
    pub directory: Directory,
    pub search: Search,
    pub outcome: Outcome,
    /// The mount point of a mount on its way ([`Stash`]).
    pub stash: Stash,
    pub key: ExePath,
    /// Their sequences, from the last component upwards.
    pub sequences: [u32; MAX_VISITS],
    pub path: [u8; BUFFER],
}

impl Scratch {
    /// [`Scratch::below`], as the verifier sees it: as it may be, not as it was last written.
    #[inline(always)]
    pub fn is_below(&self) -> bool {
        // SAFETY: a reference is valid for reads.
        unsafe { (&raw const self.below).read_volatile() != 0 }
    }
}

/// An object's place among the paths.
#[repr(C)]
pub struct Place {
    /// Its leaf.
    pub leaf: u32,
    pub zero: u32,
    /// Bit per dynamic entry that is about it.
    pub entries: u64,
}

/// A path that is being read.
#[repr(C)]
pub struct Progress {
    pub walk: Walk,
    pub hash: u64,
    /// Bit per dynamic entry whose tree this lies in.
    pub entries: u64,
    /// Components so far.
    pub depth: u32,
    /// Where in the buffer it begins.
    pub position: u32,
    /// From where in the buffer on names are compared in the file system's own way.
    pub folds: u32,
    /// Non-zero: dynamic entries are in force.
    pub hashing: u32,
    /// Why the path is unknown; 0: it is known.
    pub line: u32,
    pub zero: u32,
}

/// A way up to a file system's root.
#[repr(C)]
pub struct Climb {
    /// Address of the dentry, or kernfs node, that is next.
    pub node: u64,
    /// Where it ends.
    pub root: u64,
    /// Where the path begins that has been gathered so far.
    pub at: u32,
    /// [`Climb::ARRIVED`], or why the path is unknown.
    pub line: u32,
    /// [`MountKey::file_system`](ringfence_abi::host::MountKey::file_system) whose mounts are looked up.
    pub file_system: u64,
    /// The mount found: its number and the length of its root.
    pub index: u32,
    pub matched: u32,
    /// Dentries whose sequence was noted.
    pub visited: u32,
    pub zero: u32,
}

impl Climb {
    /// It got to the root.
    pub const ARRIVED: u32 = 0;
    /// [`Climb::index`]: no mount.
    pub const NO_MOUNT: u32 = u32::MAX;
}

/// The search for a dynamic entry.
#[repr(C)]
pub struct EntryProbe {
    /// Those yet to be looked at.
    pub bits: u64,
    /// The newest that matches; 0: none.
    pub id: u64,
    pub index: u32,
    pub verdict: u32,
    pub op: u32,
    /// Non-zero: the path is unknown.
    pub unknown: u32,
}

/// Where a mount will be, between the hook that sees the place and the one that sees the file system.
#[repr(C)]
pub struct Stash {
    /// Non-zero: there is one.
    pub set: u32,
    pub zero: u32,
    pub mount: Mount,
}

/// What callbacks of `bpf_loop` get: on the stack, constant for the length of the loop.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    scratch: *mut Scratch,
    arena: Arena,
    state: *mut HostState,
}

impl Frame {
    /// Of a working memory; `None`: there is none, or no tables.
    #[inline(always)]
    pub fn new(scratch: Option<*mut Scratch>) -> Option<Self> {
        Some(Self { scratch: scratch?, arena: Arena::get()?, state: state()? })
    }

    /// What outlives generations.
    #[inline(always)]
    pub fn state(&self) -> *mut HostState {
        self.state
    }

    /// Changes with every change of mounts and dynamic entries.
    #[inline(always)]
    pub fn epoch(&self) -> u32 {
        // SAFETY: the map's only value; an aligned load does not tear.
        unsafe { (&raw const (*self.state).epoch).read_volatile() }
    }

    /// Non-zero: there are dynamic entries.
    #[inline(always)]
    pub fn entries(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.state).entries).read_volatile() }
    }

    /// The working memory.
    #[inline(always)]
    pub fn scratch(&self) -> &'static mut Scratch {
        // SAFETY: a value of a map, which outlives the program. It is this thread's own (or this CPU's, see `maps`), and
        // the fields that a callback changes are not held across its loop.
        unsafe { &mut *self.scratch }
    }

    /// The chain's tables.
    #[inline(always)]
    pub fn tables(&self) -> &Arena {
        &self.arena
    }

    /// The frame behind a callback's context.
    #[inline(always)]
    pub fn of(context: *mut core::ffi::c_void) -> &'static Self {
        // SAFETY: every loop with such a callback passes a frame that outlives it.
        unsafe { &*context.cast::<Self>() }
    }
}
