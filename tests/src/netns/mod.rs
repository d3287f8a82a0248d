//! Small networks of network namespaces. Nothing here touches the machine's own interfaces, and nothing is left behind:
//! a [`Host`]'s namespaces live as long as a file descriptor, socket or process of theirs, also when a test panics.

mod cable;
mod frame;
mod link;
mod site;
mod tap;
mod tun;
mod volley;
mod witness;

pub use cable::Cable;
pub use frame::{Frame, Transport};
pub use site::{CLIENT, Direction, SERVER, STRANGER, Site, Wire, families};
pub use tap::Tap;
pub use tun::Tun;
pub use volley::Volley;
pub use witness::Witness;

use std::{
    fs::{self, File},
    io, panic,
    process::{Child, Command},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// A machine of a test network: a network namespace, and a mount namespace in which `/sys` shows that network and
/// `/sys/fs/bpf` is a bpffs of its own. Programs and maps pinned there are gone with the host.
#[derive(Debug)]
pub struct Host {
    network: File,
    mounts: File,
}

impl Host {
    /// A host with a loopback device that is up, and nothing else.
    pub fn new() -> Result<Self> {
        let host = thread::scope(|scope| join(scope.spawn(Self::unshare)))?;
        host.up("lo")?;
        Ok(host)
    }

    /// The machine itself, for tests that have one of their own.
    pub fn current() -> Result<Self> {
        Ok(Self { network: File::open("/proc/self/ns/net")?, mounts: File::open("/proc/self/ns/mnt")? })
    }

    /// Leaves the calling thread in the new namespaces: only for a thread that ends after it.
    fn unshare() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make namespaces (needs root)")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("cannot unshare mounts")?;
        // A sysfs shows the network namespace that it was mounted in.
        mount(nothing, "/sys", Some("sysfs"), MsFlags::empty(), nothing).context("cannot mount sysfs")?;
        mount(nothing, "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), nothing).context("cannot mount bpffs")?;
        // Link-local addresses are usable at once instead of after duplicate address detection.
        for scope in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").context("cannot set accept_dad")?;
        }
        let open = |name: &str| File::open(name).with_context(|| format!("cannot open {name}"));
        Ok(Self { network: open("/proc/thread-self/ns/net")?, mounts: open("/proc/thread-self/ns/mnt")? })
    }

    /// Runs `action` inside the host, on a thread of its own. Sockets it opens stay in the host's network.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            join(scope.spawn(|| -> Result<T> {
                self.enter().context("cannot enter the namespaces")?;
                Ok(action())
            }))
        })
    }

    /// Starts a program inside the host.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.run(|| command.spawn())?.with_context(|| format!("cannot start {}", program.display()))
    }

    fn enter(&self) -> io::Result<()> {
        // A thread may change its mount namespace only when it shares root and working directory with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// The thread's result; its panic goes on in the caller.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}
