//! Sets in files and dynamic sets on real traffic: their formats, their changes, and that no change lets anything through.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, UdpSocket},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ringfence_api::{Generation, SetElements, Status};
use ringfence_tests::{
    daemon::{Daemon, Reply},
    netns::{CLIENT, SERVER, STRANGER, Site},
    traffic::Echo,
};

/// How long a change of a file may take until it is in force: the machine may have much else to do.
const PATIENCE: Duration = Duration::from_mins(2);
/// Where members of the set knock.
const PORT: u16 = 9;

fn policy(set: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n  bad: {set}\nnetwork:\n  interfaces: [eth0]\n  ingress:\n    default: accept\n    rules:\n      - drop: {{from: $bad}}\n        name: bad\n  egress: {{default: accept}}\n"
    )
}

/// A daemon whose policy has the set `bad` in the file `feed`.
fn with_feed(site: &Site, keys: &str, feed: impl AsRef<[u8]>) -> Result<Daemon> {
    let mut daemon = Daemon::new(&site.server)?;
    daemon.write("feed", feed)?;
    daemon.write("policy.yaml", policy(&format!("{{file: feed{keys}}}")))?;
    daemon.restart()?;
    Ok(daemon)
}

/// Replaces a file as feeds are replaced: another one is renamed over it.
fn replace(daemon: &Daemon, contents: impl AsRef<[u8]>) -> Result<()> {
    let new = daemon.write("feed.new", contents)?;
    Ok(fs::rename(new, daemon.path("feed"))?)
}

