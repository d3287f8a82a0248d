//! What a path is, whatever is done to names and mounts.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use ringfence_tests::host::{Attempt, Machine, Shared, Waiting, attempt, make_directory, name_actor, put};

static MACHINE: Shared = Shared::new(policy);

/// `/bin/mover` may do everything: it changes names that others may not touch.
const POLICY: &str = "ringfence: 1
host:
  default: allow
  rules:
    - {allow: {op: all, exe: /bin/mover, path: [/h/**, /c/**]}, name: mover}
    - {deny: {op: write, path: /h/name}, name: name}
    - {deny: {op: read, path: [/h/later, /h/tree/**]}, name: read}
    - {deny: {op: read, path: \"**/key\"}, name: key}
    - {deny: {op: read, path: /h/disk/secret}, name: disk}
    - {deny: {op: read, path: /h/dead/secret}, name: dead}
    - {deny: {op: read, path: /proc/version}, name: version}
    - {deny: {op: read, path: /h/link/secret}, name: link}
    - {deny: {op: read, path: /c/in/**}, name: in}
    - {deny: {op: read, path: /c/x/here/**}, name: here}
    - {deny: {op: read, path: /c/y/there/**}, name: there}
    - {deny: {op: read, path: \"/c/*.d/*/x?[a-c]{1,22}\"}, name: glob}
    - {deny: {op: read, path: /mnt/vfat/secret}, name: folded}
    - {deny: {op: umount, path: /kept/**}, name: kept}
";

fn policy() -> Result<String> {
    name_actor("/bin/mover")?;
    for file in ["h/tree/file", "h/real/secret", "h/other/file", "c/in/r/file", "c/out/r/file", "c/a.d/b/xya1"] {
        put(format!("/{file}"), "x")?;
    }
    for directory in ["x/here", "y/there", "storm/a", "storm/b"] {
        put(format!("/c/{directory}/file"), "x")?;
    }
    for name in ["x.ac22", "xabc22", "xyd1", "xya2"] {
        put(format!("/c/a.d/b/{name}"), "x")?;
    }
    for directory in ["/h/empty", "/h/disk", "/h/dead", "/h/second", "/c/in", "/guest"] {
        make_directory(directory)?;
    }
    std::os::unix::fs::symlink("real", "/h/link")?;
    fs::write("/mnt/vfat/secret", "x")?;
    Ok(POLICY.to_owned())
}

/// Does the steps: refused at this step by this rule, or done where no rule is named.
fn expect(machine: &Machine, steps: &[&str], rule: Option<&str>) -> Result<()> {
    expect_by(machine, "/bin/actor", steps, rule)
}

fn expect_by(machine: &Machine, program: &str, steps: &[&str], rule: Option<&str>) -> Result<()> {
    let before = machine.hits()?;
    let outcome = Attempt::new(steps).by(program).run()?;
    match rule {
        None => ensure!(outcome == "ok", "`{outcome}` instead of `ok`: {steps:?}"),
        Some(rule) => {
            ensure!(outcome.ends_with(": EACCES"), "`{outcome}` instead of EACCES: {steps:?}");
            let word = outcome.split(':').next().unwrap_or_default();
            let last = steps.last().context("no steps")?;
            ensure!(last.starts_with(word), "refused at `{word}`, not at the end: {steps:?}");
            ensure!(machine.hits()?.since(&before, rule)? > 0, "refused by another rule than {rule}: {steps:?}");
        }
    }
    Ok(())
}

/// Does what only `/bin/mover` may do.
fn by_mover(step: &str) -> Result<()> {
    let outcome = Attempt::new([step]).by("/bin/mover").run()?;
    ensure!(outcome == "ok", "`{outcome}` instead of `ok`: {step}");
    Ok(())
}

/// A file system in memory, mounted where everybody sees it, with files in it.
struct Disk(&'static str);

impl Disk {
    /// By the only program that may mount over what is protected.
    fn new(place: &'static str) -> Result<Self> {
        by_mover(&format!("mount tmpfs {place}"))?;
        for name in ["secret", "file"] {
            put(format!("{place}/{name}"), "x")?;
        }
        Ok(Self(place))
    }

    fn device(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(self.0)?.dev())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = by_mover(&format!("umount {}", self.0)) {
            eprintln!("cannot unmount {}: {error:#}", self.0);
        }
    }
}

#[test]
fn creation_at_a_protected_name() -> Result<()> {
    MACHINE.run(|machine| {
        for step in [
            "open /h/name wc",
            "mkdir /h/name",
            "mkfifo /h/name",
            "symlink /h/other/file /h/name",
            "link /h/other/file /h/name",
            "rename /h/other /h/name",
            "bind-socket stream unix:/h/name",
        ] {
            expect(machine, &[step], Some("name"))?;
        }
        Ok(())
    })
}

/// The name is protected, not the file that had it when the policy came.
#[test]
fn names_that_come_later() -> Result<()> {
    MACHINE.run(|machine| {
        expect(machine, &["open /h/later wc"], None)?;
        expect(machine, &["open /h/later"], Some("read"))?;
        expect_by(machine, "/bin/mover", &["unlink /h/later"], None)?;
        expect(machine, &["mkdir /h/later"], None)?;
        expect(machine, &["list /h/later"], Some("read"))
    })
}

#[test]
fn symbolic_links_in_patterns() -> Result<()> {
    MACHINE.run(|machine| {
        expect(machine, &["open /h/link/secret"], Some("link"))?;
        expect(machine, &["open /h/real/secret"], Some("link"))
    })
}

#[test]
fn wildcards() -> Result<()> {
    MACHINE.run(|machine| {
        for name in ["xya1", "x.ac22", "xabc22"] {
            let matches = name == "xya1";
            expect(machine, &[&format!("open /c/a.d/b/{name}")], matches.then_some("glob"))?;
        }
        expect(machine, &["open /c/a.d/b/xyd1"], None)?;
        expect(machine, &["open /c/a.d/b/xya2"], None)
    })
}

#[test]
fn any_file_system() -> Result<()> {
    MACHINE.run(|machine| {
        // One that the host knows nothing of.
        let mounted = ["unshare mount", "mount tmpfs /h/empty"];
        expect(machine, &[&mounted[..], &["open /h/empty/key wc", "open /h/empty/key"]].concat(), Some("key"))?;
        expect(
            machine,
            &[&mounted[..], &["mkdir /h/empty/d", "mkdir /h/empty/d/key", "list /h/empty/d/key"]].concat(),
            Some("key"),
        )?;
        expect(machine, &[&mounted[..], &["open /h/empty/file wc", "open /h/empty/file"]].concat(), None)
    })
}

#[test]
fn mounts_that_come_and_go() -> Result<()> {
    MACHINE.run(|machine| {
        for _ in 0..3 {
            let first = Disk::new("/h/disk")?;
            expect(machine, &["open /h/disk/secret"], Some("disk"))?;
            expect(machine, &["open /h/disk/file"], None)?;
            let device = first.device()?;
            drop(first);
            // The kernel uses the device number again, for something else.
            let second = Disk::new("/h/second")?;
            ensure!(second.device()? == device, "the device number was not used again");
            expect(machine, &["open /h/second/secret"], None)?;
        }
        Ok(())
    })
}

/// Device numbers pass from file systems that come and go to others that stay, while the daemon reads the mount table
/// for the one and the other: what is known of a mount is never what was true of the last one with its number.
#[test]
fn device_numbers_that_pass_on() -> Result<()> {
    const ROUNDS: u64 = 200;
    MACHINE.run(|machine| {
        let passing = Attempt::new(["keep-on come-and-go tmpfs /guest"]).start()?;
        let before = machine.hits()?;
        for round in 0..ROUNDS {
            let place = format!("/kept/{round}");
            make_directory(&place)?;
            let outcome = attempt([format!("mount tmpfs {place}"), format!("umount {place}")])?;
            ensure!(outcome == "umount: EACCES", "`{outcome}` in round {round}");
        }
        let (hits, passed) = (machine.hits()?.since(&before, "kept")?, changes(passing)?);
        ensure!(hits == ROUNDS, "{hits} counted of {ROUNDS}");
        ensure!(passed > ROUNDS, "only {passed} came and went");
        Ok(())
    })
}

#[test]
fn mounts_moved_and_bound() -> Result<()> {
    MACHINE.run(|machine| {
        let _disk = Disk::new("/h/second")?;
        expect(machine, &["open /h/second/secret"], None)?;
        by_mover("bind /h/second /h/disk")?;
        // It has two names on the host now, of which one is protected; what counts is the first.
        let through_both = [attempt(["open /h/disk/secret"])?, attempt(["open /h/second/secret"])?];
        by_mover("umount /h/disk")?;
        ensure!(through_both[0] == through_both[1], "one file, two answers: {through_both:?}");
        Ok(())
    })
}

#[test]
fn mounts_while_the_daemon_is_dead() -> Result<()> {
    MACHINE.run(|machine| {
        machine.daemon.kill()?;
        let disk = Disk::new("/h/dead");
        let outcomes = [attempt(["open /h/dead/secret"]), attempt(["open /h/dead/file"])];
        machine.daemon.restart()?;
        let _disk = disk?;
        let [secret, file] = outcomes;
        let (secret, file) = (secret?, file?);
        ensure!(secret == "open: EACCES", "the file on the new mount was {secret}");
        ensure!(file == "ok", "the other file was {file}");
        expect(machine, &["open /h/dead/secret"], Some("dead"))?;
        expect(machine, &["open /h/dead/file"], None)
    })
}

#[test]
fn second_proc() -> Result<()> {
    MACHINE.run(|machine| {
        expect(machine, &["open /proc/version"], Some("version"))?;
        let mounted = ["unshare mount", "mount proc /h/empty"];
        expect(machine, &[&mounted[..], &["open /h/empty/version"]].concat(), Some("version"))?;
        expect(machine, &[&mounted[..], &["open /h/empty/uptime"]].concat(), None)
    })
}

/// vfat compares names in its own way and gives them as they were typed: however the name is written, it is refused, if
/// not by the rule itself, then by the first that refuses what cannot be told.
#[test]
fn folded_names() -> Result<()> {
    MACHINE.run(|machine| {
        for name in ["secret", "SECRET", "Secret", "sECRET"] {
            let before = machine.hits()?;
            let outcome = attempt([format!("open /mnt/vfat/{name}")])?;
            ensure!(outcome == "open: EACCES", "{name}: {outcome}");
            let after = machine.hits()?;
            let (by_name, unknown) = (after.since(&before, "folded")?, after.since(&before, "unknown/folded")?);
            ensure!(by_name + unknown > 0, "{name} was refused for another reason");
        }
        Ok(())
    })
}

/// A directory is remembered where it was; moved, it must not be.
#[test]
fn cached_directories_that_move() -> Result<()> {
    MACHINE.run(|machine| {
        for round in 0..5 {
            let (outside, inside) = (format!("/c/out/{round}"), format!("/c/in/{round}"));
            put(format!("{outside}/d/e/file"), "x")?;
            let (open_out, open_in) = (format!("open {outside}/d/e/file"), format!("open {inside}/d/e/file"));
            expect(machine, &[&open_out, &open_out], None)?;
            expect(machine, &[&format!("rename {outside} {inside}"), &open_in], Some("in"))?;
            expect(machine, &[&open_in], Some("in"))?;
            expect_by(machine, "/bin/mover", &[&format!("rename {inside} {outside}")], None)?;
            expect(machine, &[&open_out], None)?;
            // And from a directory that was entered before it moved.
            let steps = [&format!("chdir {outside}/d"), &format!("rename {outside} {inside}"), "open e/file"];
            expect(machine, &steps, Some("in"))?;
        }
        Ok(())
    })
}

/// Ends what keeps on; how often it was done.
fn changes(changing: Waiting) -> Result<u64> {
    let outcome = changing.finish()?;
    outcome.trim_start_matches("ok: ").parse().with_context(|| outcome.clone())
}

/// Does `round` again until names have changed beside it often enough for the two to have met; how often they did depends
/// on how busy the machine is. `round` gives how often they changed.
fn until_it_met(mut round: impl FnMut() -> Result<u64>) -> Result<()> {
    const CHANGES: u64 = 500;
    const ROUNDS: usize = 20;
    let mut changed = 0;
    for _ in 0..ROUNDS {
        changed += round()?;
        if changed > CHANGES {
            return Ok(());
        }
    }
    bail!("the names changed only {changed} times in {ROUNDS} rounds")
}

/// A directory changes places all the time, by somebody who may, while somebody in it opens a file: at each of its places
/// the file is protected, by another pattern. What the walk sees of both at once must not let it through; a walk that is
/// torn three times is refused by the first rule that might mean the file.
#[test]
fn rename_against_open() -> Result<()> {
    let rules = ["here", "there", "unknown/torn"];
    MACHINE.run(|machine| {
        until_it_met(|| {
            let changing = Attempt::new(["keep-on exchange /c/x/here /c/y/there"]).by("/bin/mover").start()?;
            let before = machine.hits()?;
            let outcome = attempt(["chdir /c/x/here", "repeat 1500 open file"])?;
            let (after, changed) = (machine.hits()?, changes(changing)?);
            let hits = rules.iter().map(|rule| after.since(&before, rule)).sum::<Result<u64>>()?;
            ensure!(outcome == "ok: 0" && hits >= 1500, "{outcome} of 1500 got through, {hits} counted");
            Ok(changed)
        })
    })
}

/// Whoever changes names of his own all the time keeps nobody else from opening: each walk is torn only by a change on
/// its own way.
#[test]
fn renames_elsewhere() -> Result<()> {
    MACHINE.run(|machine| {
        until_it_met(|| {
            let changing = Attempt::new(["drop 1000 1000", "keep-on exchange /c/storm/a /c/storm/b"]).start()?;
            let before = machine.hits()?;
            let free = attempt(["repeat 1500 open /c/out/r/file"])?;
            let protected = attempt(["repeat 500 open /c/in/r/file"])?;
            let (hits, changed) = (machine.hits()?.since(&before, "in")?, changes(changing)?);
            ensure!(free == "ok: 1500", "{free} of 1500 were let through");
            ensure!(protected == "ok: 0" && hits == 500, "{protected} of 500 got through, {hits} counted");
            Ok(changed)
        })
    })
}

#[test]
fn directories_above() -> Result<()> {
    MACHINE.run(|machine| {
        expect(machine, &["rename /h/tree /h/empty/tree"], Some("read"))?;
        // Of all that lies below, what the first rule protects.
        expect(machine, &["rename /h /h2"], Some("name"))?;
        expect(machine, &["unshare mount", "mount tmpfs /h"], Some("name"))?;
        expect(machine, &["unshare mount", "bind /h/empty /h/tree"], Some("read"))?;
        expect(machine, &["rename /h/other /h/elsewhere", "rename /h/elsewhere /h/other"], None)
    })
}
