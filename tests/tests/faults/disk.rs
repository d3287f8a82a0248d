//! A full disk, a state directory that cannot be written, a BPF filesystem that is gone.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ringfence_api::Status;

use super::{
    scene::{Scene, pins, policy},
    traffic::Traffic,
};

/// Bytes of the file system that the state directory is on.
const SIZE: &str = "size=4m,mode=0700";

/// A daemon whose state directory is a small file system, with generation 1 of two in force: 2 is, 1 came before.
fn small() -> Result<Scene> {
    let mut scene = Scene::new()?;
    scene.daemon.stop()?;
    let state = scene.daemon.path("state");
    scene.site.server.run(|| {
        mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).context("cannot mount a tmpfs")
    })??;
    scene.start()?;
    for accepted in [1, 0] {
        scene.apply(&policy(accepted, "eth0", "", "small"), &[])?.done()?;
    }
    Ok(scene)
}

fn filler(scene: &Scene) -> PathBuf {
    scene.daemon.path("state/filler")
}

/// Leaves not a byte.
fn fill(scene: &Scene) -> Result<()> {
    let path = filler(scene);
    scene.site.server.run(|| -> Result<()> {
        let mut file = File::create(&path)?;
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        Ok(())
    })?
}

fn empty(scene: &Scene) -> Result<()> {
    let path = filler(scene);
    scene.site.server.run(|| fs::remove_file(&path))?.context("cannot remove the filler")
}

fn writable(scene: &Scene, writable: bool) -> Result<()> {
    let state = scene.daemon.path("state");
    let flags = if writable { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    scene.site.server.run(|| {
        let none = None::<&str>;
        mount(none, &state, none, MsFlags::MS_REMOUNT | flags, none).context("cannot remount the state directory")
    })?
}

/// While nothing can be written: what would have to be kept is refused, by a message that names the place, and what is in
/// force stays so, over a restart and a rollback, too.
fn nothing_can_be_written(scene: &mut Scene, why: &str, again: fn(&Scene) -> Result<()>) -> Result<()> {
    let traffic = Traffic::start(&scene.site)?;
    let named = |reply: ringfence_tests::daemon::Reply| {
        ensure!(reply.code != 0 && reply.stderr.contains("/state") && reply.stderr.contains(why), "{reply:?}");
        Ok(())
    };
    named(scene.apply(&policy(1, "eth0", "", "refused"), &[])?)?;
    ensure!(scene.loaded()? == [2], "{:?}", scene.loaded()?);
    // An entry that nobody would find again is not made: the client goes on.
    // (A file that is open may end within a block that it has already.)
    let within = |n: u8| Ok::<_, anyhow::Error>(scene.daemon.ctl(["deny", &format!("10.0.0.{n}")])?.code == 0);
    let mut room = 0;
    while within(room)? {
        room += 1;
        ensure!(room < 250, "the disk is not full");
    }
    named(scene.daemon.ctl(["deny", "192.0.2.2"])?)?;
    ensure!(traffic.accepted()? == 0, "the refused entry, or policy, is in force");
    // A new daemon, as after a crash.
    scene.daemon.kill()?;
    scene.start()?;
    ensure!(traffic.accepted()? == 0, "the new daemon has changed what is in force");
    // Nothing has to be written to go back to what is kept.
    scene.daemon.ctl(["rollback"])?.done()?;
    ensure!(traffic.accepted()? == 1, "no rollback");
    ensure!(!scene.status()?.problems.is_empty(), "nobody is told: {:?}", scene.status()?);
    again(scene)?;
    scene.apply(&policy(0, "eth0", "", "accepted"), &[])?.done()?;
    ensure!(traffic.accepted()? == 0, "not in force");
    traffic.end()?.is_whole(2)?;
    scene.eventually("all is well again", || Ok(scene.status()?.exit_code() == 0))?;
    scene.daemon.kill()?;
    scene.start()?;
    scene.is_tidy(3, Some(1))
}

#[test]
fn a_full_disk_takes_no_policy_away() -> Result<()> {
    let mut scene = small()?;
    fill(&scene)?;
    nothing_can_be_written(&mut scene, "No space left", empty)
}

#[test]
fn a_state_directory_that_cannot_be_written_takes_no_policy_away() -> Result<()> {
    let mut scene = small()?;
    // What is open for writing must be closed before.
    scene.daemon.kill()?;
    writable(&scene, false)?;
    scene.start()?;
    nothing_can_be_written(&mut scene, "Read-only file system", |scene| writable(scene, true))
}

#[test]
fn a_reboot_with_a_full_disk_brings_the_policy_back() -> Result<()> {
    let mut scene = small()?;
    fill(&scene)?;
    scene.daemon.kill()?;
    scene.reboot(1)?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "another policy is in force");
    traffic.end()?.is_whole(0)?;
    ensure!(scene.status()?.generation == Some(2), "{:?}", scene.status()?);
    Ok(())
}

