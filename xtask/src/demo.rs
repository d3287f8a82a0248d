//! `cargo xtask demo`: builds what the demonstrations need and runs them: packets on this machine, system calls here too if
//! its kernel gives BPF programs security hooks, else in a virtual machine with a kernel that does.

use anyhow::{Context, Result, ensure};

use crate::{setup, shell, test::Checks, vm};

/// How the host half's demonstration ends where the kernel has no security hooks to give.
const NO_HOOKS: i32 = 3;

/// Builds and runs the demonstration.
pub fn run() -> Result<()> {
    ensure!(setup::is_root(), "the demo makes network namespaces and loads BPF programs: run it as root");
    println!("The first run builds Ringfence, which takes a few minutes.");
    println!("Installed on this machine is only what is named: QEMU, where this kernel cannot do the second part.");
    show(&Checks::default())
}

/// Runs `tests/src/bin/demo.rs` and `host-demo.rs`; fails unless they show what they promise. Built as the tests are: a
/// newcomer who runs both commands builds once.
pub fn show(checks: &Checks) -> Result<()> {
    let programs = checks.programs()?;
    let demo = |name: &str| {
        let mut command = shell::command(programs.join(name), &[]);
        command.env("RINGFENCE_BINARIES", &programs);
        command
    };
    shell::run(&mut demo("demo"))?;
    let here = demo("host-demo").status().context("cannot run host-demo")?;
    if here.code() == Some(NO_HOOKS) {
        println!(
            "\nThis kernel has no security hooks to give; the second part runs in a virtual machine (emulated: slow)."
        );
        return vm::demo(&programs);
    }
    ensure!(here.success(), "host-demo failed: {here}");
    Ok(())
}
