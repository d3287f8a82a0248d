//! The process itself: its exit codes, its socket, what it refuses.

#![expect(clippy::unwrap_used, reason = "helpers of tests: to fail is to say so")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringfence_api::{
    ApplyRequest, Client, EntryRequest, EntryVerb, ErrorCode, GenerationRequest, RulesQuery, SetRequest, State,
    UndoRequest,
};

use self::support::{KILLED, PATIENCE, Place, WEB, address, ask, code, policy, stderr, texts};

#[test]
fn bad_input_is_exit_2_and_says_where() {
    let place = Place::new();
    let output = place.once("--require nonsense");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = place.once("--policy $PLACE/nothing.yaml");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("nothing.yaml"));
    place.write("bad.yaml", "ringfence: 1\nnetwork:\n  ingress: {default: dorp}\n");
    let output = place.once("--policy $PLACE/bad.yaml");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("bad.yaml:3"), "{output:?}");
}

#[test]
fn what_is_missing_is_exit_3_and_named() {
    let place = Place::new();
    let output = place.once("--require host");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).contains("--require host"), "{output:?}");
    place.write("p.yaml", &policy(WEB).replace("[one]", "[nowhere]"));
    let output = place.once("--require network --policy $PLACE/p.yaml");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).contains("covers no interface"), "{output:?}");
    // Without privileges.
    let script =
        "exec setpriv --bounding-set -all --inh-caps -all $RINGFENCED --socket $PLACE/socket --state-dir $PLACE/state";
    let output = place.shell(script).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).contains("CAP_"), "{output:?}");
}

#[test]
fn a_second_daemon_on_the_same_pins_or_state_is_refused() {
    let place = Place::new();
    let first = "$RINGFENCED --socket $PLACE/socket --state-dir $PLACE/state & first=$!; while [ ! -S $PLACE/socket ]; do sleep 0.05; done";
    for second in ["--state-dir $PLACE/other", "--state-dir $PLACE/state --bpffs /sys/fs/bpf/other"] {
        let script = format!(
            "{first}; set +e; $RINGFENCED --socket $PLACE/socket2 {second}; code=$?; kill $first; wait; exit $code"
        );
        let output = place.shell(&script).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{second}: {output:?}");
        assert!(stderr(&output).contains("another ringfenced"), "{output:?}");
        let _ = fs::remove_file(place.path("socket"));
    }
}

#[test]
fn a_word_on_the_kernels_command_line_switches_off() {
    let place = Place::new();
    place.write("p.yaml", &policy(WEB));
    place.write("cmdline", "quiet ringfence=off\n");
    let boot = format!("{KILLED} mount --bind $PLACE/cmdline /proc/cmdline;");
    let daemon = place.start_after(&boot, "--policy $PLACE/p.yaml");
    let halves = ask(daemon.client.status()).unwrap().halves;
    assert_eq!((halves.network.state, halves.host.state), (State::Off, State::Off));
    assert!(halves.host.because.unwrap().contains("ringfence=off"));
    let pins = PathBuf::from(format!("/proc/{}/root/sys/fs/bpf/ringfence/v1", daemon.child.id()));
    assert!(!pins.exists(), "what an earlier daemon left is gone");
    assert_eq!(code(ask(daemon.client.on())), ErrorCode::No);
}

