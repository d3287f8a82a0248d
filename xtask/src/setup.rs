//! Installs what a command needs and says so. On a machine that has it all, nothing is printed.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Result, ensure};

use crate::shell;

/// Installs the Debian packages of `packages` that are missing.
pub fn apt(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(is_root(), "needs root to install: apt-get install {}", missing.join(" "));
    println!("installing from Debian: {}", missing.join(" "));
    update()?;
    let mut arguments = vec!["-qq", "install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    shell::run(&mut apt_get(&arguments))
}

/// Fetches Debian's package lists, once a run: a fresh machine has none, and old ones name packages that are gone.
pub fn update() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        shell::run(&mut apt_get(&["-qq", "update"]))?;
        DONE.get_or_init(|| ());
    }
    Ok(())
}

/// Installs a program from crates.io, with further arguments to `cargo install`, unless there is one already.
pub fn cargo_install(name: &str, version: &str, further: &[&str]) -> Result<()> {
    if answers(name) {
        return Ok(());
    }
    println!("installing from crates.io: {name} {version}");
    let mut command = shell::cargo(&["install", "--quiet", "--locked", "--version", version, name]);
    shell::run(command.args(further))
}

/// Network namespaces, BPF and apt-get need root.
pub fn is_root() -> bool {
    shell::output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = shell::command("apt-get", arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Status}", package]).output();
    query.is_ok_and(|query| query.stdout == b"installed")
}

fn answers(program: &str) -> bool {
    let quiet = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
