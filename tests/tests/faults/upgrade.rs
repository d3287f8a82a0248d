//! `kill -9` at every step of an upgrade. (That an upgrade has no gap is shown on other kernels, too: `tests/upgrade.rs`.)

use anyhow::{Context, Result, ensure};

use super::{
    takeover::{former, is_taken_over, text},
    traffic::Traffic,
};

#[test]
fn an_upgrade_may_be_killed_at_every_step() -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    scene.order("trace")?;
    scene.start()?;
    let steps = scene.steps()?;
    ensure!(steps.iter().filter(|step| step.starts_with("upgrade/")).count() >= 4, "steps are missing: {steps:?}");
    is_taken_over(&scene)?;
    // How a generation is built is the same as ever.
    let new = |step: &&String| !["load/", "store/"].iter().any(|of| step.starts_with(of));
    for step in steps.iter().filter(new) {
        let upgraded = killed(step);
        upgraded.with_context(|| format!("killed at {step}"))?;
    }
    Ok(())
}

fn killed(step: &str) -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.order(&format!("kill {step}"))?;
    ensure!(scene.start().is_err(), "the daemon started");
    scene.is_gone()?;
    ensure!(traffic.accepted()? == 0, "without a daemon, another generation is in force");
    scene.start()?;
    traffic.end()?.is_whole(0)?;
    is_taken_over(&scene)
}