#[test]
fn the_api_end_to_end() {
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    assert_eq!(fs::metadata(place.path("socket")).unwrap().permissions().mode() & 0o777, 0o660);
    let status = ask(client.status()).unwrap();
    assert_eq!((status.generation, status.halves.network.state), (None, State::Unused));

    // Applied, again without a change, changed.
    let answer = ask(client.apply(&texts(&policy(WEB)))).unwrap();
    assert_eq!(answer.generation, Some(1));
    assert_eq!(answer.diff.rules.len(), 3);
    let again = ask(client.apply(&texts(&policy(WEB)))).unwrap();
    assert_eq!((again.generation, again.diff.rules.len()), (Some(1), 0));
    let status = ask(client.status()).unwrap();
    assert_eq!((status.generation, status.halves.network.state), (Some(1), State::Enforced), "{status:?}");
    assert_eq!(status.halves.network.hooks[0].interface.as_deref(), Some("one"));
    let more = format!("{}      - accept: {{proto: udp, port: 53}}\n        name: dns\n", policy(WEB));
    assert_eq!(ask(client.apply(&texts(&more))).unwrap().generation, Some(2));
    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    let names: Vec<&str> = rules.iter().filter(|line| line.file.is_some()).map(|line| line.name.as_str()).collect();
    assert!(names.contains(&"web") && names.contains(&"dns"), "{names:?}");

    // Refused, and nothing changes.
    assert_eq!(code(ask(client.apply(&texts("ringfence: 1\nnetwork: 3\n")))), ErrorCode::BadInput);
    assert_eq!(ask(client.status()).unwrap().generation, Some(2));

    // Unconfirmed, it goes by itself.
    let unconfirmed = ApplyRequest { confirm_seconds: Some(2), ..texts(&policy("")) };
    let answer = ask(client.apply(&unconfirmed)).unwrap();
    assert_eq!(answer.pending.unwrap().previous, Some(2));
    assert_eq!(code(ask(client.apply(&texts(&policy(WEB))))), ErrorCode::No);
    let end = Instant::now() + PATIENCE;
    while ask(client.status()).unwrap().generation != Some(2) {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(50));
    }
    assert_eq!(code(ask(client.confirm(GenerationRequest::default()))), ErrorCode::No);
    // Confirmed, it stays; and a rollback goes back.
    ask(client.apply(&unconfirmed)).unwrap();
    let number = ask(client.confirm(GenerationRequest::default())).unwrap().generation;
    assert_eq!(ask(client.rollback(GenerationRequest::default())).unwrap().generation, 2);
    assert_eq!(ask(client.rollback(GenerationRequest::default())).unwrap().generation, number);
    assert_eq!(ask(client.rollback(GenerationRequest { generation: Some(1), force: false })).unwrap().generation, 1);
    assert_eq!(code(ask(client.rollback(GenerationRequest { generation: Some(99), force: false }))), ErrorCode::No);
    let text = ask(client.generation("running")).unwrap();
    assert_eq!(text.texts[0].text, policy(WEB));

    entries_and_sets(client);

    ask(client.off()).unwrap();
    let status = ask(client.status()).unwrap();
    assert_eq!(status.halves.network.state, State::Off);
    assert_eq!(code(ask(client.apply(&texts(&more)))), ErrorCode::No);
    assert_eq!(ask(client.on()).unwrap().generation, 1);
    assert_eq!(ask(client.status()).unwrap().halves.network.state, State::Enforced);
}

fn entries_and_sets(client: &Client) {
    let deny = |what: &str| EntryRequest {
        verb: EntryVerb::Deny,
        what: address(what).into(),
        direction: ringfence_api::Direction::In,
        for_seconds: None,
        reason: None,
        force: false,
        all_ports: false,
    };
    let entry = ask(client.add_entry(&deny("203.0.113.5"))).unwrap();
    assert_eq!(code(ask(client.add_entry(&deny("127.0.0.1")))), ErrorCode::NeedsForce);
    let allow = EntryRequest { verb: EntryVerb::Allow, ..deny("203.0.113.5") };
    assert_eq!(code(ask(client.add_entry(&allow))), ErrorCode::BadInput);
    let newer = ask(client.add_entry(&EntryRequest { all_ports: true, ..allow })).unwrap();
    assert!(newer.id > entry.id);
    ask(client.add_entry(&EntryRequest { for_seconds: Some(1), ..deny("203.0.113.6") })).unwrap();
    sleep(Duration::from_millis(1500));
    let list = ask(client.entries()).unwrap();
    assert_eq!(list.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [newer.id, entry.id]);
    assert_eq!(ask(client.undo(UndoRequest::What(address("203.0.113.5")))).unwrap().entries.len(), 2);
    assert_eq!(code(ask(client.undo(UndoRequest::Id(entry.id)))), ErrorCode::No);

    let elements = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(|text| text.parse().unwrap()).to_vec();
    let add = SetRequest::Add { elements: elements.clone(), timed: Vec::new(), for_seconds: None, reason: None };
    let answer = ask(client.change_set("jail", &add)).unwrap();
    assert_eq!((answer.done, answer.refused.len()), (3, 1), "the set has room for three");
    let set = ask(client.set("jail", ringfence_api::SetQuery::default())).unwrap();
    assert_eq!((set.size, set.capacity, set.timeout_seconds), (3, 3, Some(3600)));
    let answer = ask(client.change_set("jail", &SetRequest::Del { elements })).unwrap();
    assert_eq!((answer.done, answer.missing), (3, 1));
    assert_eq!(code(ask(client.change_set("nosuch", &SetRequest::Flush))), ErrorCode::BadInput);
}

