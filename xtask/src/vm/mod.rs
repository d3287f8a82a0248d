//! `cargo xtask vm`: the tests that need a kernel other than the machine's, on Debian's own kernels in QEMU.

mod disk;
mod kernel;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{setup, shell, test::Checks};
use kernel::Kernel;

/// The suites whose kernels are tried: 6.1, the oldest supported, and 6.12, the first stable one with tcx.
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// The test programs that run in the machines.
const TESTS: [&str; 24] = [
    "netns",
    "fields",
    "traffic",
    "dynamic",
    "interfaces",
    "l3_devices",
    "reject",
    "reject_frames",
    "syn_flood",
    "tcx",
    "vlan_devices",
    "upgrade",
    "clock",
    "connections",
    "limits",
    "proven",
    "everything",
    "host_operations",
    "host_bypass",
    "host_paths",
    "host_subjects",
    "host_life",
    "host_differential",
    "host_examples",
];
/// Those that do not run as a part of the whole test run: they show the same on every kernel, and emulation makes them slow.
const ELSEWHERE: [&str; 5] = ["netns", "fields", "dynamic", "reject_frames", "syn_flood"];
/// Tests of what a suite's kernel does not have: tcx is new in 6.6.
const LACKING: [(&str, &str); 1] = [("bookworm", "tcx")];
/// Kernel modules they need.
const MODULES: [&str; 11] = [
    "veth",
    "8021q",
    "tun",
    "sch_ingress",
    "cls_bpf",
    // Disks in memory, and what is on them.
    "brd",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "overlay",
];
/// Seconds a machine may run; emulation makes everything about ten times slower.
const SECONDS: &str = "2700";
/// What `vm-init` prints at the end when all is well.
const PASSED: &str = "vm-init: passed";

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the kernels of these Debian suites (may be given several times)
    #[arg(long, value_parser = SUITES)]
    suite: Vec<String>,
    /// Only these test programs (may be given several times)
    #[arg(long, value_parser = TESTS)]
    test: Vec<String>,
}

/// Runs the test programs on each kernel.
pub fn run(args: &Args) -> Result<()> {
    run_checks(args, &mut Checks::default())
}

/// The same for all kernels, as a part of the whole test run.
pub fn run_all(checks: &mut Checks) -> Result<()> {
    let tests = TESTS.iter().filter(|test| !ELSEWHERE.contains(test)).map(|&test| test.to_owned());
    run_checks(&Args { suite: Vec::new(), test: tests.collect() }, checks)
}

/// Measures the host half on the oldest kernel: with a clock that counts instructions, one processor and nothing else.
pub fn bench() -> Result<()> {
    packages()?;
    let mut bins = shell::static_cargo(&["build", "--workspace", "--bins"]);
    let found = executables(bins.args(FORMAT))?;
    let mut programs = machine_programs(&found)?;
    programs.push(program(&found, "host-bench", test_place("host_bench"))?);
    let kernel = Kernel::fetch(SUITES[0])?;
    let image = image(&kernel, programs.iter())?;
    let mut passed = false;
    let counting = ["-icount", "shift=0,sleep=off", "-smp", "1"];
    shell::run_lines(&mut qemu(&kernel, &image, &counting), |line| passed |= line == PASSED)?;
    ensure!(passed, "the machine ended without `{PASSED}`");
    Ok(())
}

/// Boots the newest kernel and runs the host half's demonstration there. `programs` is where they are built.
pub fn demo(programs: &Path) -> Result<()> {
    packages()?;
    let built = ["vm-init", "ringfenced", "ringctl", "actor", "host-demo"];
    let found: Vec<_> = built.iter().map(|&name| (name.to_owned(), programs.join(name))).collect();
    let mut inside = machine_programs(&found)?;
    inside.push(program(&found, "host-demo", test_place("host_demo"))?);
    let kernel = Kernel::fetch(SUITES[SUITES.len() - 1])?;
    let image = image(&kernel, inside.iter())?;
    let mut said = Vec::new();
    shell::run_quietly(&mut qemu(&kernel, &image, &["-smp", "2"]), |line| {
        // The kernel's own last words, as it switches off, are no part of it.
        if line.starts_with("vm-init: ") || line.starts_with('[') {
            said.push(line.to_owned());
        } else {
            println!("{line}");
        }
    })?;
    ensure!(said.iter().any(|line| line == PASSED), "the machine ended without `{PASSED}`: {}", said.join("; "));
    Ok(())
}

fn packages() -> Result<()> {
    setup::apt(&["cpio", "dosfstools", "e2fsprogs", "kmod", "qemu-system-x86", "xz-utils"])
}

fn run_checks(args: &Args, checks: &mut Checks) -> Result<()> {
    packages()?;
    let tests = chosen(&TESTS, &args.test);
    let programs = build(&tests, checks)?;
    let mut machines = Vec::new();
    for suite in chosen(&SUITES, &args.suite) {
        let kernel = Kernel::fetch(suite)?;
        let lacks =
            |program: &&Program| LACKING.iter().any(|&(of, test)| of == suite && program.place == test_place(test));
        let image = image(&kernel, programs.iter().filter(|program| !lacks(program)))?;
        machines.push((kernel, image));
    }
    boot_all(&machines, checks)
}

