//! What nobody confirms goes by itself, also when the machine restarts, and what must survive that.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringfence_api::{Generation, GenerationState};

use super::{
    scene::{Scene, policy},
    traffic::Traffic,
};

fn text(accepted: usize) -> String {
    policy(accepted, "eth0", "", "tried")
}

/// Generation 1 is confirmed, 2 waits to be.
fn pending(seconds: &str) -> Result<Scene> {
    let scene = Scene::new()?;
    scene.apply(&text(0), &[])?.done()?;
    scene.apply(&text(1), &["--confirm", seconds])?.done()?;
    Ok(scene)
}

fn unconfirmed(scene: &Scene) -> Result<()> {
    let history: Vec<Generation> = scene.daemon.json(&["history"])?;
    let second = history.iter().find(|one| one.generation == 2).context("it is not in the history")?;
    ensure!(second.state == GenerationState::Unconfirmed, "{history:?}");
    Ok(())
}

#[test]
fn the_programs_go_back_under_traffic_with_the_daemon_dead() -> Result<()> {
    let mut scene = pending("10s")?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 1, "the candidate is not in force");
    scene.daemon.kill()?;
    scene.eventually("the old policy is back", || Ok(traffic.accepted()? == 0))?;
    scene.start()?;
    ensure!(traffic.accepted()? == 0, "the new daemon put the candidate in force");
    traffic.end()?.is_whole(1)?;
    unconfirmed(&scene)?;
    scene.is_tidy(1, None)
}

#[test]
fn a_daemon_whose_clocks_are_shifted_means_what_the_programs_mean() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.daemon.kill()?;
    let inner = scene.command();
    let mut command = Command::new("unshare");
    command.args(["--time", "--boottime", "1000000", "--monotonic", "500000"]);
    command.arg(inner.get_program()).args(inner.get_args()).env("RINGFENCE_FAULTS", scene.daemon.path("faults"));
    scene.daemon.run(&mut command)?;
    scene.apply(&text(0), &[])?.done()?;
    let traffic = Traffic::start(&scene.site)?;
    // A deadline that the programs would wait a million seconds for, or a daemon that thinks it has passed.
    scene.apply(&text(1), &["--confirm", "10s"])?.done()?;
    ensure!(scene.status()?.pending.is_some(), "{:?}", scene.status()?);
    scene.daemon.kill()?;
    scene.eventually("the old policy is back", || Ok(traffic.accepted()? == 0))?;
    traffic.end()?.is_whole(2)?;
    scene.start()?;
    scene.is_tidy(1, None)
}

#[test]
fn a_restart_of_the_machine_is_no_confirmation() -> Result<()> {
    let mut scene = pending("1h")?;
    scene.daemon.kill()?;
    scene.reboot(1)?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "the candidate is in force");
    traffic.end()?.is_whole(0)?;
    unconfirmed(&scene)?;
    scene.is_tidy(1, None)?;
    ensure!(scene.daemon.ctl(["confirm"])?.code != 0, "there is something to confirm");
    Ok(())
}

#[test]
fn nor_is_one_when_the_configured_file_is_the_candidate() -> Result<()> {
    let mut scene = pending("1h")?;
    scene.daemon.kill()?;
    scene.reboot(1)?;
    let file = scene.daemon.write("policy.yaml", text(1))?;
    let configured = |scene: &Scene| {
        let mut command = scene.command();
        command.arg("--policy").arg(&file);
        command
    };
    let mut command = configured(&scene);
    scene.daemon.run(&mut command)?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "the candidate is in force");
    let problems = scene.status()?.problems;
    ensure!(problems.iter().any(|problem| problem.contains("never confirmed")), "{problems:?}");
    // Who applies it again means it, and then it comes back by itself.
    scene.daemon.ctl(["apply".as_ref(), file.as_os_str()])?.done()?;
    ensure!(traffic.accepted()? == 1, "not in force");
    traffic.end()?.is_whole(1)?;
    scene.daemon.kill()?;
    scene.reboot(2)?;
    let mut command = configured(&scene);
    scene.daemon.run(&mut command)?;
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 1, "the confirmed policy did not come back");
    traffic.end()?.is_whole(0)
}

#[test]
fn a_confirmation_and_a_rollback_may_be_killed_at_every_step() -> Result<()> {
    // What is in force after the kill, and whether it still waits for a confirmation.
    let confirming = [("confirm/written", true), ("confirm/flipped", false), ("retire/drained", false)];
    for (step, waits) in confirming.into_iter().chain([("retire/unloaded", false)]) {
        let mut scene = pending("1h")?;
        let traffic = Traffic::start(&scene.site)?;
        killed(&mut scene, &["confirm"], step)?;
        ensure!(traffic.accepted()? == 1, "killed at {step}: the candidate is not in force");
        ensure!(scene.status()?.pending.is_some() == waits, "killed at {step}: {:?}", scene.status()?);
        if waits {
            scene.daemon.ctl(["confirm"])?.done()?;
        }
        scene.is_tidy(2, Some(1)).with_context(|| step.to_owned())?;
        traffic.end()?.is_whole(0)?;
    }
    for step in ["back/flipped", "back/standing-written", "retire/drained", "retire/unloaded"] {
        let mut scene = pending("1h")?;
        let traffic = Traffic::start(&scene.site)?;
        ensure!(traffic.accepted()? == 1, "the candidate is not in force");
        killed(&mut scene, &["rollback"], step)?;
        ensure!(traffic.accepted()? == 0, "killed at {step}: the candidate is in force");
        scene.is_tidy(1, None).with_context(|| step.to_owned())?;
        traffic.end()?.is_whole(1)?;
    }
    Ok(())
}

fn killed(scene: &mut Scene, command: &[&str], step: &str) -> Result<()> {
    scene.order(&format!("kill {step}"))?;
    ensure!(scene.daemon.ctl(command)?.code != 0, "{command:?} succeeded");
    scene.is_dead(step)?;
    scene.start()
}
