//! Who asks: each property of the caller, however it came by it.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::host::{Attempt, Machine, Shared, Waiting, name_actor, put};

static MACHINE: Shared = Shared::new(policy);

/// Copies of the actor: subjects.
const PROGRAMS: [&str; 5] = ["subject", "early", "trusted", "parent", "mover"];
/// Rules about the caller: name, which is also the file below `/s` that may not be read, and condition.
const RULES: [(&str, &str); 14] = [
    ("exe", "exe: /bin/subject"),
    ("early", "exe: /bin/early"),
    ("not-exe", "exe: {not: /bin/subject}"),
    ("ancestor", "ancestor: /bin/parent"),
    ("uid", "uid: alice"),
    ("gid", "gid: 2000"),
    ("owner", "owner: true"),
    ("auid", "auid: 1000"),
    ("no-login", "auid: unset"),
    ("unit", "unit: web"),
    ("late", "unit: late"),
    ("cgroup", "cgroup: /jobs/**"),
    ("container", "container: true"),
    ("nobody", "uid: nobody"),
];
/// Where the unified hierarchy is.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Code that is in no tree of the system's.
const FOREIGN: &str = "/tmp/foreign.so";
const SYSTEM: &str = "/lib/x86_64-linux-gnu/libm.so.6";

/// Processes that run before the daemon does.
static EARLY: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

fn policy() -> Result<String> {
    for name in PROGRAMS {
        name_actor(&format!("/bin/{name}"))?;
    }
    fs::copy("/usr/bin/cat", "/bin/reader")?;
    fs::copy(SYSTEM, FOREIGN)?;
    for (name, _) in RULES.iter().chain(&[("foreign", "")]) {
        put(format!("/s/{name}"), "secret")?;
    }
    std::os::unix::fs::chown("/s/owner", Some(1000), None)?;
    let early = [&["wait", "open /s/early"][..], &["fork", "wait", "open /s/early"]];
    for steps in early {
        EARLY.lock().unwrap_or_else(PoisonError::into_inner).push(Attempt::new(steps).by("/bin/early").start()?);
    }
    let rules = RULES
        .map(|(name, subject)| format!("    - {{deny: {{op: read, path: /s/{name}, {subject}}}, name: {name}}}\n"));
    Ok(format!(
        "ringfence: 1
host:
  default: allow
  rules:
{}    - {{allow: {{op: read, path: /s/foreign, exe: [/bin/trusted, /bin/reader]}}, name: trusted}}
    - {{deny: {{op: read, path: /s/foreign}}, name: foreign}}
",
        rules.concat()
    ))
}

/// The kernel's programs are asked what they would say of an access that nobody makes.
#[test]
fn accesses_are_explained() -> Result<()> {
    MACHINE.run(|machine| {
        for (access, verdict) in [
            ("op=read path=/s/exe exe=/bin/subject uid=0", "deny"),
            ("op=read path=/s/exe exe=/bin/mover uid=0", "allow"),
            ("op=read path=/s/uid exe=/bin/subject uid=1000", "deny"),
        ] {
            machine.daemon.ctl(["explain", "--access", access, "--expect", verdict])?.done()?;
        }
        Ok(())
    })
}

/// Reads the file that a rule protects, after these steps: refused by that rule and no other, or done.
fn reads(machine: &Machine, program: &str, steps: &[&str], rule: &str, refused: bool) -> Result<()> {
    let open = if steps.contains(&"uring") { "uring-open" } else { "open" };
    let mut steps: Vec<String> = steps.iter().filter(|&&step| step != "uring").map(|&step| step.to_owned()).collect();
    steps.push(format!("{open} /s/{rule}"));
    let before = machine.hits()?;
    let outcome = Attempt::new(&steps).by(program).run()?;
    let expected = if refused { format!("{open}: EACCES") } else { "ok".to_owned() };
    ensure!(outcome == expected, "`{outcome}` instead of `{expected}`: {program} {steps:?}");
    let hits = machine.hits()?.since(&before, rule)?;
    ensure!(hits == u64::from(refused), "{rule} counted {hits}: {program} {steps:?}");
    Ok(())
}