/// Waits until the status is as it should be.
fn until(daemon: &Daemon, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    let end = Instant::now() + PATIENCE;
    loop {
        let status: Status = daemon.json(&["status"])?;
        if wanted(&status) {
            return Ok(status);
        }
        ensure!(Instant::now() < end, "not so after {PATIENCE:?}: {what}: {status:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn generation(daemon: &Daemon) -> Result<u64> {
    daemon.json::<Status>(&["status"])?.generation.context("no generation is in force")
}

fn elements(status: &Status) -> u64 {
    status.set_files.first().map_or(0, |file| file.elements)
}

/// Runs `ringctl` with a text as its standard input.
fn ctl(daemon: &Daemon, arguments: &[&str], input: &str) -> Result<Reply> {
    let mut command = daemon.ctl_command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Reply {
        code: output.status.code().context("killed")?,
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Sends packets from a member of the set until told to stop.
fn knock(site: &Site, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket = site.client.run(|| UdpSocket::bind((STRANGER.0, 0)))??;
    while !stop.load(Ordering::Relaxed) {
        socket.send_to(b"let me in", SocketAddr::new(SERVER.0.into(), PORT))?;
        if sent.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
            // Bounded: a few ten thousand packets a second are enough to find a gap.
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Changes the set while a member of it floods: not one packet may get through, and the rule must have counted all.
fn under_flood(site: &Site, daemon: &Daemon, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let listener = site.server.run(|| UdpSocket::bind((SERVER.0, PORT)))??;
    listener.set_nonblocking(true)?;
    let before = daemon.counters()?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| knock(site, &stop, &sent));
        let result = change();
        stop.store(true, Ordering::Relaxed);
        match sender.join() {
            Ok(sent) => sent.and(result),
            Err(_) => bail!("the sender panicked"),
        }
    })?;
    let sent = sent.into_inner();
    ensure!(sent > 1000, "only {sent} packets were sent");
    ensure!(listener.recv(&mut [0; 16]).is_err(), "a packet got through");
    daemon.counted(&before, "ingress", "bad", sent)?;
    // What the flood would have shown: without the set the same packets arrive.
    daemon.ctl(["off"])?.done()?;
    let socket = site.client.run(|| UdpSocket::bind((STRANGER.0, 0)))??;
    socket.send_to(b"now", SocketAddr::new(SERVER.0.into(), PORT))?;
    listener.set_nonblocking(false)?;
    listener.set_read_timeout(Some(PATIENCE))?;
    listener.recv(&mut [0; 16]).context("nothing arrives without the set either")?;
    Ok(())
}

/// So many different addresses of a `10.N.0.0/16`, one a line.
fn lines(network: u32, count: u32) -> String {
    let line = |i: u32| format!("10.{network}.{}.{}\n", i >> 8, i & 255);
    (0..count).map(line).collect::<Vec<_>>().concat()
}

#[test]
fn nothing_gets_through_while_a_dynamic_set_changes() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &policy("{dynamic: true, capacity: 50000, full: evict-oldest}"))?;
    ctl(&daemon, &["set", "add", "bad", "-"], &format!("{}\n", STRANGER.0))?.done()?;
    let list = |round| lines(round, 20_000);
    under_flood(&site, &daemon, || {
        for round in 0..8 {
            // The next contents come before the last ones go; the member is renewed with another timeout, too.
            let member = format!("{} timeout {}s\n", STRANGER.0, 1000 + round);
            ctl(&daemon, &["set", "add", "bad", "-"], &(list(round) + &member))?.done()?;
            if let Some(last) = round.checked_sub(1) {
                ctl(&daemon, &["set", "del", "bad", "-"], &list(last))?.done()?;
            }
            // Another prefix length comes and goes, which is looked up beside the others.
            daemon.ctl(["set", "add", "bad", "10.99.0.0/16"])?.done()?;
            daemon.ctl(["set", "del", "bad", "10.99.0.0/16"])?.done()?;
        }
        let set: SetElements = daemon.json(&["set", "list", "bad"])?;
        ensure!(set.size == 20_001, "{} elements", set.size);
        Ok(())
    })
}

#[test]
fn nothing_gets_through_while_a_set_file_is_replaced() -> Result<()> {
    let site = Site::new()?;
    let feed = |round: u32| -> String {
        let others = lines(round, 2000);
        if round.is_multiple_of(2) { format!("{}\n{others}", STRANGER.0) } else { format!("{others}192.0.2.64/27\n") }
    };
    let daemon = with_feed(&site, "", feed(0))?;
    under_flood(&site, &daemon, || {
        for round in 1..12 {
            let before = generation(&daemon)?;
            if round % 3 == 0 {
                // In place, as an editor or a redirection does.
                daemon.write("feed", feed(round))?;
            } else {
                replace(&daemon, feed(round))?;
            }
            until(&daemon, "the new contents are in force", |status| status.generation > Some(before))?;
        }
        Ok(())
    })
}

#[test]
fn feeds_of_every_format_are_enforced_and_their_bad_lines_shown() -> Result<()> {
    let site = Site::new()?;
    let daemon = with_feed(&site, "", "192.0.2.99\n")?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 80)?;
    let nft = "table inet t {\n set x {\n type ipv4_addr\n flags interval\n elements = { 192.0.2.66 timeout 1h expires 59m, 198.51.100.0/24,\n oops }\n }\n}\n";
    for (keys, feed) in [
        (", bad_lines: skip", "192.0.2.66 # spam\noops\n"),
        (", format: csv, column: ip", "seen,ip\n1,\"192.0.2.66\"\n2,oops\n"),
        (
            ", format: spamhaus-json",
            "{\"cidr\":\"192.0.2.66/32\"}\n{\"cidr\":\"oops\"}\n{\"type\":\"metadata\",\"records\":2}\n",
        ),
        (", format: ipset", "create x hash:net family inet\nadd x 192.0.2.66 timeout 9 comment \"a b\"\nadd x oops\n"),
        (", format: nft, name: x", nft),
    ] {
        daemon.write("feed", feed)?;
        daemon.apply(&policy(&format!("{{file: feed{keys}}}")))?;
        site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
        site.client.reaches(CLIENT.0.into(), echo.address(), true)?;
        let status: Status = daemon.json(&["status"])?;
        let [file] = &status.set_files[..] else { bail!("{keys}: {status:?}") };
        ensure!(file.refused == 1 && file.elements >= 1 && file.stale.is_none(), "{keys}: {file:?}");
        ensure!(file.because.as_deref().is_some_and(|why| why.contains("`oops`")), "{keys}: {file:?}");
        ensure!(status.exit_code() == 0, "bad lines of a feed degrade nothing: {status:?}");
        let check = daemon.ctl(["check".as_ref(), daemon.path("policy.yaml").as_os_str()])?.done()?;
        ensure!(check.stderr.contains("lines cannot be used; line "), "{keys}: {check:?}");
        // A feed in another format than the policy says is refused as a whole, and what is in force stays.
        daemon.write("feed", "<html>\n<body>Too many requests</body>\n</html>\n")?;
        daemon.ctl(["apply".as_ref(), daemon.path("policy.yaml").as_os_str()])?.exits(2)?;
        site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
    }
    Ok(())
}

