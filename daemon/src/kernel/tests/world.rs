//! A place for one test: a network and a mount namespace, a BPF filesystem, and a pair of devices.

use std::{
    fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, bind, recv, send, socket},
};
use ringfence_abi::counter::{Counter, DEFAULT};
use ringfence_policy::{
    compile::{Compiled, compile},
    model::{Chain, Connections, HostChain, Location, Mode, Policy, Verdict},
};

use crate::kernel::{Device, Kernel, Loaded};

/// Frames that no protocol of the kernel answers (its type is one for experiments).
pub const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let mut i = 0;
    while i < 6 {
        frame[i] = 0xff;
        i += 1;
    }
    frame[6] = 2;
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame
};

/// Where a test happens.
pub struct World {
    pub directory: tempfile::TempDir,
}

/// Runs a test in a thread with namespaces of its own. They, what is pinned and what is attached end with the thread.
pub fn in_world(test: impl FnOnce(&World) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let world = World { directory: tempfile::tempdir().unwrap() };
        crate::kernel::mount_bpffs(world.directory.path()).unwrap();
        for part in ["all", "default"] {
            // No frames but the test's own.
            fs::write(format!("/proc/sys/net/ipv6/conf/{part}/disable_ipv6"), "1").unwrap();
        }
        pair("a", "b");
        test(&world);
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    /// The BPF filesystem.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.path().join("ringfence")
    }

    pub fn open(&self) -> Kernel {
        Kernel::open(&self.bpffs(), Some(self.directory.path())).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The directory cannot be removed while something is mounted there.
        if let Err(error) = umount2(self.directory.path(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.directory.path().display());
        }
    }
}

/// Makes two devices, each of which receives what the other sends.
fn pair(one: &str, other: &str) {
    ip(&["link", "add", "name", one, "type", "veth", "peer", "name", other]);
    ip(&["link", "set", "dev", one, "up"]);
    ip(&["link", "set", "dev", other, "up"]);
}

pub fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn device(name: &str) -> Device<'_> {
    Device { index: if_nametoindex(name).unwrap(), name, l3: false }
}

/// Sends frames out of a device.
pub fn send_frames(name: &str, count: usize) {
    let socket = packet_socket(name);
    for _ in 0..count {
        send(socket.as_raw_fd(), &FRAME, MsgFlags::empty()).unwrap();
    }
}

/// Counts the frames that arrive at a device while something is done, as a capture there sees them (after XDP, before
/// TC).
pub fn captured(name: &str, meanwhile: impl FnOnce()) -> usize {
    let socket = packet_socket(name);
    meanwhile();
    let mut count = 0;
    let mut buffer = [0; 2048];
    // veth hands frames over in softirq: they are there when `send` returns, or very soon.
    let deadline = Instant::now() + Duration::from_millis(200);
    while Instant::now() < deadline {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => count += usize::from(buffer[..length] == FRAME[..]),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    count
}

fn packet_socket(name: &str) -> std::os::fd::OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let all = nix::sys::socket::SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: if_nametoindex(name).unwrap().cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: a whole `sockaddr_ll` of the length given.
    let address = unsafe {
        LinkAddr::from_raw((&raw const address).cast(), Some(size_of::<libc::sockaddr_ll>() as u32)).unwrap()
    };
    bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

/// A policy of two defaults; `None`: it has no such chain.
pub fn policy(ingress: Option<Verdict>, egress: Option<Verdict>) -> Compiled {
    let at = Location { file: 0, line: 1, column: 1 };
    let chain = |default| Chain { default, default_at: at, protect: false, rules: Vec::new() };
    let policy = Policy {
        mode: Mode::Enforce,
        files: vec!["test.yaml".to_owned()],
        dynamic_sets: Vec::new(),
        interfaces: None,
        floor: [false; 7],
        connections: Connections::default(),
        ingress: ingress.map(chain),
        egress: egress.map(chain),
        host: HostChain::implicit(),
        tests: Vec::new(),
        access_tests: Vec::new(),
    };
    compile(&policy).unwrap()
}

/// Loads a policy that reads no dynamic sets.
pub fn load(kernel: &Kernel, number: u64, ingress: Option<Verdict>, egress: Option<Verdict>) -> Loaded {
    kernel.load(&policy(ingress, egress), number, |_| 0).unwrap()
}

/// Packets that met the default verdict of a chain of `loaded`: 0 is ingress, 1 egress.
pub fn by_default(loaded: &Loaded, chain: usize) -> u64 {
    let counters: Vec<Counter> = loaded.counters().unwrap();
    counters[(loaded.chains[chain].counter_base + DEFAULT) as usize].packets
}

/// The names below a directory of pins.
pub fn pinned(path: &Path) -> Vec<String> {
    let mut names = crate::kernel::pins::names(path).unwrap();
    names.sort_unstable();
    names
}