/// As [`reads`], for ways of the actor itself.
fn check(rule: &str, refused: &[&[&str]], done: &[&[&str]]) -> Result<()> {
    MACHINE.run(|machine| {
        refused.iter().try_for_each(|steps| reads(machine, "/bin/actor", steps, rule, true))?;
        done.iter().try_for_each(|steps| reads(machine, "/bin/actor", steps, rule, false))
    })
}

fn make_cgroup(path: &str) -> Result<String> {
    let directory = format!("{CGROUPS}{path}");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {directory}"))?;
    Ok(format!("cgroup {directory}"))
}

#[test]
fn executable_at_exec_and_fork() -> Result<()> {
    MACHINE.run(|machine| {
        for steps in [&[][..], &["fork"], &["fork", "fork"], &["thread"], &["orphan"], &["drop 1000 1000"]] {
            reads(machine, "/bin/subject", steps, "exe", true)?;
            reads(machine, "/bin/actor", steps, "exe", false)?;
        }
        reads(machine, "/bin/actor", &["exec /bin/subject"], "exe", true)?;
        reads(machine, "/bin/actor", &["thread", "exec /bin/subject"], "exe", true)?;
        // Another executable leaves the rule, as documented.
        reads(machine, "/bin/subject", &["exec /bin/actor"], "exe", false)
    })
}

#[test]
fn executable_by_another_name() -> Result<()> {
    MACHINE.run(|machine| {
        std::os::unix::fs::symlink("/bin/subject", "/tmp/subject")?;
        reads(machine, "/tmp/subject", &[], "exe", true)?;
        reads(machine, "/bin/actor", &["open /bin/subject path", "exec-fd"], "exe", true)?;
        reads(machine, "/bin/actor", &["exec /proc/self/root/bin/subject"], "exe", true)?;
        reads(machine, "/bin/actor", &["unshare mount", "bind /bin /mnt/vfat", "exec /mnt/vfat/subject"], "exe", true)
    })
}

#[test]
fn not_an_executable() -> Result<()> {
    MACHINE.run(|machine| {
        reads(machine, "/bin/actor", &[], "not-exe", true)?;
        reads(machine, "/bin/subject", &[], "not-exe", false)
    })
}

#[test]
fn executable_that_ran_before_the_daemon() -> Result<()> {
    MACHINE.run(|machine| {
        let before = machine.hits()?;
        let early = std::mem::take(&mut *EARLY.lock().unwrap_or_else(PoisonError::into_inner));
        let count = early.len() as u64;
        ensure!(count == 2, "{count} processes");
        for process in early {
            let outcome = process.finish()?;
            ensure!(outcome == "open: EACCES", "{outcome}");
        }
        let hits = machine.hits()?.since(&before, "early")?;
        ensure!(hits == count, "counted {hits}");
        Ok(())
    })
}

/// An allowed executable that runs foreign code is not what the rule allows.
#[test]
fn foreign_code() -> Result<()> {
    MACHINE.run(|machine| {
        let foreign = format!("open {FOREIGN}");
        let system = format!("open {SYSTEM}");
        for way in ["map-exec", "map-exec-shared", "protect-exec"] {
            reads(machine, "/bin/trusted", &[&foreign, way], "foreign", true)?;
            reads(machine, "/bin/trusted", &[&foreign, way, "fork"], "foreign", true)?;
            reads(machine, "/bin/trusted", &[&system, way], "foreign", false)?;
        }
        reads(machine, "/bin/trusted", &[&foreign, "map-read"], "foreign", false)?;
        // A new program is itself again.
        reads(machine, "/bin/trusted", &[&foreign, "map-exec", "exec /bin/trusted"], "foreign", false)
    })
}

#[test]
fn preload() -> Result<()> {
    MACHINE.run(|_| {
        for (library, refused) in [(None, false), (Some(SYSTEM), false), (Some(FOREIGN), true)] {
            let mut command = Command::new("/bin/reader");
            command.arg("/s/foreign").envs(library.map(|library| ("LD_PRELOAD", library)));
            let output = command.output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() != refused, "{library:?}: {errors}");
            ensure!(!refused || errors.contains("Permission denied"), "{library:?}: {errors}");
        }
        Ok(())
    })
}

