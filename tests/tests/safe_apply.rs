//! What an apply says of the connections that are there: what is shown is what happens.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringfence_api::{ApplyAnswer, CutConnection, CutConnections};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Host, SERVER, STRANGER, Site},
    traffic::{PATIENCE, SILENCE, crosses},
};

/// Three services and all that this host asks for.
const POLICY: &str = "ringfence: 1
sets: {jail: {dynamic: true}}
network:
  interfaces: [eth0]
  ingress:
    default: drop
    rules:
      - accept: {state: [established, related]}
        name: answers
      - accept: {proto: tcp, port: [22, 80]}
        name: services
      - accept: {proto: udp, port: 53}
        name: dns
  egress:
    default: accept
    rules:
      - accept: {state: established}
";

/// Of it: port 80 only for members, nobody from the jail, no names, and what leaves is asked, too.
const STRICTER: &str = "ringfence: 1
sets: {jail: {dynamic: true}}
network:
  interfaces: [eth0]
  ingress:
    default: drop
    rules:
      - drop: {from: $jail}
        name: jailed
      - accept: {state: [established, related]}
        name: answers
      - accept: {proto: tcp, port: 22}
        name: login
      - drop: {proto: tcp, port: 80, from: 192.0.2.66}
        name: strangers
      - accept: {proto: tcp, port: 80}
        name: web
  egress:
    default: drop
    rules:
      - accept: {state: established}
      - drop: {proto: tcp, port: 7001}
        name: no-7001
      - accept: {proto: [tcp, udp], port: 7000-7999}
        name: asked
";

/// A connection between two hosts: the end of whoever began it, and the other.
#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
}

impl Pair {
    fn new(from: (&Host, IpAddr), to: (&Arc<Host>, IpAddr), port: u16) -> Result<Self> {
        let listener = to.0.run(|| TcpListener::bind((to.1, port)))??;
        let near = from.0.run(|| -> Result<TcpStream> {
            let at = SocketAddr::new(to.1, port);
            let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from.1, 0).into())?;
            socket.connect_timeout(&at.into(), PATIENCE)?;
            Ok(socket.into())
        })??;
        let (far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let mut pair = Self { near, far };
        ensure!(pair.goes(PATIENCE)? && pair.comes(PATIENCE)?, "no connection");
        Ok(pair)
    }

    fn goes(&mut self, patience: Duration) -> Result<bool> {
        crosses(&mut self.near, &mut self.far, patience)
    }

    fn comes(&mut self, patience: Duration) -> Result<bool> {
        crosses(&mut self.far, &mut self.near, patience)
    }

    /// Port of whoever began it.
    fn port(&self) -> Result<u16> {
        Ok(self.near.local_addr()?.port())
    }
}

/// What an apply with these further arguments says of connections.
fn cut(daemon: &Daemon, policy: &Path, arguments: &[&str]) -> Result<CutConnections> {
    let file = policy.display().to_string();
    let answer: ApplyAnswer = daemon.json(&[&["apply", &file], arguments].concat())?;
    ensure!(answer.generation.is_some() != arguments.contains(&"--dry-run"), "{answer:?}");
    answer.cut.context("nothing is said of connections")
}

/// Those that are shown, by the port of whoever began each: rule, and line of the policy.
fn by_port(cut: &CutConnections) -> BTreeMap<Option<u16>, (String, Option<u32>)> {
    cut.connections.iter().map(|one| (one.connection.from_port, (one.rule.clone(), one.line))).collect()
}

/// The line of a policy where a rule begins that has this name.
fn line_of(policy: &str, name: &str) -> Option<u32> {
    let at = policy.lines().position(|line| line.trim() == format!("name: {name}"))?;
    u32::try_from(at).ok()
}

