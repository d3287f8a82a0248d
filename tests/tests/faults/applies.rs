//! Applies that are disturbed, that come at once, and very many of them.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringfence_api::{Diff, Generation};
use ringfence_tests::netns::Host;
use ringfenced::kernel::census;

use super::{
    scene::{PATIENCE, Scene, below, pins, policy},
    traffic::Traffic,
};

/// Covers an interface that may go.
const WIDE: &str = "eth0, \"wan*\"";

#[test]
fn an_interface_may_go_in_the_middle_of_an_apply() -> Result<()> {
    for step in ["apply/sets-known", "apply/interfaces-known", "attach/linked", "apply/before-flip", "apply/flipped"] {
        let scene = Scene::new()?;
        scene.apply(&policy(0, "eth0", "", "before"), &[])?.done()?;
        let peer = Host::new()?;
        scene.site.server.veth("wan0", &peer, "eth0")?;
        scene.site.server.up("wan0")?;
        let traffic = Traffic::start(&scene.site)?;
        scene.order(&format!("stop {step}"))?;
        thread::scope(|scope| -> Result<()> {
            let apply = scope.spawn(|| scene.apply(&policy(1, WIDE, "", "after"), &[]));
            scene.has_stopped(step)?;
            scene.site.server.delete("wan0")?;
            traffic.flow()?;
            scene.go_on()?;
            apply.join().expect("the apply panicked")?.done().map(drop)
        })
        .with_context(|| step.to_owned())?;
        ensure!(traffic.accepted()? == 1, "{step}: not in force");
        scene.eventually("the interface is forgotten", || {
            let status = scene.status()?;
            let hooks = &status.halves.network.hooks;
            let known = hooks.iter().any(|hook| hook.interface.as_deref() == Some("wan0"));
            Ok(!known && status.exit_code() == 0)
        })?;
        traffic.end()?.is_whole(1)?;
        scene.is_tidy(2, Some(1))?;
        ensure!(scene.pins()?.iter().filter(|pin| pin.contains("/links/")).count() == 2, "{:?}", scene.pins()?);
    }
    Ok(())
}

#[test]
fn a_second_apply_waits_for_the_first() -> Result<()> {
    let scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "before"), &[])?.done()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.order("stop apply/before-flip")?;
    let start = |name: &str, text: String| -> Result<_> {
        let file = scene.daemon.write(name, text)?;
        let mut command = scene.daemon.ctl_command();
        command.arg("apply").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        scene.site.server.spawn(&mut command)
    };
    let mut first = start("first.yaml", policy(1, "eth0", "", "first"))?;
    scene.has_stopped("apply/before-flip")?;
    let mut second = start("second.yaml", policy(0, "eth0", "", "second"))?;
    traffic.flow()?;
    ensure!(second.try_wait()?.is_none(), "the second did not wait");
    scene.go_on()?;
    ensure!(first.wait()?.success() && second.wait()?.success(), "not both were applied");
    ensure!(traffic.accepted()? == 0, "the second is not in force");
    traffic.end()?.is_whole(2)?;
    scene.is_tidy(3, Some(2))
}

#[test]
fn applies_from_everywhere_come_one_after_the_other() -> Result<()> {
    const CALLERS: usize = 6;
    let scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "before"), &[])?.done()?;
    let traffic = Traffic::start(&scene.site)?;
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let file =
            scene.daemon.write(&format!("{caller}.yaml"), policy(caller % 2, "eth0", "", &caller.to_string()))?;
        let mut command = scene.daemon.ctl_command();
        command.arg("apply").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        callers.push(scene.site.server.spawn(&mut command)?);
    }
    for mut caller in callers {
        ensure!(caller.wait()?.success(), "an apply failed");
    }
    let running = scene.status()?.generation.context("nothing in force")?;
    ensure!(running == 1 + CALLERS as u64, "{running}");
    let shown: ringfence_api::GenerationText = scene.daemon.json(&["show", "running"])?;
    let accepted = usize::from(shown.texts[0].text.contains(
        "accept: {proto: udp, port: 1002}\n        name: accept-1002\n      - drop: {proto: udp, port: 1002}",
    ));
    ensure!(traffic.accepted()? == accepted, "what is said to be in force is not");
    traffic.end()?.is_whole(CALLERS)?;
    scene.is_tidy(running, Some(running - 1))
}

