//! All that the network half can do, in one policy: the programs must still fit into what every kernel gives them, above
//! all its stack.

use anyhow::{Result, ensure};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, SERVER, Site, families},
    traffic::Echo,
};

/// `MARK` stands for a rule that only TC can judge.
const POLICY: &str = "ringfence: 1
sets:
  jail: {dynamic: true, timeout: 1h, full: evict-oldest, never: ['2001:db8:1::/48', 198.51.100.0/24]}
  friends: {dynamic: true}
network:
  interfaces: [eth0]
  connections: {capacity: 2048}
  ingress:
    default: reject
    protect: syn-flood
    rules:
      - drop: {from: $jail}
      - count: {proto: tcp, flags: syn}
      - drop: {length: 0-19}
        mode: audit
      - accept: {state: [established, related]}
      - drop: {state: invalid}
      - accept: {proto: tcp, port: 22, to: $local, from: $friends}
      - drop: {proto: tcp, port: 80, state: new}
        limit: {over: 1000/s, burst: 500, per: source/24}
        add: {source: $jail}
      - drop: {proto: tcp, port: 80, state: new}
        limit: {connections: 2000, per: source}
      - accept: {proto: tcp, port: 2222, state: new}
        add: {source: $jail}
      - accept: {proto: [tcp, udp], port: 80, interface: eth0, family: [ipv4, ipv6]}
        limit: {rate: 100MiB/s}
      - reject: {proto: tcp, port: 81, vlan: {not: 7}}
MARK
  egress:
    default: accept
    rules:
      - reject: {to: $jail}
      - accept: {state: established}
      - drop: {proto: udp, dscp: 3, fragment: true, state: new}
        limit: {over: 10/s, per: destination}
      - drop: {proto: udp, dscp: 9, state: new}
        limit: {connections: 10, per: destination}
      - count: {proto: udp, dscp: 10}
        add: {destination: $friends, unproven: true}
";

#[test]
fn a_policy_of_everything_loads_and_judges() -> Result<()> {
    for mark in ["", "      - drop: {mark: 7, icmp: echo-request}"] {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, &POLICY.replace("MARK", mark))?;
        for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
            let (open, outside) = (Echo::start(&site.server, server, 80)?, Echo::start(&site.client, client, 7)?);
            site.client.reaches(client, open.address(), true)?;
            site.server.reaches(server, outside.address(), true)?;
            daemon.ctl(["set", "add", "jail", &client.to_string()])?.done()?;
            site.client.reaches(client, open.address(), false)?;
            daemon.ctl(["set", "del", "jail", &client.to_string()])?.done()?;
        }
        ensure!(daemon.counters()?.packets("ingress", "default").is_ok(), "no counters");
    }
    Ok(())
}
