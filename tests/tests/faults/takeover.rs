//! A daemon of another version: one that keeps its pins below another number. Nothing of them is read but what the kernel
//! says of any link.

use anyhow::{Result, ensure};
use ringfence_tests::{daemon::Daemon, netns::Site};

use super::scene::{Scene, pins, policy};

/// A policy that XDP can judge, and one that reads what only TC shows.
const POLICIES: [&str; 2] = ["", "      - drop: {mark: 77}\n        name: marked\n"];

pub fn text(hook: usize, accepted: usize) -> String {
    policy(accepted, "eth0", POLICIES[hook], "upgrade")
}

/// The other version with this policy in force.
pub fn former(text: &str) -> Result<Scene> {
    let site = Site::new()?;
    let daemon = Daemon::new(&site.server)?;
    let mut scene = Scene { site, daemon };
    let mut command = scene.command();
    scene.daemon.run(command.env("RINGFENCE_ABI", "0"))?;
    scene.apply(text, &[])?.done()?;
    ensure!(scene.pins()?.iter().all(|pin| pin.contains("/v0/")), "{:?}", scene.pins()?);
    Ok(scene)
}

pub fn is_taken_over(scene: &Scene) -> Result<()> {
    let status = scene.status()?;
    ensure!(status.exit_code() == 0 && status.lost.values().all(|&lost| lost == 0), "{status:?}");
    ensure!(scene.pins()?.iter().all(|pin| pin.starts_with(&*pins().to_string_lossy())), "{:?}", scene.pins()?);
    ensure!(!scene.site.server.run(|| std::path::Path::new("/sys/fs/bpf/ringfence/v0").exists())?, "v0 is there");
    Ok(())
}