#[test]
fn an_apply_of_what_is_in_force_changes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let text = policy(0, "eth0", "", "the same");
    scene.apply(&text, &[])?.done()?;
    let (counters, root) = (scene.daemon.counters()?, scene.daemon.path("state/generations"));
    let kept = || below(&root);
    let (before, pins) = (kept()?, scene.pins()?);
    let traffic = Traffic::start(&scene.site)?;
    for _ in 0..3 {
        let reply = scene.apply(&text, &[])?.done()?;
        ensure!(reply.stdout.contains("no changes"), "{reply:?}");
    }
    let seen = traffic.end()?;
    seen.is_whole(0)?;
    ensure!(kept()? == before && scene.pins()? == pins, "something was made");
    scene.is_counted(&counters, &seen)?;
    scene.is_tidy(1, None)
}

#[test]
fn a_diff_names_each_rule_that_changes_and_where_it_stands() -> Result<()> {
    let scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "before"), &[])?.done()?;
    let further = "      - drop: {from: 198.51.100.7}\n        name: nuisance\n";
    let reply = scene.apply(&policy(0, "eth0", further, "before"), &["--dry-run"])?.done()?;
    ensure!(reply.stdout.contains("nuisance"), "{reply:?}");
    scene.apply(&policy(0, "eth0", further, "before"), &[])?.done()?;
    let diff: Diff = scene.daemon.json(&["diff", "1", "2"])?;
    let names: Vec<&str> = diff.rules.iter().map(|rule| rule.name.as_str()).collect();
    ensure!(names == ["nuisance"] && diff.files.len() == 1, "{diff:?}");
    let shown = scene.daemon.ctl(["diff", "1", "2"])?.done()?.stdout;
    ensure!(shown.contains("nuisance") && shown.contains("198.51.100.7"), "{shown}");
    Ok(())
}

/// What `have` says once it says the same for a while: the connection of the last request is closed, and what the kernel
/// frees after a grace period is gone.
fn settled<T: PartialEq>(have: impl Fn() -> Result<T>) -> Result<T> {
    const SAME: u32 = 5;
    let (mut last, mut same) = (have()?, 0);
    let end = Instant::now() + PATIENCE;
    while same < SAME {
        ensure!(Instant::now() < end, "it never settles");
        thread::sleep(Duration::from_millis(100));
        let next = have()?;
        same = if next == last { same + 1 } else { 0 };
        last = next;
    }
    Ok(last)
}

#[test]
fn a_thousand_applies_leave_nothing_behind() -> Result<()> {
    const APPLIES: usize = 1000;
    // Past the number of generations that are kept, and until the allocator has what it needs.
    const WARM: usize = 100;
    // What an allocator may come to hold on to; a leak of one generation's tables would be many times as much.
    const SLACK: u64 = 8 * 1024;
    let scene = Scene::new()?;
    // No egress chain: what an apply takes is the verifier's time, and this leaves it the half.
    let text = |round: usize| {
        policy(round % 2, "eth0", "", &format!("round {round:06}")).replace("  egress: {default: accept}\n", "")
    };
    let apply = |round: usize| scene.apply(&text(round), &[])?.done();
    let pid = scene.daemon.pid()?;
    let have = || -> Result<_> {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let census = scene.site.server.run(|| census(&pins()))??;
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
        Ok((open, census, scene.pins()?.len(), below(&scene.daemon.path("state"))?.len(), threads))
    };
    for round in 0..WARM {
        apply(round)?;
    }
    let traffic = Traffic::start(&scene.site)?;
    let (before, memory, begin) = (settled(have)?, scene.daemon.resident()?, Instant::now());
    for round in WARM..WARM + APPLIES {
        apply(round)?;
    }
    let took = begin.elapsed();
    let (after, grown) = (settled(have)?, scene.daemon.resident()?.saturating_sub(memory));
    println!("{APPLIES} applies in {took:?}; {memory} kB and {grown} kB more; {before:?}, {after:?}");
    traffic.end()?.is_whole(APPLIES)?;
    // Threads of the runtime come and go with the load: not one for each apply.
    ensure!(
        (&before.0, &before.1, before.2, before.3) == (&after.0, &after.1, after.2, after.3),
        "{before:?}: {after:?}"
    );
    ensure!(after.4 <= before.4 + 16, "{} threads became {}", before.4, after.4);
    ensure!(grown <= SLACK, "{memory} kB became {grown} kB more");
    let history: Vec<Generation> = scene.daemon.json(&["history"])?;
    ensure!(history[0].generation == (WARM + APPLIES) as u64 && history.len() <= 40, "{} kept", history.len());
    Ok(())
}