/// Boots the machines side by side and waits until all are off.
fn boot_all(machines: &[(Kernel, PathBuf)], checks: &mut Checks) -> Result<()> {
    let checks = Mutex::new(checks);
    let ended: Vec<Result<()>> = thread::scope(|scope| {
        let (checks, alone) = (&checks, machines.len() == 1);
        let started: Vec<_> =
            machines.iter().map(|(kernel, image)| scope.spawn(move || boot(kernel, image, alone, checks))).collect();
        started.into_iter().map(|machine| machine.join().unwrap_or_else(|_| bail!("its thread ended"))).collect()
    });
    let failed: Vec<String> = (machines.iter().zip(ended))
        .filter_map(|((kernel, _), ended)| Some(format!("Linux {}: {:#}", kernel.release, ended.err()?)))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Those of `all` that are named; all when none is.
fn chosen<'a>(all: &[&'a str], named: &[String]) -> Vec<&'a str> {
    all.iter().copied().filter(|name| named.is_empty() || named.iter().any(|named| named == name)).collect()
}

/// A program and its place in the machine's file system.
struct Program {
    file: PathBuf,
    place: String,
}

fn test_place(test: &str) -> String {
    format!("tests/{test}")
}

/// What cargo must say for [`executables`].
const FORMAT: [&str; 3] = ["--locked", "--message-format", "json-render-diagnostics"];

/// Builds static programs: those of every machine, and the tests.
fn build(tests: &[&str], checks: &Checks) -> Result<Vec<Program>> {
    // In one run: with and without tests, dependencies have other features and would be built twice.
    let mut build = checks.cargo(&["build", "--workspace", "--bins"]);
    build.args(FORMAT);
    for test in tests {
        build.args(["--test", test]);
    }
    let found = executables(&mut build)?;
    let mut programs = machine_programs(&found)?;
    for test in tests {
        programs.push(program(&found, test, test_place(test))?);
    }
    Ok(programs)
}

/// The machine's init, and what the tests start.
fn machine_programs(found: &[(String, PathBuf)]) -> Result<Vec<Program>> {
    let places =
        [("vm-init", "init"), ("ringfenced", "bin/ringfenced"), ("ringctl", "bin/ringctl"), ("actor", "bin/actor")];
    places.into_iter().map(|(name, place)| program(found, name, place.into())).collect()
}

fn program(found: &[(String, PathBuf)], name: &str, place: String) -> Result<Program> {
    let file = found.iter().find(|(found, _)| found == name);
    let file = file.with_context(|| format!("cargo did not build {name}"))?.1.clone();
    Ok(Program { file, place })
}

/// Runs cargo and returns the name and path of each executable it names.
fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    let messages = shell::output(command)?;
    let executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    Ok(executables.collect())
}

/// Makes the machine's root file system: an archive that the kernel unpacks into memory.
fn image<'a>(kernel: &Kernel, programs: impl Iterator<Item = &'a Program>) -> Result<PathBuf> {
    let root = kernel.directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for program in programs {
        copy(&program.file, &root.join(&program.place))?;
    }
    kernel.copy_modules(&MODULES, &root.join("modules"))?;
    disk::make(&root.join("disks"))?;
    disk::copy_foreign(&root)?;
    let image = kernel.directory.join("image.cpio");
    let archive = format!("cd '{}' && find . | cpio --quiet -o -H newc > '{}'", root.display(), image.display());
    shell::output(&mut shell::command("sh", &["-c", &archive]))?;
    Ok(image)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a place without a directory")?;
    fs::create_dir_all(parent)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The machine: emulated (`tcg`), for one that is itself virtual often cannot do more.
fn qemu(kernel: &Kernel, image: &Path, further: &[&str]) -> Command {
    let mut qemu = Command::new("timeout");
    qemu.args(["--foreground", "--kill-after=10", SECONDS, "qemu-system-x86_64"]);
    qemu.args(["-accel", "tcg", "-m", "2G", "-nodefaults", "-no-reboot"]).args(further);
    qemu.args(["-display", "none", "-serial", "stdio", "-monitor", "none"]);
    qemu.arg("-kernel").arg(&kernel.file).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]).stdin(std::process::Stdio::null());
    qemu
}

/// Boots the machine and waits until it is off. Its lines are printed at the end, so that two machines' do not mix; at once
/// where it is `alone`.
fn boot(kernel: &Kernel, image: &Path, alone: bool, checks: &Mutex<&mut Checks>) -> Result<()> {
    let mut passed = false;
    let mut output = Vec::new();
    let result = shell::run_quietly(&mut qemu(kernel, image, &["-smp", "2"]), |line| {
        passed |= line == PASSED;
        if alone {
            println!("{line}");
        }
        output.push(line.to_owned());
    });
    let mut checks = checks.lock().map_err(|_| anyhow!("another machine's thread ended"))?;
    println!("\nLinux {}", kernel.release);
    for line in output {
        if !alone {
            println!("{line}");
        }
        checks.tally.add(&line);
    }
    result?;
    ensure!(passed, "the machine ended without `{PASSED}`");
    Ok(())
}
