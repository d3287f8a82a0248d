//! Tagged traffic through real VLAN devices: only on kernels with 8021q, so in the virtual machines (`cargo xtask vm`).
//!
//! A veth device hands a tag over beside the frame instead of in it, and XDP sees such a frame untagged: raw frames,
//! which carry the tag inside, would not show a rule that never matches.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ringfence_api::Status;
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, SERVER, Site},
    traffic::Echo,
};

/// Server and client in VLAN 10 and in VLAN 20.
const TAGGED: [(u16, Ipv4Addr, Ipv4Addr); 2] = [
    (10, Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)),
    (20, Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)),
];

fn policy(rule: &str) -> String {
    format!(
        "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: accept
    rules:
      - {rule}
        name: tagged
  egress: {{default: accept}}
"
    )
}

fn site() -> Result<Site> {
    let site = Site::new()?;
    for (id, server, client) in TAGGED {
        for (host, address) in [(&site.server, server), (&site.client, client)] {
            let name = format!("vlan{id}");
            host.vlan("eth0", &name, id)?;
            host.up(&name)?;
            host.address(&name, address, 24)?;
        }
    }
    Ok(site)
}

/// Whether each VLAN and untagged traffic get through, as (10, 20, untagged).
fn reached(site: &Site, expected: (bool, bool, bool)) -> Result<()> {
    let [ten, twenty] = TAGGED;
    for (server, client, expected) in
        [(ten.1, ten.2, expected.0), (twenty.1, twenty.2, expected.1), (SERVER.0, CLIENT.0, expected.2)]
    {
        let echo = Echo::start(&site.server, server.into(), 80)?;
        site.client.reaches(client.into(), echo.address(), expected)?;
    }
    Ok(())
}

#[test]
fn a_rule_on_the_vlan_matches_tagged_frames() -> Result<()> {
    let site = site()?;
    let daemon = Daemon::start(&site.server, &policy("drop: {vlan: 10, proto: [tcp, udp]}"))?;
    reached(&site, (false, true, true))?;
    ensure!(daemon.counters()?.packets("ingress", "tagged")? >= 2, "{:?}", daemon.counters()?);
    daemon.apply(&policy("drop: {vlan: {not: 10}, proto: [tcp, udp]}"))?;
    // Absent is neither the value nor its negation: untagged frames pass.
    reached(&site, (true, false, true))?;
    daemon.apply(&policy("drop: {proto: [tcp, udp]}"))?;
    reached(&site, (false, false, false))
}

#[test]
fn the_hook_in_use_can_see_tags() -> Result<()> {
    let site = site()?;
    let daemon = Daemon::start(&site.server, &policy("drop: {vlan: 10}"))?;
    let status: Status = daemon.json(&["status"])?;
    let ingress = status.halves.network.hooks.iter().find(|hook| hook.hook == "ingress");
    let ingress = ingress.context("no ingress hook")?;
    ensure!(ingress.how.as_deref().is_some_and(|how| ["tcx", "clsact"].contains(&how)), "{ingress:?}");
    Ok(())
}

#[test]
fn leaving_tagged_frames_are_judged() -> Result<()> {
    let site = site()?;
    let text = policy("count: {vlan: 30}").replace(
        "egress: {default: accept}",
        "egress: {default: accept, rules: [{drop: {vlan: 20, proto: [tcp, udp]}, name: out}]}",
    );
    let daemon = Daemon::start(&site.server, &text)?;
    reached(&site, (true, false, true))?;
    ensure!(daemon.counters()?.packets("egress", "out")? >= 1, "{:?}", daemon.counters()?);
    Ok(())
}
