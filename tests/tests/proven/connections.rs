//! `limit: {connections: N}`.

use std::{net::IpAddr, sync::Barrier, thread};

use anyhow::{Result, ensure};
use ringfence_tests::{
    netns::{CLIENT, SERVER, STRANGER, families},
    traffic::{PATIENCE, SILENCE},
};

use super::server::{Pair, Scene, spoof};

/// A policy with a rule about port 80 that counts connections; `further` rules come before it.
fn policy(further: &str, rule: &str) -> String {
    format!(
        "ringfence: 1
network:
  interfaces: [eth0]
  connections: {{capacity: 4096}}
  ingress:
    default: drop
    rules:
      - accept: {{state: established}}
{further}      - {rule}
        name: few
      - accept: {{proto: tcp, port: 81, state: new}}
        name: other
"
    )
}

const FEW: &str = "accept: {proto: tcp, port: 80, state: new}\n        limit: {connections: 3, per: source}";

fn addresses() -> impl Iterator<Item = (IpAddr, IpAddr, IpAddr)> {
    let of = |pair| families(pair).into_iter();
    of(SERVER).zip(of(CLIENT)).zip(of(STRANGER)).map(|((server, client), stranger)| (server, client, stranger))
}

#[test]
fn each_source_has_so_many_and_one_that_ends_makes_room() -> Result<()> {
    for (server, client, stranger) in addresses() {
        let mut scene = Scene::new(&policy("", FEW))?;
        let (mut open, mut others) = (Vec::new(), Vec::new());
        {
            let port = scene.listen(server, 80)?;
            for _ in 0..3 {
                open.push(port.reach(client)?);
            }
            port.refuses(client)?;
            for pair in &mut open {
                ensure!(pair.crosses(PATIENCE)?, "a connection within the limit was cut");
            }
            // Somebody else, and another port, are not concerned.
            for _ in 0..3 {
                others.push(port.reach(stranger)?);
            }
            let _other = scene.listen(server, 81)?.reach(client)?;
            open.remove(0).close()?;
            open.push(port.reach_soon(client)?);
            port.refuses(client)?;
            // Those that are ended from here make room, too.
            let (from, port_80) = (stranger.to_string(), ["--port", "80"]);
            let kill = ["connections", "--kill", "--all", "--from", &from].into_iter().chain(port_80);
            scene.daemon.ctl(kill)?.done()?;
            for _ in 0..3 {
                others.push(port.reach_soon(stranger)?);
            }
            port.refuses(client)?;
            port.refuses(stranger)?;
        }
        // The same without the daemon.
        scene.daemon.kill()?;
        let port = scene.listen(server, 80)?;
        port.refuses(client)?;
        port.refuses(stranger)?;
    }
    Ok(())
}

#[test]
fn a_rule_that_refuses_does_so_once_there_are_so_many() -> Result<()> {
    let drop = "drop: {proto: tcp, port: 81, state: new}\n        limit: {connections: 2}";
    let scene = Scene::new(&policy("", drop))?;
    let (server, [client, _], [stranger, _]) = (SERVER.0.into(), families(CLIENT), families(STRANGER));
    let port = scene.listen(server, 81)?;
    // All sources together.
    let (first, mut second) = (port.reach(client)?, port.reach(stranger)?);
    port.refuses(client)?;
    port.refuses(stranger)?;
    ensure!(second.crosses(PATIENCE)? && scene.packets("few")? >= 2, "not refused by the rule");
    first.close()?;
    port.reach_soon(stranger)?;
    Ok(())
}

#[test]
fn a_limit_goes_on_over_an_apply_and_over_the_end_of_the_daemon() -> Result<()> {
    let mut scene = Scene::new(&policy("", FEW))?;
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    let mut open: Vec<Pair> = {
        let port = scene.listen(server, 80)?;
        (0..3).map(|_| port.reach(client)).collect::<Result<_>>()?
    };
    // Another number in another place, and room for another number of connections: the rule is known by its name.
    let moved = policy("      - drop: {from: 198.51.100.7}\n", FEW).replace("4096", "8192");
    for text in [policy("      - drop: {from: 198.51.100.7}\n", FEW), moved] {
        scene.daemon.apply(&text)?;
        scene.listen(server, 80)?.refuses(client)?;
        ensure!(open[1].crosses(PATIENCE)?, "an apply cut a connection");
    }
    scene.daemon.kill()?;
    open.remove(0).close()?;
    {
        let port = scene.listen(server, 80)?;
        open.push(port.reach_soon(client)?);
        port.refuses(client)?;
    }
    scene.daemon.restart()?;
    scene.listen(server, 80)?.refuses(client)
}