#[test]
fn exactly_those_are_cut_that_the_dry_run_shows() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (client, stranger, server) = (IpAddr::from(CLIENT.0), IpAddr::from(STRANGER.0), IpAddr::from(SERVER.0));
    let inbound = |from: IpAddr, port: u16| Pair::new((&site.client, from), (&site.server, server), port);
    let outbound = |port: u16| Pair::new((&site.server, server), (&site.client, client), port);
    let mut login = inbound(client, 22)?;
    let mut web = inbound(client, 80)?;
    let mut strange = inbound(stranger, 80)?;
    let mut asked = outbound(7000)?;
    let mut refused = outbound(7001)?;
    // An exchange of UDP that a rule lets in, and one that this host began.
    let service = site.server.run(|| UdpSocket::bind((server, 53)))??;
    let resolver = site.client.run(|| UdpSocket::bind((client, 0)))??;
    let asks = |patience: Duration| -> Result<bool> {
        resolver.send_to(b"name", (server, 53))?;
        service.set_read_timeout(Some(patience))?;
        let Ok((_, from)) = service.recv_from(&mut [0; 8]) else { return Ok(false) };
        service.send_to(b"answer", from)?;
        resolver.set_read_timeout(Some(patience))?;
        Ok(resolver.recv(&mut [0; 8]).is_ok())
    };
    ensure!(asks(PATIENCE)?, "no answer over UDP");

    let stricter = daemon.write("stricter.yaml", STRICTER)?;
    let shown = cut(&daemon, &stricter, &["--dry-run"])?;
    let expected = BTreeMap::from([
        (Some(strange.port()?), ("strangers".to_owned(), line_of(STRICTER, "strangers"))),
        (Some(refused.port()?), ("no-7001".to_owned(), line_of(STRICTER, "no-7001"))),
        (Some(resolver.local_addr()?.port()), ("default".to_owned(), Some(6))),
    ]);
    ensure!(by_port(&shown) == expected, "{:?}, not {expected:?}", by_port(&shown));
    ensure!((shown.total, shown.left_out, shown.judged) == (3, 0, 6), "{shown:?}");
    ensure!(shown.connections.iter().all(|one| !one.own), "{shown:?}");
    let text = daemon.ctl(["apply".as_ref(), stricter.as_os_str(), "--dry-run".as_ref()])?.done()?.stdout;
    let row = text.lines().find(|line| line.contains("strangers") && line.contains("192.0.2.66:"));
    let place = format!("stricter.yaml:{}", line_of(STRICTER, "strangers").unwrap_or_default());
    ensure!(text.contains("cuts 3 connections of 6:") && row.is_some_and(|row| row.contains(&place)), "{text}");
    // Nothing has happened yet.
    for pair in [&mut login, &mut web, &mut strange, &mut asked, &mut refused] {
        ensure!(pair.goes(PATIENCE)? && pair.comes(PATIENCE)?, "a dry run has cut a connection");
    }
    ensure!(asks(PATIENCE)?, "a dry run has cut an exchange");

    let done = cut(&daemon, &stricter, &[])?;
    ensure!(by_port(&done) == expected, "{done:?}");
    for pair in [&mut login, &mut web, &mut asked] {
        ensure!(pair.goes(PATIENCE)? && pair.comes(PATIENCE)?, "cut, and not shown");
    }
    for pair in [&mut strange, &mut refused] {
        ensure!(!pair.goes(SILENCE)? && !pair.comes(SILENCE)?, "shown, and not cut");
    }
    ensure!(!asks(SILENCE)?, "shown, and not cut");
    let log = daemon.log();
    ensure!(log.contains("connections are cut") && log.contains("strangers"), "not logged: {log}");

    // They are no news any more; an element of a set is.
    daemon.ctl(["set", "add", "jail", &client.to_string()])?.done()?;
    let open = daemon.write(
        "open.yaml",
        STRICTER.replace(
            "default: drop\n    rules:\n      - drop: {from: $jail}",
            "default: drop\n    rules:\n      - count: {from: $jail}",
        ),
    )?;
    ensure!(cut(&daemon, &open, &["--dry-run"])?.total == 0, "{:?}", cut(&daemon, &open, &["--dry-run"])?);
    Ok(())
}

#[test]
fn what_a_set_and_an_entry_say_counts() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (client, stranger, server) = (IpAddr::from(CLIENT.0), IpAddr::from(STRANGER.0), IpAddr::from(SERVER.0));
    let inbound = |from: IpAddr| Pair::new((&site.client, from), (&site.server, server), 22);
    let (mut friend, mut jailed) = (inbound(client)?, inbound(stranger)?);
    daemon.ctl(["set", "add", "jail", "192.0.2.64/28"])?.done()?;
    ensure!(jailed.goes(PATIENCE)?, "no rule reads the set yet");
    let stricter = daemon.write("stricter.yaml", STRICTER)?;
    let shown = cut(&daemon, &stricter, &["--dry-run"])?;
    let expected = BTreeMap::from([(Some(jailed.port()?), ("jailed".to_owned(), line_of(STRICTER, "jailed")))]);
    ensure!(by_port(&shown) == expected, "{shown:?}");
    ensure!(friend.goes(PATIENCE)? && friend.comes(PATIENCE)?, "nothing was applied");
    // An entry lets in what the rules would not, and what another one cuts is cut today.
    daemon.ctl(["allow", &stranger.to_string(), "--all-ports"])?.done()?;
    daemon.ctl(["deny", &client.to_string()])?.done()?;
    for arguments in [&["--dry-run"][..], &[]] {
        let shown = cut(&daemon, &stricter, arguments)?;
        ensure!(shown.total == 0 && shown.judged > 0, "{shown:?}");
    }
    ensure!(jailed.goes(PATIENCE)? && jailed.comes(PATIENCE)?, "not shown, and cut");
    ensure!(!friend.goes(SILENCE)?, "an entry was forgotten");
    Ok(())
}

