//! The host half in the daemon's process, as far as it shows on a kernel that may or may not have security hooks.

#![expect(clippy::unwrap_used, reason = "helpers of tests: to fail is to say so")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use ringfence_api::{
    Client, ClientError, EntryRequest, EntryVerb, ErrorCode, GenerationRequest, RulesQuery, State, UndoRequest,
};

use self::support::{KILLED, Place, WEB, address, ask, code, policy, stderr, texts};

const HOST: &str = "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {op: read, path: /nowhere/secret, uid: {not: 0}}\n      name: secret\n";

/// Whether this machine's kernel attaches programs to security hooks.
fn kernel_has_hooks(client: &Client) -> bool {
    let host = ask(client.status()).unwrap().halves.host;
    !host.because.is_some_and(|because| because.contains("unavailable"))
}

#[test]
fn a_host_half_that_this_kernel_cannot_enforce_is_said_and_not_in_the_way() {
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    let hooks = kernel_has_hooks(client);
    let both = format!("{}{}", policy(WEB), HOST.strip_prefix("ringfence: 1\n").unwrap());
    let answer = ask(client.apply(&texts(&both))).unwrap();
    assert_eq!(answer.generation, Some(1));
    let warned =
        answer.warnings.iter().any(|warning| warning.message.contains("will not enforce") && warning.help.is_some());
    assert_eq!(warned, !hooks, "{:?}", answer.warnings);
    let status = ask(client.status()).unwrap();
    assert_eq!(status.halves.network.state, State::Enforced);
    let expected = if hooks { State::Enforced } else { State::Unavailable };
    assert_eq!(status.halves.host.state, expected, "{:?}", status.halves.host);
    assert_eq!(status.halves.host.because.is_some(), !hooks);

    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    let line = rules.iter().find(|line| line.name == "secret").unwrap();
    assert_eq!((line.half.as_str(), line.chain.as_str(), line.verb.as_str()), ("host", "host", "deny"));
    let names =
        |half: &str| rules.iter().filter(|line| line.half == half).map(|line| line.name.as_str()).collect::<Vec<_>>();
    assert!(names("host").contains(&"unknown/depth") && names("host").contains(&"default"), "{:?}", names("host"));

    // History and rollback take both halves along.
    let answer = ask(client.apply(&texts(&policy(WEB)))).unwrap();
    let removed: Vec<&str> = answer.diff.rules.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(removed, ["default", "secret"]);
    assert_eq!(ask(client.status()).unwrap().halves.host.state, State::Unused);
    assert!(ask(client.rules(RulesQuery::default())).unwrap().iter().all(|line| line.half == "network"));
    assert_eq!(ask(client.rollback(GenerationRequest::default())).unwrap().generation, 1);
    assert_eq!(ask(client.status()).unwrap().halves.host.state, expected);
    drop(daemon);
    assert_eq!(place.once("--require host").status.code() == Some(3), !hooks);
}

fn calls(path: &str, op: &[&str]) -> EntryRequest {
    let op = op.iter().map(|&word| word.to_owned()).collect();
    EntryRequest {
        verb: EntryVerb::Deny,
        what: ringfence_api::What::Calls(ringfence_api::Calls { path: path.into(), op, exe: None, uid: Some(4711) }),
        direction: ringfence_api::Direction::In,
        for_seconds: None,
        reason: Some("test".into()),
        force: false,
        all_ports: false,
    }
}

#[test]
fn entries_about_paths_are_kept_listed_and_undone_with_ids_of_their_own() {
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    let refused = |request: &EntryRequest| code(ask(client.add_entry(request)));
    assert_eq!(refused(&calls("/nowhere/x", &["reed"])), ErrorCode::BadInput);
    assert_eq!(refused(&calls("nowhere", &["read"])), ErrorCode::BadInput);
    assert_eq!(refused(&calls("/nowhere/x", &["read"])), ErrorCode::No, "there is no policy to be judged by");
    ask(client.apply(&texts(&policy(WEB)))).unwrap();
    if !kernel_has_hooks(client) {
        assert_eq!(refused(&calls("/nowhere/x", &["read"])), ErrorCode::Kernel);
    }
    // While off, they are kept for later, on every kernel.
    ask(client.off()).unwrap();
    let target: ringfence_api::What = address("203.0.113.5").into();
    let packets = ask(client.add_entry(&EntryRequest { what: target, ..calls("/x", &["read"]) })).unwrap();
    let first = ask(client.add_entry(&calls("/nowhere/x/**", &["read", "write"]))).unwrap();
    let timed = EntryRequest { for_seconds: Some(1), ..calls("/nowhere/y", &["exec"]) };
    let second = ask(client.add_entry(&timed)).unwrap();
    assert!(packets.id < first.id && first.id < second.id);
    assert_eq!(first.rule(), "host: deny: {op: [read, write], path: \"/nowhere/x/**\", uid: 4711}");
    sleep(Duration::from_millis(1500));
    let ids = |client: &Client| ask(client.entries()).unwrap().entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(client), [first.id, packets.id]);

    drop(daemon);
    let daemon = place.start("");
    let client = &daemon.client;
    assert_eq!(ids(client), [first.id, packets.id], "they survive the daemon");
    let undone = ask(client.undo(UndoRequest::Path("/nowhere/x/**".into()))).unwrap();
    assert_eq!(undone.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first.id]);
    assert_eq!(code(ask(client.undo(UndoRequest::Path("/nowhere/x/**".into())))), ErrorCode::No);
    assert_eq!(ids(client), [packets.id]);
}

