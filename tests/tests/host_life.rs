//! Policies that change, a daemon that dies, and the way out.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_api::{State, Status};
use ringfence_tests::{
    daemon::Daemon,
    host::{Attempt, Machine, Shared, attempt, name_actor, put},
    netns::Host,
};

static MACHINE: Shared = Shared::new(policy);

/// How long something that comes by itself may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where the daemon of these tests pins.
const PINS: &str = "/sys/fs/bpf/ringfence";
const DENIED: &str = "open: EACCES";

/// A policy that denies reading these files below `/l`, each by a rule with the file's name.
fn denies(files: &[&str]) -> String {
    let rules = files
        .iter()
        .map(|file| format!("    - {{deny: {{op: read, path: /l/{file}}}, name: {}}}\n", file.trim_end_matches("/**")));
    format!("ringfence: 1\nhost:\n  default: allow\n  rules:\n{}", rules.collect::<String>())
}

fn policy() -> Result<String> {
    for file in ["a", "b", "c", "d/file", "d/e/file"] {
        put(format!("/l/{file}"), "x")?;
    }
    Ok(denies(&["a"]))
}

/// The machine as each test finds it: the daemon runs, and reading `/l/a` is denied.
fn run(test: impl FnOnce(&mut Machine) -> Result<()>) -> Result<()> {
    MACHINE.run(|machine| {
        if !machine.daemon.runs() {
            machine.daemon.restart()?;
        }
        let status: Status = machine.daemon.json(&["status"])?;
        if status.generation.is_none() {
            machine.daemon.ctl(["on"])?.done()?;
        }
        machine.daemon.apply(&denies(&["a"]))?;
        expect("a", DENIED)?;
        expect("b", "ok")?;
        test(machine)
    })
}