#[test]
fn only_root_and_the_group_may_ask() {
    let place = Place::new();
    let _daemon = place.start("");
    // Anybody who gets to the socket all the same is told no, by his credentials.
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.path("socket"), fs::Permissions::from_mode(0o666)).unwrap();
    let get = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        command.args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
        command.arg(place.path("socket")).arg("http://x/v1/status");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(get("0"), "200");
    assert_eq!(get("65534"), "403");
}

#[test]
fn the_state_is_roots_alone() {
    let place = Place::new();
    let daemon = place.start("");
    ask(daemon.client.apply(&texts(&policy(WEB)))).unwrap();
    let mut open = Vec::new();
    let mut todo = vec![place.path("state")];
    while let Some(path) = todo.pop() {
        let meta = fs::metadata(&path).unwrap();
        if meta.permissions().mode() & 0o077 != 0 {
            open.push(path.clone());
        }
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert_eq!(open, Vec::<PathBuf>::new());
    capabilities_are_dropped(daemon.child.id());
}

const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn capabilities_are_dropped(pid: u32) {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let effective = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert_eq!(effective & (CAP_SYS_ADMIN | CAP_DAC_OVERRIDE), 0, "{effective:x}");
    assert_ne!(effective & CAP_NET_ADMIN, 0);
    assert_eq!(field("NoNewPrivs:"), "1");
}

/// Packets that the ingress floor let through: neighbour discovery and listener reports, which a link sends by itself.
fn floor_packets(client: &Client) -> u64 {
    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    rules
        .iter()
        .filter(|line| line.chain == "ingress" && line.name.starts_with("floor/"))
        .map(|line| line.packets)
        .sum()
}

#[test]
fn counts_survive_an_apply_a_rollback_and_off_but_not_a_reset() {
    const ENOUGH: u64 = 12;
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    ask(client.apply(&texts(&policy(WEB)))).unwrap();
    let end = Instant::now() + PATIENCE;
    while floor_packets(client) < ENOUGH {
        assert!(Instant::now() < end, "the link is silent");
        for state in ["down", "up"] {
            let pid = daemon.child.id().to_string();
            let set = ["-t", &pid, "-n", "ip", "link", "set", "two", state];
            assert!(Command::new("nsenter").args(set).status().unwrap().success());
        }
        sleep(Duration::from_millis(300));
    }
    let before = floor_packets(client);
    ask(client.apply(&texts(&policy("")))).unwrap();
    assert!(floor_packets(client) >= before);
    ask(client.rollback(GenerationRequest::default())).unwrap();
    assert!(floor_packets(client) >= before);
    assert!(floor_packets(client) < 2 * before, "carried once, not twice");
    ask(client.off()).unwrap();
    ask(client.on()).unwrap();
    assert!(floor_packets(client) >= before);
    ask(client.rules(RulesQuery { reset: true })).unwrap();
    assert!(floor_packets(client) < before);
}
