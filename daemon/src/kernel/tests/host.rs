//! The host half where the kernel gives no security hooks: `connect` and `bind` are judged at a cgroup, here one of the
//! test's own. Calls are made by real processes in it: this test program, started anew.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, id},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ringfence_abi::host::{CGROUP_HOOKS, op};
use ringfence_policy::{
    compile::{Compiled, compile},
    model::{HostChain, Mode, Policy, Verdict},
};

use super::world::{World, in_world, ip};
use crate::kernel::{Kernel, KernelError, Loaded, Obstacle, PathRule};

const CALL: &str = "RINGFENCE_TEST_CALL";
const CGROUP: &str = "RINGFENCE_TEST_CGROUP";
/// Everything that is judged: by TCP and UDP, on both families, with and without a connection.
const CALLS: [&str; 8] = [
    "tcp 127.0.0.1:9",
    "tcp [::1]:9",
    "tcp [::ffff:127.0.0.1]:9",
    "udp 127.0.0.1:9",
    "send 127.0.0.1:9",
    "send [::1]:9",
    "bind 127.0.0.1:0",
    "bind [::1]:0",
];

/// A cgroup of one test's own.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 file system");
        let root = Path::new(line.split(' ').nth(4).unwrap());
        let path = root.join(format!("ringfence-test-{name}-{}", id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Whether a call of a process in this cgroup is refused.
    fn refuses(&self, call: &str) -> bool {
        made(call, Some(&self.0)) == Some(libc::EPERM)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The error number of a call that another process makes.
fn made(call: &str, cgroup: Option<&Path>) -> Option<i32> {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "kernel::tests::host::caller", "--nocapture"]).env(CALL, call);
    if let Some(cgroup) = cgroup {
        child.env(CGROUP, cgroup);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = text.lines().find_map(|line| Some(line.split_once("answer: ")?.1));
    match answer.unwrap_or_else(|| panic!("{call}: {text}")).trim() {
        "0" => None,
        number => Some(number.parse().unwrap()),
    }
}

/// The other process; does nothing when the tests are run.
#[test]
fn caller() {
    let Ok(call) = env::var(CALL) else { return };
    if let Ok(cgroup) = env::var(CGROUP) {
        fs::write(Path::new(&cgroup).join("cgroup.procs"), id().to_string()).unwrap();
    }
    let (kind, address) = call.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let result: io::Result<()> = match kind {
        "tcp" => TcpStream::connect(address).map(drop),
        "bind" => UdpSocket::bind(address).map(drop),
        kind => {
            // One that is not bound: that would be a call of its own.
            let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let unbound = socket(family, SockType::Datagram, SockFlag::empty(), None).unwrap();
            let socket = UdpSocket::from(unbound);
            if kind == "udp" { socket.connect(address) } else { socket.send_to(b"x", address).map(drop) }
        }
    };
    println!("answer: {}", result.err().and_then(|error| error.raw_os_error()).unwrap_or(0));
}

fn policy(default: Verdict, mode: Mode) -> Compiled {
    let host = HostChain { implicit: false, default, ..HostChain::implicit() };
    compile(&Policy { host, mode, ..Policy::empty() }).unwrap()
}

fn open(world: &World, cgroup: &Cgroup) -> Kernel {
    ip(&["link", "set", "dev", "lo", "up"]);
    Kernel::open(&world.bpffs(), Some(&cgroup.0)).unwrap()
}

/// Puts a policy in force, and nothing else.
fn apply(kernel: &Kernel, number: u64, compiled: &Compiled, old: Vec<Loaded>) -> Loaded {
    let loaded = kernel.load(compiled, number, |_| 0).unwrap();
    kernel.host_before_flip(&loaded, &old.iter().collect::<Vec<_>>()).unwrap();
    kernel.flip(loaded.slot, loaded.slot, 0);
    kernel.host_after_flip(&[&loaded]).unwrap();
    for old in old {
        kernel.unload(old).unwrap();
    }
    loaded
}

fn by_default(loaded: &Loaded) -> u64 {
    loaded.counters().unwrap()[loaded.host.consts.chain.counter_base as usize].packets
}

fn attached(kernel: &Kernel, loaded: &[&Loaded]) -> Vec<&'static str> {
    let hooks = kernel.host_hooks(loaded).unwrap();
    hooks.into_iter().filter(|hook| hook.attached).map(|hook| hook.name).collect()
}

#[test]
fn calls_are_refused_in_the_cgroup_and_nowhere_else() {
    in_world(|world| {
        let cgroup = Cgroup::new("refused");
        let kernel = open(world, &cgroup);
        assert_eq!(CALLS.map(|call| cgroup.refuses(call)), [false; 8], "nothing is in force yet");

        let loaded = apply(&kernel, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new());
        assert_eq!(attached(&kernel, &[&loaded]), CGROUP_HOOKS.map(|hook| hook.name));
        for call in CALLS {
            assert!(cgroup.refuses(call), "{call}");
            assert_ne!(made(call, None), Some(libc::EPERM), "{call}, outside");
        }
        assert_eq!(by_default(&loaded), CALLS.len() as u64, "each call is counted once");

        drop((kernel, loaded));
        assert!(cgroup.refuses(CALLS[0]), "also while no daemon is there");

        let kernel = open(world, &cgroup);
        let adopted = kernel.adopt().unwrap();
        assert_eq!(by_default(&adopted[0]), CALLS.len() as u64 + 1);
        let allowing = apply(&kernel, 2, &policy(Verdict::Accept, Mode::Enforce), adopted);
        assert_eq!(attached(&kernel, &[&allowing]), Vec::<&str>::new(), "what nobody needs is detached");
        assert_eq!(CALLS.map(|call| cgroup.refuses(call)), [false; 8]);
    });
}

#[test]
fn an_audit_counts_and_lets_go() {
    in_world(|world| {
        let cgroup = Cgroup::new("audit");
        let kernel = open(world, &cgroup);
        let loaded = apply(&kernel, 1, &policy(Verdict::Drop, Mode::Audit), Vec::new());
        assert!(!cgroup.refuses(CALLS[0]));
        assert_eq!(by_default(&loaded), 1, "the policy's own mode");

        let loaded = apply(&kernel, 2, &policy(Verdict::Drop, Mode::Enforce), vec![loaded]);
        kernel.set_audit(true);
        assert!(!cgroup.refuses(CALLS[0]));
        kernel.set_audit(false);
        assert!(cgroup.refuses(CALLS[0]));
        assert_eq!(by_default(&loaded), 2, "the mode at run time");
    });
}

#[test]
fn a_generation_that_lost_its_program_refuses() {
    in_world(|world| {
        let cgroup = Cgroup::new("lost");
        let kernel = open(world, &cgroup);
        let loaded = apply(&kernel, 1, &policy(Verdict::Drop, Mode::Audit), Vec::new());
        let array = crate::kernel::sys::open_pin(&kernel.pins.map("C_connect4")).unwrap().unwrap();
        let programs = crate::kernel::maps::table::<u32, u32>(array).unwrap();
        assert!(programs.remove(&u32::from(loaded.slot)).unwrap());
        assert!(cgroup.refuses("tcp 127.0.0.1:9"));
        assert_eq!(kernel.host_misses().unwrap(), 1);
        assert!(!cgroup.refuses("tcp [::1]:9"), "its other programs judge on");
    });
}

#[test]
fn off_takes_the_programs_from_the_cgroup() {
    in_world(|world| {
        let cgroup = Cgroup::new("off");
        let kernel = open(world, &cgroup);
        drop(apply(&kernel, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new()));
        kernel.off().unwrap();
        let directory = fs::File::open(&cgroup.0).unwrap();
        let kind = aya_obj::generated::bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32;
        let left = crate::kernel::sys::attached(directory.as_raw_fd().cast_unsigned(), kind).unwrap();
        assert_eq!(left, Vec::<u32>::new());
        assert!(!cgroup.refuses(CALLS[0]));
        assert!(!world.bpffs().join(format!("v{}", ringfence_abi::ABI_VERSION)).exists());
    });
}

#[test]
fn calls_are_not_judged_by_two_daemons_at_one_cgroup() {
    in_world(|world| {
        let (shared, other) = (Cgroup::new("shared"), Cgroup::new("other"));
        let kernel = open(world, &shared);
        if kernel.host_support().lsm.is_none() {
            // There the security hooks are shared, which tests in virtual machines look at.
            return;
        }
        let first = apply(&kernel, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new());
        let elsewhere = world.directory.path().join("elsewhere");
        let second = Kernel::open(&elsewhere, Some(&shared.0)).unwrap();
        let loaded = second.load(&policy(Verdict::Drop, Mode::Enforce), 1, |_| 0).unwrap();
        let error = second.host_before_flip(&loaded, &[]).unwrap_err();
        assert!(matches!(error, KernelError::Another { place: "cg_connect4" }), "{error}");
        assert_eq!(attached(&second, &[&loaded]), Vec::<&str>::new());
        second.off().unwrap();

        let second = Kernel::open(&elsewhere, Some(&other.0)).unwrap();
        drop(apply(&second, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new()));
        second.off().unwrap();

        // Once the first has gone, its place is free.
        drop(first);
        kernel.off().unwrap();
        let second = Kernel::open(&elsewhere, Some(&shared.0)).unwrap();
        drop(apply(&second, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new()));
        assert!(shared.refuses(CALLS[0]));
        second.off().unwrap();
    });
}

#[test]
fn what_the_kernel_cannot_do_is_named_with_what_to_do_about_it() {
    in_world(|world| {
        let cgroup = Cgroup::new("support");
        let kernel = open(world, &cgroup);
        let loaded = apply(&kernel, 1, &policy(Verdict::Drop, Mode::Enforce), Vec::new());
        let support = kernel.host_support();
        assert_eq!(support.cgroup, None);
        let Some(obstacle) = &support.lsm else {
            // A kernel that gives security hooks: nothing stands in for them, and nothing goes unjudged.
            assert_eq!(kernel.unjudged_ops(&loaded), 0);
            return;
        };
        assert!(!obstacle.remedy().is_empty(), "{obstacle}");
        let judged = 1 << op::CONNECT | 1 << op::BIND;
        assert_eq!(kernel.unjudged_ops(&loaded), loaded.host.consts.ops & !judged);
        let rule =
            PathRule { path: "/etc".into(), tree: true, entry: ringfence_abi::host::PathEntry::default(), exe: None };
        let refused = kernel.add_path_rule(&rule, &[&loaded]);
        assert!(matches!(refused, Err(KernelError::Host(found)) if found == *obstacle));
    });
}

#[test]
fn a_directory_that_is_no_cgroup_is_an_obstacle() {
    in_world(|world| {
        let kernel = Kernel::open(&world.bpffs(), Some(Path::new("/proc"))).unwrap();
        let found = &kernel.host_support().cgroup;
        assert!(matches!(found, Some(Obstacle::Cgroup { error }) if error.contains("/proc")), "{found:?}");
    });
}