/// Waits until a file below `/l` is opened with this outcome.
fn becomes(file: &str, outcome: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while expect(file, outcome).is_err() {
        ensure!(Instant::now() < end, "{file} never became `{outcome}`");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn expect(file: &str, outcome: &str) -> Result<()> {
    let found = attempt([format!("open /l/{file}")])?;
    ensure!(found == outcome, "{file}: `{found}` instead of `{outcome}`");
    Ok(())
}

#[test]
fn everything_goes_on_while_the_daemon_is_dead() -> Result<()> {
    run(|machine| {
        let before = machine.hits()?;
        machine.daemon.kill()?;
        for _ in 0..5 {
            expect("a", DENIED)?;
            expect("b", "ok")?;
        }
        // New processes, new directories and new names too.
        fs::create_dir_all("/l/new")?;
        ensure!(attempt(["fork", "open /l/a"])? == DENIED, "a child may");
        machine.daemon.restart()?;
        expect("a", DENIED)?;
        let hits = machine.hits()?.since(&before, "a")?;
        ensure!(hits == 7, "{hits} of 7 refusals were counted");
        Ok(())
    })
}

/// Opens what is denied until told to stop; none may succeed.
fn knock(stop: &AtomicBool, knocks: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let outcome = attempt(["repeat 500 open /l/a"])?;
        ensure!(outcome == "ok: 0", "{outcome} of 500 got through");
        knocks.fetch_add(500, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn an_apply_leaves_no_gap_and_keeps_the_counters() -> Result<()> {
    run(|machine| {
        let before = machine.hits()?;
        let (stop, knocks) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| -> Result<()> {
            let knocking = scope.spawn(|| knock(&stop, &knocks));
            let files = [&["a", "b"][..], &["c", "a", "d/**"], &["a"]];
            let applied = files.iter().try_for_each(|files| {
                machine.daemon.apply(&denies(files))?;
                expect("b", if files.contains(&"b") { DENIED } else { "ok" })
            });
            stop.store(true, Ordering::Relaxed);
            knocking.join().map_err(|_| anyhow!("the thread panicked"))??;
            applied
        })?;
        let (hits, knocks) = (machine.hits()?.since(&before, "a")?, knocks.into_inner());
        ensure!(knocks > 1000 && hits == knocks, "{hits} of {knocks} refusals were counted");
        ensure!(machine.hits()?.of("b").is_err(), "a rule that is gone is still listed");
        // What is bad changes nothing.
        let bad = machine.daemon.write("bad.yaml", denies(&["a"]).replace("op: read", "op: raed"))?;
        let reply = machine.daemon.ctl(["apply".as_ref(), bad.as_os_str()])?.exits(2)?;
        ensure!(reply.stderr.contains("raed") && reply.stderr.contains("bad.yaml:5"), "{}", reply.stderr);
        expect("a", DENIED)
    })
}

#[test]
fn modes_are_switched() -> Result<()> {
    run(|machine| {
        machine.daemon.ctl(["mode", "audit"])?.done()?;
        let before = machine.hits()?;
        expect("a", "ok")?;
        ensure!(machine.hits()?.since(&before, "a")? == 1, "not counted in audit mode");
        let status: Status = machine.daemon.json(&["status"])?;
        ensure!(status.halves.host.hooks.iter().any(|hook| hook.state == State::Audit), "{status:?}");
        machine.daemon.ctl(["mode", "enforce"])?.done()?;
        expect("a", DENIED)?;
        machine.daemon.ctl(["mode", "audit", "--for", "5s"])?.done()?;
        expect("a", "ok")?;
        becomes("a", DENIED)
    })
}

#[test]
fn off_removes_everything_and_on_brings_it_back() -> Result<()> {
    run(|machine| {
        let status: Status = machine.daemon.json(&["status"])?;
        let enforced =
            |status: &Status| status.halves.host.hooks.iter().filter(|hook| hook.state == State::Enforced).count();
        ensure!(enforced(&status) > 0, "{status:?}");
        machine.daemon.ctl(["off"])?.done()?;
        expect("a", "ok")?;
        let left = pins(Path::new(PINS))?;
        ensure!(left.is_empty(), "still pinned: {left:?}");
        machine.daemon.ctl(["on"])?.done()?;
        expect("a", DENIED)
    })
}

/// All files below a directory.
fn pins(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if directory.exists() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { found.extend(pins(&path)?) } else { found.push(path.display().to_string()) }
        }
    }
    Ok(found)
}

#[test]
fn off_needs_no_daemon() -> Result<()> {
    run(|machine| {
        machine.daemon.kill()?;
        expect("a", DENIED)?;
        let state = machine.daemon.path("state").display().to_string();
        machine.daemon.ctl(["off", "--bpffs", PINS, "--state-dir", &state])?.done()?;
        expect("a", "ok")?;
        // It stays off until told otherwise.
        machine.daemon.restart()?;
        expect("a", "ok")
    })
}

#[test]
fn denied_paths_are_denied_at_once() -> Result<()> {
    run(|machine| {
        // The policy says nothing of the host: no program of it is there before.
        machine.daemon.apply("ringfence: 1\nhost: {default: allow}\n")?;
        let deny = |arguments: &[&str]| machine.daemon.ctl(["deny"].iter().chain(arguments))?.done();
        expect("a", "ok")?;
        deny(&["/l/a", "--op", "read,write"])?;
        expect("a", DENIED)?;
        expect("b", "ok")?;
        let write = attempt(["open /l/a w"])?;
        ensure!(write == DENIED, "writing: {write}");
        ensure!(attempt(["chmod /l/a"])? == DENIED.replace("open", "chmod"), "`write` includes `attr`");
        machine.daemon.ctl(["undo", "/l/a"])?.done()?;
        expect("a", "ok")?;
        deny(&["/l/d/**", "--op", "read"])?;
        expect("d/file", DENIED)?;
        expect("d/e/file", DENIED)?;
        expect("a", "ok")?;
        deny(&["/l/b", "--op", "read", "--uid", "1000"])?;
        expect("b", "ok")?;
        let user = attempt(["drop 1000 1000", "open /l/b"])?;
        ensure!(user == DENIED, "the user: {user}");
        name_actor("/bin/subject")?;
        deny(&["/l/c", "--op", "read", "--exe", "/bin/subject"])?;
        expect("c", "ok")?;
        let program = Attempt::new(["open /l/c"]).by("/bin/subject").run()?;
        ensure!(program == DENIED, "the program: {program}");
        deny(&["/l/a", "--op", "read", "--for", "5s"])?;
        expect("a", DENIED)?;
        becomes("a", "ok")?;
        for path in ["/l/d/**", "/l/b", "/l/c"] {
            machine.daemon.ctl(["undo", path])?.done()?;
        }
        expect("d/e/file", "ok")
    })
}

/// By its name the last one: while this is in force, nobody writes another policy to the file that it came from.
#[test]
fn the_guard_of_ringfence_itself() -> Result<()> {
    let policy = denies(&["a"]).replace("  default: allow\n", "  default: allow\n  protect_self: true\n");
    run(|machine| {
        machine.daemon.apply(&policy)?;
        let pin = pins(Path::new(PINS))?.into_iter().next().unwrap_or_default();
        let state = machine.daemon.path("state").display().to_string();
        let process = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| fs::read_link(format!("/proc/{name}/exe")).is_ok_and(|exe| exe.ends_with("ringfenced")));
        let process = process.unwrap_or_default();
        let before = machine.hits()?;
        for step in [
            format!("unlink {pin}"),
            format!("rename {pin} {pin}-moved"),
            "umount /sys/fs/bpf".into(),
            "detach /sys/fs/bpf".into(),
            format!("rename {state} {state}-moved"),
            format!("open {state}/x wc"),
            format!("trace {process}"),
            format!("write-memory {process}"),
        ] {
            let outcome = attempt([&step])?;
            ensure!(outcome.ends_with(": EACCES") || outcome.ends_with(": EPERM"), "{step}: {outcome}");
        }
        let after = machine.hits()?;
        // The built-in line counts what goes by `bpf()`, the generated rules what goes by paths and processes.
        let lines = ["protected", "protected/state", "protected/pins", "protected/mounts", "protected/processes"];
        let hits = lines.iter().map(|line| after.since(&before, line)).sum::<Result<u64>>()?;
        ensure!(hits >= 8, "only {hits} counted as such");
        // Its death does not help.
        machine.daemon.kill()?;
        expect("a", DENIED)?;
        machine.daemon.restart()?;
        // `ringctl off` is the way out.
        machine.daemon.ctl(["off"])?.done()?;
        expect("a", "ok")
    })
}

