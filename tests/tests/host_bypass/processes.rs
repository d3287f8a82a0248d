//! Ways through other processes, and what no hook sees.

use std::fs;

use anyhow::{Result, ensure};
use ringfence_tests::host::{Attempt, attempt, make_directory, name_actor};

use crate::{
    SECRET,
    scene::{DEEP, MACHINE, Pair, judged},
};

#[test]
fn fork_without_exec() -> Result<()> {
    MACHINE.run(|machine| {
        for steps in [&["fork", "open /shared"][..], &["fork", "fork", "open /shared"], &["thread", "open /shared"]] {
            judged(machine, &Attempt::new(steps).by("/bin/untrusted"), "untrusted", "open: EACCES")?;
            judged(machine, &Attempt::new(steps), "untrusted", "ok")?;
        }
        Ok(())
    })
}

#[test]
fn deleted_executable() -> Result<()> {
    fs::copy("/bin/actor", "/bin/untrusted-copy")?;
    MACHINE.run(|machine| {
        // Renamed over the name in the rule: its path is settled when it is executed.
        fs::rename("/bin/untrusted-copy", "/bin/untrusted")?;
        let before = machine.hits()?;
        let waiting = Attempt::new(["wait", "open /shared"]).by("/bin/untrusted").start()?;
        fs::remove_file("/bin/untrusted")?;
        let outcome = waiting.finish();
        name_actor("/bin/untrusted")?;
        let outcome = outcome?;
        ensure!(outcome == "open: EACCES", "{outcome}");
        ensure!(machine.hits()?.since(&before, "untrusted")? == 1, "refused by another rule");
        Ok(())
    })
}

#[test]
fn descriptor_passed_over_a_socket() -> Result<()> {
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        for (base, expected) in [(pair.protected(), "receive-descriptor: EACCES"), (pair.free(), "ok")] {
            let socket = format!("{base}/socket");
            let giver = [format!("open {base}/file"), format!("pass-descriptor {socket}")];
            let giver = Attempt::new(giver).by("/bin/trusted").start()?;
            let taker = Attempt::new([format!("receive-descriptor {socket}"), "read".into()]);
            judged(machine, &taker, SECRET, expected)?;
            drop(giver);
        }
        Ok(())
    })
}

/// Whoever is traced, or has its memory opened, may be any program from then on.
#[test]
fn traced_allowed_process() -> Result<()> {
    let pair = Pair::new()?;
    let open = format!("open {}/file", pair.protected());
    MACHINE.run(|machine| {
        judged(machine, &Attempt::new(["sleep 1", &open]).by("/bin/trusted"), SECRET, "ok")?;
        for step in ["trace", "seize", "write-memory"] {
            let trusted = Attempt::new(["wait", &open]).by("/bin/trusted").start()?;
            let before = machine.hits()?;
            let outcome = attempt([format!("{step} {}", trusted.id())])?;
            ensure!(outcome == "ok", "{outcome}");
            let outcome = trusted.finish()?;
            ensure!(outcome == "open: EACCES", "`{outcome}` after {step}");
            ensure!(machine.hits()?.since(&before, SECRET)? == 1, "refused by another rule");
        }
        // Reading a process's links changes nothing of it.
        let trusted = Attempt::new(["wait", &open]).by("/bin/trusted").start()?;
        attempt([format!("read-exe {}", trusted.id())])?;
        let outcome = trusted.finish()?;
        ensure!(outcome == "ok", "{outcome}");
        Ok(())
    })
}

/// A race: names in the tree change all the time while they are opened. No open may succeed.
#[test]
fn rename_against_open() -> Result<()> {
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        for (base, free) in [(pair.protected(), false), (pair.free(), true)] {
            let exchange = format!("repeat 4000 exchange {base}/sub/a {base}/sub/b");
            let mut changing = Attempt::new([exchange]).by("/bin/mover").start_running()?;
            let before = machine.hits()?;
            let outcome = attempt([format!("repeat 2000 open {base}/sub/a/file")])?;
            let through: u32 = outcome.trim_start_matches("ok: ").parse()?;
            // Where no rule is, a walk that was torn three times is refused, too; not mostly.
            let expected = if free { 1000..=2000 } else { 0..=0 };
            ensure!(expected.contains(&through), "{through} of 2000 got through in {base}");
            ensure!(free || machine.hits()?.since(&before, SECRET)? >= 2000, "refused by another rule");
            let changed = changing.outcome()?;
            ensure!(changed == "ok: 4000", "the names did not change: {changed}");
        }
        Ok(())
    })
}

/// Reading from a descriptor is not judged again: who opened a file before the rule came, or before it changed its user,
/// goes on reading.
#[test]
fn descriptors_opened_before_are_not_refused() -> Result<()> {
    let pair = Pair::new()?;
    let file = format!("open {}/file", pair.protected());
    let outcome = MACHINE.run(|_| Attempt::new([file.as_str(), "drop 1000 1000", "read"]).by("/bin/trusted").run())?;
    ensure!(outcome == "ok", "{outcome}");
    Ok(())
}

/// What the kernel sends by itself asks no hook: whoever may write to `cgroup.kill` ends all that is in the cgroup.
#[test]
fn signals_of_the_kernel_are_not_refused() -> Result<()> {
    const CGROUP: &str = "/sys/fs/cgroup/victim";
    make_directory(CGROUP)?;
    MACHINE.run(|machine| {
        let mut victim = Attempt::new([&format!("cgroup {CGROUP}"), "wait"]).by("/bin/victim").start()?;
        judged(machine, &Attempt::new([format!("kill {}", victim.id())]), "signal", "kill: EACCES")?;
        fs::write(format!("{CGROUP}/cgroup.kill"), "1")?;
        ensure!(victim.outcome().is_err(), "it lives on");
        Ok(())
    })
}

/// A hard link that is older than the rule is another name of the file, which the rule does not speak of.
#[test]
fn links_made_before_are_not_refused() -> Result<()> {
    let pair = Pair::new()?;
    MACHINE.run(|machine| {
        judged(machine, &Attempt::new([format!("open {}/file", pair.protected())]), SECRET, "open: EACCES")?;
        judged(machine, &Attempt::new([format!("open {}/older", pair.protected())]), SECRET, "ok")
    })
}

/// Beyond 64 components or 4,096 bytes nothing is known of a path: refused, with and without a rule, and counted so.
#[test]
fn deep_and_long_paths() -> Result<()> {
    MACHINE.run(|machine| {
        for (base, protected) in [("/p/deep", true), ("/q/deep", false)] {
            for deep in &DEEP {
                let (before, outcome) = (machine.hits()?, attempt(deep.steps(base, "chdir", "open file"))?);
                let after = machine.hits()?;
                let expected = if protected || deep.line.is_some() { "open: EACCES" } else { "ok" };
                ensure!(outcome == expected, "{} in {base}: `{outcome}` instead of `{expected}`", deep.name);
                if let Some(line) = deep.line {
                    ensure!(after.since(&before, line)? > 0, "{} in {base}: {line} counted nothing", deep.name);
                }
            }
        }
        Ok(())
    })
}
