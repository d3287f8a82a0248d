//! A daemon of another version takes over without a gap.
#![cfg(debug_assertions)]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/takeover.rs"]
mod takeover;
#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "faults/traffic.rs"]
mod traffic;

use anyhow::{Result, ensure};
use ringfence_tests::daemon::Daemon;

use scene::below;
use takeover::{former, is_taken_over, text};
use traffic::Traffic;

#[test]
fn the_generation_in_force_goes_on_without_a_gap() -> Result<()> {
    for hook in 0..2 {
        let mut scene = former(&text(hook, 0))?;
        let traffic = Traffic::start(&scene.site)?;
        // As a package does it, and as a crash would.
        if hook == 0 {
            ensure!(scene.daemon.stop()?.success(), "the daemon did not end in order");
        } else {
            scene.daemon.kill()?;
        }
        traffic.flow()?;
        scene.start()?;
        ensure!(traffic.accepted()? == 0, "another generation is in force");
        traffic.end()?.is_whole(0)?;
        is_taken_over(&scene)?;
        ensure!(scene.status()?.generation == Some(1), "{:?}", scene.status()?);
        // And it can be gone on with.
        scene.apply(&text(hook, 1), &[])?.done()?;
        scene.daemon.ctl(["rollback"])?.done()?;
    }
    Ok(())
}

#[test]
fn a_policy_that_is_judged_elsewhere_takes_over_without_a_gap() -> Result<()> {
    for (old, new) in [(0, 1), (1, 0)] {
        let mut scene = former(&text(old, 0))?;
        let traffic = Traffic::start(&scene.site)?;
        scene.daemon.kill()?;
        scene.daemon.write("policy.yaml", text(new, 1))?;
        let mut command = scene.command();
        command.arg("--policy").arg(scene.daemon.path("policy.yaml"));
        scene.daemon.run(&mut command)?;
        ensure!(traffic.accepted()? == 1, "the new policy is not in force");
        // While both judge, a packet must please both: of a round then neither of the two arrives. None is let through
        // that one of them refuses, and that is not counted as a flip here.
        let seen = traffic.end()?;
        seen.is_closed()?;
        is_taken_over(&scene)?;
    }
    Ok(())
}

#[test]
fn a_living_daemon_of_another_version_is_left_alone() -> Result<()> {
    let scene = former(&text(0, 0))?;
    let traffic = Traffic::start(&scene.site)?;
    let second = Daemon::new(&scene.site.server)?;
    let reply = second.reply(&mut second.command())?.exits(3)?;
    ensure!(reply.stderr.contains("another ringfenced"), "{reply:?}");
    ensure!(traffic.accepted()? == 0, "its policy is not in force any more");
    traffic.end()?.is_whole(0)
}

#[test]
fn off_removes_what_another_version_left() -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    // Nothing to put in force: what the other version left goes on, and the status says so.
    std::fs::rename(scene.daemon.path("state"), scene.daemon.path("away"))?;
    scene.start()?;
    ensure!(scene.status()?.problems.iter().any(|problem| problem.contains("v0")), "{:?}", scene.status()?);
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "what the other version left is gone");
    traffic.end()?.is_whole(0)?;
    scene.daemon.ctl(["off"])?.done()?;
    let left = scene.site.server.run(|| below("/sys/fs/bpf/ringfence".as_ref()))??;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(scene.site.server.xdp_program("eth0")?.is_none(), "a program stayed at XDP");
    Ok(())
}