#[test]
fn a_set_file_that_is_lost_or_bad_leaves_the_last_good_copy_in_force() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = with_feed(&site, "", "192.0.2.66\n10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 80)?;
    let first = generation(&daemon)?;
    for (what, contents) in [
        ("bad", "192.0.2.66\n10.0.0.1\nnonsense\n10.0.0.2\n"),
        ("empty", ""),
        ("comments only", "# try again later\n"),
        ("shrunk", "10.0.0.1\n"),
        ("binary", "\0\0\0\0"),
    ] {
        replace(&daemon, contents)?;
        let status = until(&daemon, what, |status| !status.problems.is_empty())?;
        ensure!(status.generation == Some(first) && elements(&status) == 4, "{what}: {status:?}");
        ensure!(status.exit_code() == 1 && status.set_files[0].stale.is_some(), "{what}: {status:?}");
        site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
        // It is whole again: nothing is wrong, and as nothing is new there is no new generation.
        replace(&daemon, "192.0.2.66\n10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
        let status = until(&daemon, "whole again", |status| status.problems.is_empty())?;
        ensure!(status.generation == Some(first), "{status:?}");
    }
    fs::remove_file(daemon.path("feed"))?;
    until(&daemon, "missing", |status| !status.problems.is_empty())?;
    site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
    // Also over a restart, at which the policy is applied again.
    daemon.kill()?;
    daemon.restart()?;
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.exit_code() == 1 && elements(&status) == 4, "{status:?}");
    site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
    replace(&daemon, "10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
    until(&daemon, "it is back", |status| status.problems.is_empty() && elements(status) == 3)?;
    site.client.reaches(STRANGER.0.into(), echo.address(), true)
}

#[test]
fn a_set_may_shrink_where_the_policy_says_so() -> Result<()> {
    let site = Site::new()?;
    let daemon = with_feed(&site, ", shrink: true", "192.0.2.66\n10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 80)?;
    site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
    replace(&daemon, "10.0.0.1\n")?;
    until(&daemon, "one element is left", |status| elements(status) == 1)?;
    site.client.reaches(STRANGER.0.into(), echo.address(), true)?;
    // By hand it is refused without either word, and taken once with `--force`.
    let file = daemon.write("policy.yaml", policy("{file: other}"))?;
    let apply = |force: &[&str]| {
        daemon.ctl(["apply".as_ref(), file.as_os_str()].into_iter().chain(force.iter().map(AsRef::as_ref)))
    };
    daemon.write("other", "10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
    apply(&[])?.done()?;
    daemon.write("other", "10.0.0.1\n")?;
    until(&daemon, "refused", |status| status.problems.iter().any(|problem| problem.contains("shrink: true")))?;
    let refused = apply(&[])?.exits(1)?;
    ensure!(refused.stderr.contains("lost more than half") && refused.stderr.contains("shrink: true"), "{refused:?}");
    apply(&["--force"])?.done()?;
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.problems.is_empty() && elements(&status) == 1, "{status:?}");
    Ok(())
}

#[test]
fn a_generation_that_waits_for_its_confirmation_is_left_alone() -> Result<()> {
    let site = Site::new()?;
    let daemon = with_feed(&site, "", "10.0.0.1\n")?;
    let first = generation(&daemon)?;
    let file = daemon.write("policy.yaml", policy("{file: feed}") + "# another text\n")?;
    daemon.ctl(["apply".as_ref(), file.as_os_str(), "--confirm".as_ref(), "1h".as_ref()])?.done()?;
    let pending = generation(&daemon)?;
    replace(&daemon, "10.0.0.1\n10.0.0.2\n")?;
    // Longer than a change takes otherwise.
    thread::sleep(Duration::from_secs(3));
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.generation == Some(pending) && status.pending.is_some() && elements(&status) == 1, "{status:?}");
    daemon.ctl(["rollback"])?.done()?;
    // What came back takes the change, and stays the text that it is.
    let status = until(&daemon, "the change is in force", |status| elements(status) == 2)?;
    ensure!(status.generation > Some(pending) && status.pending.is_none(), "{status:?}");
    let shown = daemon.ctl(["show"])?.done()?;
    ensure!(!shown.stdout.contains("another text"), "generation {first} came back: {shown:?}");
    Ok(())
}

#[test]
fn changes_of_set_files_leave_history_and_rollback_to_the_policies() -> Result<()> {
    let site = Site::new()?;
    let daemon = with_feed(&site, "", "10.0.0.1\n")?;
    let old = generation(&daemon)?;
    daemon.apply(&(policy("{file: feed}") + "# second\n"))?;
    for count in 2..6 {
        replace(&daemon, lines(0, count))?;
        until(&daemon, "the change is in force", |status| elements(status) == u64::from(count))?;
    }
    let history: Vec<Generation> = daemon.json(&["history"])?;
    ensure!(history.len() == 3, "two policies, and the last contents of the second: {history:?}");
    daemon.ctl(["rollback"])?.done()?;
    // The files as they were, until they change again.
    thread::sleep(Duration::from_secs(2));
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.generation == Some(old) && elements(&status) == 1, "{status:?}");
    replace(&daemon, "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4\n10.0.0.5\n10.0.0.6\n")?;
    until(&daemon, "the change is in force", |status| elements(status) == 6)?;
    Ok(())
}