#[test]
fn off_without_a_daemon_removes_the_pins_and_is_remembered() {
    let place = Place::new();
    place.write("p.yaml", &policy(WEB));
    let script = format!("{KILLED} $RINGFENCED --off --state-dir $PLACE/state; ls -A /sys/fs/bpf");
    let output = place.shell(&script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("v1"), "{output:?}");
    let standing = fs::read_to_string(place.path("state").join("standing.json")).unwrap();
    assert!(standing.contains("\"off\":true"), "{standing}");
}

/// A cgroup that goes with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2")?;
        let path = Path::new(root[1]).join(format!("ringfence-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn connect_is_refused_at_a_cgroup_where_there_are_no_security_hooks() {
    let cgroup = Cgroup::new("connect").expect("a cgroup2 file system");
    let place = Place::new();
    let daemon = place.start(&format!("--cgroup {}", cgroup.0.display()));
    let client = &daemon.client;
    if kernel_has_hooks(client) {
        // There the hooks judge, which the tests in virtual machines look at.
        return;
    }
    // Nobody listens: who is let through is refused by the other end.
    let connect = |port: u16| {
        let script = format!("echo $$ > {}/cgroup.procs; exec curl -sv http://127.0.0.1:{port}/", cgroup.0.display());
        let mut command = Command::new("nsenter");
        command.args(["-t", &daemon.child.id().to_string(), "-n", "sh", "-c", &script]);
        stderr(&command.output().unwrap())
    };
    rules_by_executable(client, &connect);
    let rule = |port: u16| {
        let host = format!(
            "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {{op: connect, to: 127.0.0.1, port: {port}}}\n      name: no-{port}\n"
        );
        assert!(ask(client.apply(&texts(&host))).unwrap().warnings.is_empty());
    };
    let hits = |name: &str| {
        let rules = ask(client.rules(RulesQuery::default())).unwrap();
        rules.iter().find(|line| line.name == name).unwrap().hits
    };
    rule(9);
    assert!(connect(9).contains("not permitted"), "{}", connect(9));
    assert!(connect(10).contains("refused"), "{}", connect(10));
    assert!(hits("no-9") >= 1);
    let half = ask(client.status()).unwrap().halves.host;
    assert_eq!(half.state, State::Degraded);
    let hook = half.hooks.iter().find(|hook| hook.hook == "cg_connect4").unwrap();
    assert_eq!((hook.state, hook.how.as_deref()), (State::Degraded, Some("cgroup")));
    assert!(hook.because.is_some() && hook.remedy.is_some());

    // Another generation, audit, and off.
    rule(10);
    assert!(connect(9).contains("refused") && connect(10).contains("not permitted"));
    let audit = ringfence_api::ModeRequest { mode: ringfence_api::Mode::Audit, for_seconds: None };
    ask(client.mode(audit)).unwrap();
    let before = hits("no-10");
    assert!(connect(10).contains("refused"));
    assert!(hits("no-10") > before, "counted and let go");
    ask(client.mode(ringfence_api::ModeRequest { mode: ringfence_api::Mode::Enforce, ..audit })).unwrap();
    assert!(connect(10).contains("not permitted"));
    ask(client.off()).unwrap();
    assert!(connect(10).contains("refused"));
}

/// What programs at a cgroup cannot tell is neither refused nor kept quiet.
fn rules_by_executable(client: &Client, connect: &dyn Fn(u16) -> String) {
    let host = "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {op: connect, port: 9, exe: /nowhere}\n      name: by-exe\n    - allow: {op: connect, port: 10, gid: 4711}\n      name: by-gid\n    - deny: {op: connect, port: 9-11}\n      name: all\n    - deny: {op: connect, path: /run/x}\n      name: socket\n";
    let warnings = ask(client.apply(&texts(host))).unwrap().warnings;
    let ours = warnings.iter().filter(|warning| warning.message.contains("not enforced as written"));
    let places: Vec<_> = ours.map(|warning| (warning.file.as_str(), warning.line)).collect();
    assert_eq!(places, [("p.yaml", Some(5)), ("p.yaml", Some(7)), ("p.yaml", Some(11))], "{warnings:?}");
    assert!(connect(9).contains("not permitted"), "by the rule that can be judged: {}", connect(9));
    assert!(connect(10).contains("refused"), "somebody is let through, so everybody is: {}", connect(10));
    assert!(connect(11).contains("not permitted"), "{}", connect(11));
    let half = ask(client.status()).unwrap().halves.host;
    assert_eq!(half.state, State::Degraded);
    assert!(half.because.unwrap().contains("EPERM"));
    let left_out: Vec<_> = half.left_out.iter().map(|one| (one.rule.as_str(), one.line)).collect();
    assert_eq!(left_out, [("by-exe", 5), ("by-gid", 7), ("socket", 11)]);
    assert!(half.left_out.iter().all(|one| one.file == "p.yaml" && one.remedy.is_some()));
    assert!(half.left_out[0].because.contains("`exe`") && half.left_out[1].because.contains("every caller"));
    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    let hits = |name: &str| rules.iter().find(|line| line.name == name).unwrap().hits;
    assert_eq!((hits("by-exe"), hits("by-gid"), hits("socket")), (0, 0, 0));
    assert!(hits("unjudged/by-gid") > 0 && hits("all") > 1);
    let access = ringfence_api::Access {
        op: "connect".into(),
        exe: Some("/nowhere".into()),
        to: Some([127, 0, 0, 1].into()),
        port: Some(9),
        proto: Some(6),
        family: Some(2),
        ..ringfence_api::Access::default()
    };
    let told = ask(client.explain_access(&ringfence_api::AccessRequest { access, pid: None })).unwrap();
    assert_eq!((told.verdict.as_str(), told.rule.as_str()), ("deny", "all"));
    assert!(told.considered[0].because.contains("cannot tell"), "{:?}", told.considered);

    // Where nothing is left that can be judged, nothing is attached, and that is no success.
    let alone = host.split("    - allow").next().unwrap();
    ask(client.apply(&texts(alone))).unwrap();
    let half = ask(client.status()).unwrap().halves.host;
    assert_eq!((half.state, half.left_out.len()), (State::Unavailable, 1), "{half:?}");
    assert!(connect(9).contains("refused"));
}

#[test]
fn calls_are_explained_by_the_programs_themselves() {
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    let request = |uid: u32, pid: Option<u32>| {
        let access = ringfence_api::Access {
            op: "read".into(),
            path: Some("/nowhere/secret".into()),
            uid: Some(uid),
            ..ringfence_api::Access::default()
        };
        ringfence_api::AccessRequest { access, pid }
    };
    assert_eq!(code(ask(client.explain_access(&request(1000, None)))), ErrorCode::No, "nothing is in force");
    ask(client.apply(&texts(HOST))).unwrap();
    let told = ask(client.explain_access(&request(1000, None))).unwrap();
    assert_eq!((told.verdict.as_str(), told.rule.as_str(), told.line), ("deny", "secret", Some(5)));
    assert_eq!(told.considered.last().map(|last| (last.rule.as_str(), last.matched)), Some(("secret", true)));
    let told = ask(client.explain_access(&request(0, Some(std::process::id())))).unwrap();
    assert_eq!((told.verdict.as_str(), told.rule.as_str()), ("allow", "default"));
    assert!(!told.considered[0].matched && told.considered[0].because.starts_with("uid"), "{:?}", told.considered);
    ask(client.mode(ringfence_api::ModeRequest { mode: ringfence_api::Mode::Audit, for_seconds: None })).unwrap();
    assert_eq!(ask(client.explain_access(&request(1000, None))).unwrap().verdict, "would-deny");
    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    assert!(rules.iter().all(|line| line.half != "host" || line.hits == 0), "questions are not counted");
}

#[test]
fn what_locks_out_needs_force_and_protect_self_brings_its_rules() {
    let place = Place::new();
    let daemon = place.start("");
    let client = &daemon.client;
    let shut = texts(&HOST.replace("op: read, path: /nowhere/secret, uid: {not: 0}", "op: exec, path: \"/usr/**\""));
    let error = match ask(client.apply(&shut)).unwrap_err() {
        ClientError::Refused(body) => body,
        other => panic!("{other}"),
    };
    assert_eq!(error.code, ErrorCode::NeedsForce);
    assert!(error.message.contains("root could not log in: `secret`"), "{}", error.message);
    // A policy that only audits locks nothing out.
    let audited = texts(&HOST.replace("ringfence: 1", "ringfence: 1\nmode: audit").replace("/nowhere/secret", "/**"));
    ask(client.apply(&audited)).unwrap();

    let protected = texts(&HOST.replace("default: allow", "default: allow\n  protect_self: true"));
    ask(client.apply(&protected)).unwrap();
    let rules = ask(client.rules(RulesQuery::default())).unwrap();
    let names: Vec<&str> = rules.iter().map(|line| line.name.as_str()).collect();
    assert!(
        ["protected/state", "protected/pins", "protected/policy"].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    let told = |exe: &str| {
        let path = place.path("state").join("standing.json");
        let access = ringfence_api::Access {
            op: "delete".into(),
            path: Some(fs::canonicalize(path).unwrap().display().to_string()),
            exe: Some(exe.to_owned()),
            ..ringfence_api::Access::default()
        };
        let told = ask(client.explain_access(&ringfence_api::AccessRequest { access, pid: None })).unwrap();
        (told.verdict, told.rule)
    };
    assert_eq!(told("/usr/bin/rm"), ("deny".to_owned(), "protected/state".to_owned()));
    assert_eq!(told(env!("CARGO_BIN_EXE_ringfenced")).0, "allow");
}
