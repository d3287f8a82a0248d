//! The first and only process of a test machine: prepares it, runs the test programs in `/tests`, says how it went and
//! switches the machine off. What it prints goes to the serial line, where `cargo xtask vm` reads it.

use std::{
    convert::Infallible,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

/// The line that says that everything went well; anything else on the serial line is a failure.
const PASSED: &str = "vm-init: passed";
/// Test programs that begin with this judge the whole machine's system calls: one test at a time, on a machine as the
/// one before found it.
const HOST: &str = "host_";

/// Kind, place and options of what is mounted.
const MOUNTS: [(&str, &str, Option<&str>); 9] = [
    ("devtmpfs", "/dev", None),
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("tmpfs", "/tmp", Some("mode=1777")),
    ("tmpfs", "/run", Some("mode=755")),
    ("tmpfs", "/dev/shm", Some("mode=1777")),
    ("bpf", "/sys/fs/bpf", None),
    ("cgroup2", "/sys/fs/cgroup", None),
    ("securityfs", "/sys/kernel/security", None),
];

/// Accounts: name and uid, which is also the gid.
const USERS: [(&str, u32); 5] = [("root", 0), ("www-data", 33), ("alice", 1000), ("bob", 1001), ("nobody", 65534)];

fn main() -> Result<Infallible> {
    match run() {
        Ok(()) => println!("{PASSED}"),
        Err(error) => println!("vm-init: {error:#}"),
    }
    // Without this the kernel would panic when its first process ends.
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

fn run() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("vm-init: Linux {}", release.trim());
    for module in files("/modules")? {
        match finit_module(&File::open(&module)?, c"", ModuleInitFlags::empty()) {
            // For a processor that this is not; what needs it has another way.
            Err(Errno::ENODEV) => println!("vm-init: no device for {}", module.display()),
            result => result.with_context(|| format!("cannot load {}", module.display()))?,
        }
    }
    disks()?;
    accounts()?;
    let tests = files("/tests")?;
    ensure!(!tests.is_empty(), "no tests");
    let failed: Vec<_> = tests.into_iter().filter_map(|test| test_program(&test).err()).collect();
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(())
}

/// Mounts the images in `/disks` on `/mnt`, each from a disk in memory.
fn disks() -> Result<()> {
    for (number, image) in files("/disks")?.iter().enumerate() {
        let kind = image.file_name().and_then(|name| name.to_str()).context("an image without a name")?;
        let (device, place) = (format!("/dev/ram{number}"), Path::new("/mnt").join(kind));
        fs::write(&device, fs::read(image)?).with_context(|| format!("cannot write {device}"))?;
        fs::create_dir_all(&place)?;
        mount(Some(device.as_str()), &place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {}", place.display()))?;
    }
    Ok(())
}

/// Writes the files that say who there is, and the mark of a machine that tests may judge.
fn accounts() -> Result<()> {
    let lines = |line: &dyn Fn(&str, u32) -> String| USERS.map(|(name, id)| line(name, id)).concat();
    fs::create_dir_all("/etc")?;
    fs::create_dir_all("/root")?;
    fs::write("/etc/passwd", lines(&|name, id| format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n")))?;
    fs::write("/etc/group", lines(&|name, id| format!("{name}:x:{id}:\n")))?;
    fs::write("/etc/shadow", lines(&|name, _| format!("{name}:!:20000:0:99999:7:::\n")))?;
    fs::set_permissions("/etc/shadow", fs::Permissions::from_mode(0o600))?;
    fs::write("/etc/ringfence-test-machine", "")?;
    Ok(())
}

fn test_program(test: &Path) -> Result<()> {
    println!("vm-init: {}", test.display());
    let begin = Instant::now();
    let host = test.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(HOST));
    let mut command = Command::new(test);
    command.args(["--test-threads", if host { "1" } else { "2" }]);
    command.env("RINGFENCE_BINARIES", "/bin").env("TMPDIR", "/tmp").env("PATH", "/usr/bin:/bin");
    // The serial line looks like a terminal; what reads it may be none.
    command.env("NO_COLOR", "1");
    let status = command.status().with_context(|| format!("cannot start {}", test.display()))?;
    if host {
        clean_up()?;
    }
    println!("vm-init: {} s", begin.elapsed().as_secs());
    ensure!(status.success(), "{} ended with {status}", test.display());
    Ok(())
}

/// Ends what a test program has left running, and switches off what it left pinned.
fn clean_up() -> Result<()> {
    // Everybody else: this is the first process.
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error.into()),
    }
    while waitpid(None, None).is_ok() {}
    // Links go before what their programs need: half removed, they would refuse everything.
    if Path::new("/sys/fs/bpf/ringfence").exists() {
        let off = Command::new("/bin/ringctl").args(["off", "--ringfenced", "/bin/ringfenced"]).status()?;
        ensure!(off.success(), "ringctl off ended with {off}");
    }
    Ok(())
}

/// The files of a directory, by name.
fn files(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