#[test]
fn policies_that_lock_out_are_refused() -> Result<()> {
    run(|machine| {
        for rule in [
            "{deny: {op: exec, path: /**}}",
            "{deny: {op: [read, write], path: /**}}",
            "{deny: {op: setuid, uid: 0}}",
            "{deny: {op: all}}",
        ] {
            let text = format!("ringfence: 1\nhost:\n  default: allow\n  rules:\n    - {rule}\n      name: too-much\n");
            let file = machine.daemon.write("lock-out.yaml", text)?;
            let reply = machine.daemon.ctl(["apply".as_ref(), file.as_os_str()])?;
            ensure!(reply.code != 0 && reply.stderr.contains("too-much"), "{rule}: {reply:?}");
            expect("a", DENIED)?;
            expect("b", "ok")?;
        }
        Ok(())
    })
}

#[test]
fn a_second_daemon_does_not_judge_the_same_machine() -> Result<()> {
    run(|machine| {
        // With pins elsewhere: in a bpffs of its own.
        let elsewhere = Arc::new(Host::new()?);
        let mut second = Daemon::new(&elsewhere)?;
        second.hide_log();
        second.write("policy.yaml", denies(&["b"]))?;
        let refused = second.restart().err().context("two daemons judge")?;
        ensure!(format!("{refused:#}").contains("another ringfenced"), "{refused:#}");
        expect("a", DENIED)?;
        expect("b", "ok")?;
        // Packets are another matter.
        second.write("policy.yaml", "ringfence: 1\n")?;
        second.restart()?;
        // Once the first has gone, its place is free.
        machine.daemon.ctl(["off"])?.done()?;
        second.apply(&denies(&["b"]))?;
        expect("a", "ok")?;
        expect("b", DENIED)?;
        second.ctl(["off"])?.done()?;
        machine.daemon.ctl(["on"])?.done()?;
        expect("a", DENIED)
    })
}

#[test]
fn processes_that_cannot_be_told_are_counted() -> Result<()> {
    let figure = |machine: &Machine, name: &str| -> Result<Option<u64>> {
        let status: Status = machine.daemon.json(&["status"])?;
        Ok(status.halves.host.figures.get(name).copied())
    };
    run(|machine| {
        let plain = &*machine;
        ensure!(figure(plain, "processes-unknown")?.is_none(), "nothing asks for executables");
        plain.daemon.apply(&denies(&["a"]).replace("path: /l/a", "path: /l/a, exe: /bin/other"))?;
        ensure!(figure(plain, "processes-unknown")? == Some(0), "all that run are found");
        let tainted = figure(plain, "processes-tainted")?;
        ensure!(tainted == Some(0), "{tainted:?}");
        Ok(())
    })
}