/// Everything may leave, so what this host says is still heard; it does not begin the connection anew.
#[test]
fn what_is_cut_is_cut_whoever_speaks_next() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let mut pair = Pair::new((&site.client, CLIENT.0.into()), (&site.server, SERVER.0.into()), 80)?;
    let closed = daemon.write("closed.yaml", POLICY.replace("port: [22, 80]", "port: 22"))?;
    let shown = cut(&daemon, &closed, &[])?;
    let [CutConnection { rule, .. }] = &shown.connections[..] else { anyhow::bail!("{shown:?}") };
    ensure!(rule == "default", "{shown:?}");
    ensure!(!pair.goes(SILENCE)?, "shown, and not cut");
    ensure!(pair.comes(PATIENCE)? && !pair.goes(SILENCE)?, "it came back to life");
    // Once the rule is back, it goes on.
    daemon.apply(POLICY)?;
    ensure!(pair.goes(PATIENCE)? && pair.comes(PATIENCE)?, "it was forgotten");
    Ok(())
}

#[test]
fn a_first_policy_is_shown_what_it_cuts() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::new(&site.server)?;
    let mut command = daemon.command();
    daemon.run(&mut command)?;
    let (client, server) = (IpAddr::from(CLIENT.0), IpAddr::from(SERVER.0));
    let mut login = Pair::new((&site.client, client), (&site.server, server), 22)?;
    let mut other = Pair::new((&site.client, client), (&site.server, server), 8080)?;
    let mut asked = Pair::new((&site.server, server), (&site.client, client), 7001)?;
    let stricter = daemon.write("stricter.yaml", STRICTER)?;
    let expected = BTreeMap::from([
        (Some(other.port()?), ("default".to_owned(), Some(6))),
        (Some(asked.port()?), ("no-7001".to_owned(), line_of(STRICTER, "no-7001"))),
    ]);
    for arguments in [&["--dry-run"][..], &[]] {
        let shown = cut(&daemon, &stricter, arguments)?;
        ensure!(by_port(&shown) == expected && shown.judged == 3, "{shown:?}");
    }
    ensure!(login.goes(PATIENCE)? && login.comes(PATIENCE)?, "not shown, and cut");
    for pair in [&mut other, &mut asked] {
        let (goes, comes) = (pair.goes(SILENCE)?, pair.comes(SILENCE)?);
        ensure!(!goes && !comes, "shown, and not cut: {pair:?}");
    }
    Ok(())
}

#[test]
fn only_the_callers_own_session_is_a_reason_to_refuse() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (client, stranger, server) = (IpAddr::from(CLIENT.0), IpAddr::from(STRANGER.0), IpAddr::from(SERVER.0));
    let mut session = Pair::new((&site.client, client), (&site.server, server), 80)?;
    let mut other = Pair::new((&site.client, stranger), (&site.server, server), 80)?;
    let closed = daemon.write("closed.yaml", POLICY.replace("port: [22, 80]", "port: 22"))?;
    // As `sshd` holds it: the command has the connection itself.
    let held = session.far.try_clone()?;
    let in_session = |policy: &PathBuf, arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let mut command = daemon.ctl_command();
        command.arg("apply").arg(policy).args(arguments);
        command.stdin(OwnedFd::from(held.try_clone()?)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = site.server.spawn(&mut command)?.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let (code, text, _) = in_session(&closed, &["--dry-run"])?;
    let first = text.lines().skip_while(|line| !line.contains("cuts 2 connections of 2")).nth(2).unwrap_or_default();
    ensure!(code == Some(0) && first.ends_with("your own session"), "{code:?}: {text}");
    let (code, _, error) = in_session(&closed, &[])?;
    ensure!(code == Some(1) && error.contains("your own session") && error.contains("--force"), "{code:?}: {error}");
    for pair in [&mut session, &mut other] {
        ensure!(pair.goes(PATIENCE)? && pair.comes(PATIENCE)?, "refused, and cut all the same");
    }
    // To cut somebody else is what policies are for.
    let strangers = POLICY.replace(
        "      - accept: {proto: tcp",
        "      - drop: {from: 192.0.2.66}\n        name: strangers\n      - accept: {proto: tcp",
    );
    let strangers = daemon.write("strangers.yaml", strangers)?;
    let (code, text, error) = in_session(&strangers, &[])?;
    ensure!(code == Some(0) && text.contains("cuts 1 connection of 2"), "{code:?}: {text} {error}");
    ensure!(session.goes(PATIENCE)? && !other.goes(SILENCE)?, "not as shown");
    let (code, text, error) = in_session(&closed, &["--force"])?;
    ensure!(code == Some(0) && text.contains("your own session"), "{code:?}: {text} {error}");
    ensure!(!session.goes(SILENCE)?, "shown, and not cut");
    Ok(())
}