#[test]
fn whoever_only_begins_connections_holds_no_place() -> Result<()> {
    let scene = Scene::new(&policy("", FEW))?;
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    let port = scene.listen(server, 80)?;
    spoof(&scene.wire()?, client, server, 80, 200)?;
    scene.counts("few", 200)?;
    let _open: Vec<Pair> = (0..3).map(|_| port.reach(client)).collect::<Result<_>>()?;
    port.refuses(client)
}

#[test]
fn of_many_at_once_so_many_come_through() -> Result<()> {
    const AT_ONCE: usize = 12;
    let scene = Scene::new(&policy("", FEW))?;
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    // Each on a listener of its own, so that nobody takes another's connection.
    let to = std::net::SocketAddr::new(server, 80);
    let listener = scene.site.server.run(|| std::net::TcpListener::bind(to))??;
    let barrier = Barrier::new(AT_ONCE);
    let clients: Vec<std::net::TcpStream> = thread::scope(|scope| {
        let connect = || {
            scene.site.client.run(|| {
                barrier.wait();
                std::net::TcpStream::connect_timeout(&to, SILENCE).ok()
            })
        };
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(connect)).collect();
        all.into_iter().filter_map(|one| one.join().ok()?.ok()?).collect()
    });
    // A client may believe in a connection whose last segment was refused; the server does not.
    listener.set_nonblocking(true)?;
    let mut accepted = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        accepted.push(stream);
    }
    ensure!(accepted.len() == 3 && clients.len() >= 3, "{} of {}", accepted.len(), clients.len());
    ensure!(clients.iter().all(|one| one.local_addr().is_ok_and(|at| at.ip() == client)), "another source");
    Ok(())
}

#[test]
fn what_this_host_begins_is_counted_too() -> Result<()> {
    let text = policy("", "accept: {proto: tcp, port: 22, state: new}").replace(
        "  ingress:",
        "  egress:\n    default: drop\n    rules:\n      - accept: {state: established}\n      - accept: {proto: tcp, \
         port: 80}\n        name: out\n        limit: {connections: 2, per: destination}\n  ingress:",
    );
    let scene = Scene::new(&text)?;
    let [client, _] = families(CLIENT);
    let [stranger, _] = families(STRANGER);
    let listen = |at| scene.site.client.run(move || std::net::TcpListener::bind((at, 80)));
    let listeners: [std::net::TcpListener; 2] = [listen(client)??, listen(stranger)??];
    let connect = |to: &std::net::TcpListener, patience| -> Result<Option<std::net::TcpStream>> {
        let to = to.local_addr()?;
        scene.site.server.run(move || std::net::TcpStream::connect_timeout(&to, patience).ok())
    };
    let mut open = Vec::new();
    for listener in &listeners {
        for _ in 0..2 {
            open.push(connect(listener, PATIENCE)?.expect("a connection within the limit"));
        }
        ensure!(connect(listener, SILENCE)?.is_none(), "a third was let out");
    }
    Ok(())
}

#[test]
fn what_is_refused_holds_no_place() -> Result<()> {
    let scene = Scene::new(&policy("", FEW))?;
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    let port = scene.listen(server, 80)?;
    let mut open: Vec<Pair> = (0..3).map(|_| port.reach(client)).collect::<Result<_>>()?;
    port.refuses(client)?;
    // The client is kept out for a while, and gives its connections up unseen.
    scene.daemon.ctl(["deny", &client.to_string()])?.done()?;
    for pair in &mut open {
        ensure!(!pair.crosses(SILENCE)?, "an entry does not reach a connection");
    }
    let abort = |pair: Pair| {
        socket2::SockRef::from(&pair.client).set_linger(Some(std::time::Duration::ZERO))?;
        Ok::<_, anyhow::Error>(pair.server)
    };
    let _left: Vec<_> = open.into_iter().map(abort).collect::<Result<_>>()?;
    scene.daemon.ctl(["undo", &client.to_string()])?.done()?;
    let _again: Vec<Pair> = (0..3).map(|_| port.reach(client)).collect::<Result<_>>()?;
    port.refuses(client)
}