#[test]
fn a_disk_that_fills_up_behind_the_flip_is_told_and_written_later() -> Result<()> {
    let mut scene = small()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.order("stop apply/flipped")?;
    std::thread::scope(|scope| -> Result<()> {
        let apply = scope.spawn(|| scene.apply(&policy(1, "eth0", "", "late"), &[]));
        scene.has_stopped("apply/flipped")?;
        fill(&scene)?;
        scene.go_on()?;
        apply.join().expect("the apply panicked")?.done().map(drop)
    })?;
    ensure!(traffic.accepted()? == 1, "not in force");
    let status: Status = scene.status()?;
    ensure!(status.generation == Some(3) && status.exit_code() == 1, "{status:?}");
    // It goes back to what was replaced, though the disk does not say yet what that was.
    scene.daemon.ctl(["rollback"])?.done()?;
    ensure!(traffic.accepted()? == 0, "no rollback");
    empty(&scene)?;
    scene.apply(&policy(1, "eth0", "", "later"), &[])?.done()?;
    scene.eventually("all is well again", || Ok(scene.status()?.exit_code() == 0))?;
    traffic.end()?.is_whole(3)?;
    scene.daemon.kill()?;
    scene.start()?;
    scene.is_tidy(4, Some(2))
}

#[test]
fn a_bpf_filesystem_that_is_unmounted_is_missed_and_another_is_used() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "before"), &[])?.done()?;
    let pins = scene.pins()?;
    let traffic = Traffic::start(&scene.site)?;
    let place = Path::new("/sys/fs/bpf");
    scene.site.server.run(|| umount2(place, MntFlags::MNT_DETACH))?.context("cannot unmount")?;
    scene.eventually("the daemon says so", || {
        Ok(scene.status()?.problems.iter().any(|problem| problem.contains("was unmounted")))
    })?;
    ensure!(traffic.accepted()? == 0, "nothing is in force");
    let reply = scene.apply(&policy(1, "eth0", "", "refused"), &[])?;
    ensure!(reply.code != 0 && reply.stderr.contains("was unmounted"), "{reply:?}");
    scene.site.server.run(|| mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), None::<&str>))??;
    scene.eventually("all is pinned again", || Ok(scene.status()?.exit_code() == 0))?;
    ensure!(scene.pins()? == pins, "{:?}", scene.pins()?);
    // By these pins everything outlives the daemon, and the next one finds it.
    scene.daemon.kill()?;
    traffic.flow()?;
    scene.start()?;
    scene.is_tidy(1, None)?;
    scene.apply(&policy(1, "eth0", "", "after"), &[])?.done()?;
    ensure!(traffic.accepted()? == 1, "not in force");
    traffic.end()?.is_whole(1)
}

#[test]
fn pins_that_are_removed_are_missed_and_the_next_daemon_makes_them_again() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "kept"), &[])?.done()?;
    // Links first, as `ringctl off` does it; nothing is attached to this machine's security hooks.
    for part in ["links", ""] {
        let place = &pins().join(part);
        scene.site.server.run(|| fs::remove_dir_all(place))?.context("cannot remove the pins")?;
    }
    let reply = scene.apply(&policy(1, "eth0", "", "refused"), &[])?;
    ensure!(reply.code != 0 && reply.stderr.contains("were removed"), "{reply:?}");
    scene.daemon.kill()?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "the kept generation is not in force");
    traffic.end()?.is_whole(0)?;
    scene.is_tidy(1, None)
}

#[test]
fn without_a_bpf_filesystem_the_next_daemon_begins_from_what_is_kept() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "kept"), &[])?.done()?;
    let place = Path::new("/sys/fs/bpf");
    scene.site.server.run(|| umount2(place, MntFlags::MNT_DETACH))?.context("cannot unmount")?;
    scene.daemon.kill()?;
    // With the last descriptor the file system is gone, and with it every link.
    scene.eventually("nothing is attached", || Ok(scene.site.server.xdp_program("eth0")?.is_none()))?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "the kept generation is not in force");
    traffic.end()?.is_whole(0)?;
    scene.is_tidy(1, None)
}
