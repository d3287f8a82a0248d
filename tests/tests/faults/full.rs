//! Tables that are full.

use anyhow::{Result, ensure};
use ringfence_api::{Direction, EntryVerb, Target};
use ringfenced::{
    dynamic::{entries::Entry, journal::Event},
    kernel::MAX_ENTRIES,
};

use super::{
    scene::{Scene, policy},
    traffic::Traffic,
};

/// An entry that denies an address of nobody's.
fn entry(id: u64) -> Result<String> {
    let [_, a, b, c] = (id as u32).to_be_bytes();
    let entry = Entry {
        id,
        verb: EntryVerb::Deny,
        target: Target { address: format!("10.{a}.{b}.{c}").parse()?, port: None },
        direction: Direction::In,
        expiry: None,
        reason: None,
        by: "root".into(),
        created: 0,
    };
    Ok(serde_json::to_string(&Event::Entry(entry))? + "\n")
}

#[test]
fn a_full_table_of_entries_refuses_the_next_and_judges_by_those_it_has() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.apply(&policy(0, "eth0", "", "full"), &[])?.done()?;
    scene.daemon.kill()?;
    let all: String = (1..=u64::from(MAX_ENTRIES)).map(entry).collect::<Result<_>>()?;
    scene.daemon.write("state/dynamic.jsonl", all)?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    // It would drop everything that is sent here: refused, it must drop nothing.
    let reply = scene.daemon.ctl(["deny", "192.0.2.2"])?;
    ensure!(reply.code == 1 && reply.stderr.contains(&format!("full: {MAX_ENTRIES}")), "{reply:?}");
    ensure!(traffic.accepted()? == 0, "the refused entry is in force");
    // An apply needs no room there.
    scene.apply(&policy(1, "eth0", "", "full"), &[])?.done()?;
    ensure!(traffic.accepted()? == 1, "not in force");
    traffic.end()?.is_whole(1)?;
    // With room for one it is in force, over a restart, too.
    scene.daemon.ctl(["undo", "10.0.0.1"])?.done()?;
    scene.daemon.ctl(["deny", "192.0.2.2"])?.done()?;
    scene.daemon.kill()?;
    scene.start()?;
    let traffic = Traffic::start(&scene.site)?;
    let seen = traffic.end()?;
    ensure!(seen.nothing_arrived(), "the entry is not in force");
    Ok(())
}

#[test]
fn a_full_set_refuses_the_next_whole_and_judges_by_what_it_has() -> Result<()> {
    let scene = Scene::new()?;
    let further = "      - drop: {from: $jail}\n        name: jailed\n";
    let text = policy(0, "eth0", further, "set")
        .replace("network:\n", "sets:\n  jail: {dynamic: true, capacity: 4}\nnetwork:\n");
    scene.apply(&text, &[])?.done()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.daemon.ctl(["set", "add", "jail", "10.0.0.1", "10.0.0.2", "10.0.0.3"])?.done()?;
    let reply = scene.daemon.ctl(["set", "add", "jail", "10.0.0.4", "192.0.2.2"])?;
    ensure!(reply.code != 0 && reply.stderr.contains("full"), "{reply:?}");
    ensure!(traffic.accepted()? == 0, "the refused element is in force");
    traffic.end()?.is_whole(0)
}