#[test]
fn ancestor() -> Result<()> {
    MACHINE.run(|machine| {
        for steps in [
            &["fork", "exec /bin/actor"][..],
            &["fork", "exec /bin/actor", "fork", "exec /bin/subject"],
            &["orphan", "exec /bin/actor"],
        ] {
            reads(machine, "/bin/parent", steps, "ancestor", true)?;
            reads(machine, "/bin/actor", steps, "ancestor", false)?;
        }
        Ok(())
    })
}

#[test]
fn user() -> Result<()> {
    check(
        "uid",
        &[&["drop 1000 1000"], &["become 1000"], &["setfsuid 1000"], &["setreuid 1000"], &["drop 1000 1000", "fork"]],
        &[&[], &["drop 1001 1001"], &["setreuid 1000", "setreuid 0"]],
    )
}

#[test]
fn group() -> Result<()> {
    check(
        "gid",
        &[&["drop 1000 2000"], &["drop 1000 1000 2000"], &["drop 1000 1000 5 6 7 2000 8"], &["setgid 2000"]],
        &[&[], &["drop 1000 1000"], &["drop 2000 1000"], &["drop 1000 1000 1999 2001"]],
    )
}

#[test]
fn owner() -> Result<()> {
    check("owner", &[&["drop 1000 1000"]], &[&[], &["drop 1001 1000"]])
}

#[test]
fn login() -> Result<()> {
    check("auid", &[&["login 1000"], &["login 1000", "setuid 1001"]], &[&[], &["login 1001"], &["setuid 1000"]])?;
    check("no-login", &[&[], &["setuid 1000"]], &[&["login 1000"]])
}

#[test]
fn unit() -> Result<()> {
    let inside = ["/system.slice/web.service", "/system.slice/web.service/worker", "/a.slice/a-b.slice/web.service"];
    let outside = [
        "/system.slice/other.service",
        "/system.slice/web.service-not",
        "/web.service.d",
        // A user's own manager may name its units as it likes.
        "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
    ];
    MACHINE.run(|machine| {
        for (paths, refused) in [(&inside[..], true), (&outside[..], false)] {
            for path in paths {
                reads(machine, "/bin/actor", &[&make_cgroup(path)?], "unit", refused)?;
            }
        }
        reads(machine, "/bin/actor", &[], "unit", false)
    })
}

#[test]
fn unit_started_while_the_daemon_is_dead() -> Result<()> {
    MACHINE.run(|machine| {
        machine.daemon.kill()?;
        let late = make_cgroup("/system.slice/late.service")?;
        let outcomes = [Attempt::new([&late, "open /s/late"]).run(), Attempt::new(["open /s/late"]).run()];
        machine.daemon.restart()?;
        let [inside, outside] = outcomes;
        let (inside, outside) = (inside?, outside?);
        ensure!(inside == "open: EACCES" && outside == "ok", "inside {inside}, outside {outside}");
        Ok(())
    })
}

#[test]
fn cgroup() -> Result<()> {
    MACHINE.run(|machine| {
        for (path, refused) in [("/jobs", true), ("/jobs/one/two", true), ("/job", false), ("/other/jobs/one", false)] {
            reads(machine, "/bin/actor", &[&make_cgroup(path)?], "cgroup", refused)?;
        }
        Ok(())
    })
}

#[test]
fn container() -> Result<()> {
    check(
        "container",
        &[&["unshare pid", "fork"], &["unshare pid mount", "fork", "fork"]],
        &[&[], &["fork"], &["unshare mount"], &["unshare network"]],
    )
}

/// What the kernel's worker threads do is done by whoever asked for it.
#[test]
fn workers() -> Result<()> {
    MACHINE.run(|machine| {
        reads(machine, "/bin/subject", &["uring"], "exe", true)?;
        reads(machine, "/bin/actor", &["uring"], "exe", false)?;
        reads(machine, "/bin/actor", &["drop 1000 1000", "uring"], "uid", true)?;
        reads(machine, "/bin/actor", &["drop 1001 1001", "uring"], "uid", false)?;
        reads(machine, "/bin/actor", &[&make_cgroup("/system.slice/web.service")?, "uring"], "unit", true)?;
        reads(machine, "/bin/actor", &["unshare pid", "fork", "uring"], "container", true)
    })
}

#[test]
fn names_come_from_the_files() -> Result<()> {
    ensure!(Path::new("/etc/passwd").exists(), "no accounts");
    check("nobody", &[&["drop 65534 65534"]], &[&["drop 1000 1000"]])
}
