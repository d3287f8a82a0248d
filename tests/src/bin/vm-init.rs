//! The first and only process of a test machine: prepares it, runs the test programs in `/tests`, says how it went and
//! switches the machine off. What it prints goes to the serial line, where `cargo xtask vm` reads it.

use std::{
    convert::Infallible,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// The line that says that everything went well; anything else on the serial line is a failure.
const PASSED: &str = "vm-init: passed";

fn main() -> Result<Infallible> {
    match run() {
        Ok(()) => println!("{PASSED}"),
        Err(error) => println!("vm-init: {error:#}"),
    }
    // Without this the kernel would panic when its first process ends.
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

fn run() -> Result<()> {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("vm-init: Linux {}", release.trim());
    for module in files("/modules")? {
        finit_module(&File::open(&module)?, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {}", module.display()))?;
    }
    let tests = files("/tests")?;
    ensure!(!tests.is_empty(), "no tests");
    let mut failed = Vec::new();
    for test in tests {
        println!("vm-init: {}", test.display());
        let mut command = Command::new(&test);
        command.args(["--test-threads", "2"]).env("RINGFENCE_BINARIES", "/bin").env("TMPDIR", "/tmp");
        if !command.status().with_context(|| format!("cannot start {}", test.display()))?.success() {
            failed.push(test);
        }
    }
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(())
}

/// The files of a directory, by name.
fn files(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}