#[test]
fn an_unchanged_or_another_file_changes_nothing_and_a_link_is_followed() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::new(&site.server)?;
    daemon.write("first", "10.0.0.1\n")?;
    daemon.write("second", "10.0.0.1\n10.0.0.2\n")?;
    std::os::unix::fs::symlink("first", daemon.path("feed"))?;
    daemon.write("policy.yaml", policy("{file: feed}"))?;
    daemon.restart()?;
    let first = generation(&daemon)?;
    daemon.write(".feed.swp", "10.0.0.9\n")?;
    daemon.write("first", "10.0.0.1\n")?;
    thread::sleep(Duration::from_secs(2));
    ensure!(generation(&daemon)? == first, "the contents are the same");
    std::os::unix::fs::symlink("second", daemon.path("link"))?;
    fs::rename(daemon.path("link"), daemon.path("feed"))?;
    until(&daemon, "the link leads elsewhere", |status| elements(status) == 2)?;
    // And what it leads to is watched.
    daemon.write("second", "10.0.0.1\n10.0.0.2\n10.0.0.3\n")?;
    until(&daemon, "the other file has changed", |status| elements(status) == 3)?;
    // A change while no daemon runs is found by the next.
    daemon.kill()?;
    daemon.write("second", "10.0.0.1\n10.0.0.2\n10.0.0.3\n10.0.0.4\n")?;
    let mut command = daemon.command();
    daemon.run(&mut command)?;
    until(&daemon, "the change is in force", |status| elements(status) == 4)?;
    Ok(())
}

#[test]
fn elements_from_standard_input_have_timeouts_of_their_own() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &policy("{dynamic: true}"))?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 80)?;
    let begin = Instant::now();
    let list = "# list\n192.0.2.66 timeout 3s\n10.0.0.1 timeout 1h\n10.0.0.2\n10.0.0.3 ; stays as long as said\n";
    let added = ctl(&daemon, &["set", "add", "bad", "-", "--for", "2h"], list)?.done()?;
    ensure!(added.stdout == "added 4\n", "{added:?}");
    site.client.reaches(STRANGER.0.into(), echo.address(), false)?;
    let set: SetElements = daemon.json(&["set", "list", "bad"])?;
    let mut until: Vec<(String, u64)> =
        set.elements.iter().filter_map(|element| Some((element.address.to_string(), element.expires?))).collect();
    until.sort_by_key(|(_, expires)| *expires);
    let hours = |index: usize| until[index].1.saturating_sub(until[0].1).div_ceil(3600);
    ensure!(until.len() == 4 && until[0].0 == "192.0.2.66" && (hours(1), hours(2), hours(3)) == (1, 2, 2), "{until:?}");
    while !site.client.udp_answers(STRANGER.0.into(), echo.address(), Duration::from_millis(100))? {
        ensure!(begin.elapsed() < PATIENCE, "still denied after {:?}", begin.elapsed());
    }
    ensure!(begin.elapsed() >= Duration::from_secs(3), "ended after {:?}", begin.elapsed());
    // Mistakes change nothing, and all of them are named.
    let refused = ctl(&daemon, &["set", "add", "bad", "-"], "10.0.0.9\nx\n10.0.0.8 timeout soon\n")?.exits(2)?;
    ensure!(refused.stderr.contains("line 2") && refused.stderr.contains("line 3"), "{refused:?}");
    ctl(&daemon, &["set", "del", "bad", "-"], "10.0.0.1 timeout 1h\n")?.exits(2)?;
    let set: SetElements = daemon.json(&["set", "list", "bad"])?;
    ensure!(set.size == 3, "{set:?}");
    Ok(())
}
