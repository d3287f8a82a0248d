//! The path automaton by itself.

use ringfence_abi::host::{LEAF_ABSENT, LEAF_TRUSTED, LEAF_UNKNOWN, field};
use ringfence_engine::{host::automaton::Walk, slice::SliceTables};

use crate::{
    compile::{CompileError, CompiledHost, PathKind, compile},
    generate::{self, Random},
    model::{HostChain, HostMatch, HostRule, Location, ObjectPath, PathGlob, PathMatch, Policy, Verdict},
    oracle::glob_matches,
};

fn globs(list: &[&str]) -> Vec<PathGlob> {
    list.iter().map(|text| PathGlob::Path((*text).to_owned())).collect()
}

pub(super) fn rule(verdict: Verdict, any_of: Option<&[&str]>, none_of: &[&str]) -> HostRule {
    HostRule {
        name: "rule".to_owned(),
        named: true,
        at: Location { file: 0, line: 1, column: 1 },
        verdict,
        audit: false,
        matches: HostMatch {
            ops: u32::MAX >> 3,
            path: vec![PathMatch { any_of: any_of.map(globs), none_of: globs(none_of) }],
            ..HostMatch::default()
        },
    }
}

pub(super) fn policy(rules: Vec<HostRule>) -> Policy {
    Policy { host: HostChain { implicit: false, rules, ..HostChain::implicit() }, ..Policy::empty() }
}

/// For each rule whether it accepts the class; the chain has at most 64 rules.
fn accepting(host: &CompiledHost, class: u32) -> u64 {
    let at = (host.consts.chain.rows[field::PATH] + class * 8) as usize;
    u64::from_le_bytes(host.arena[at..at + 8].try_into().unwrap())
}

fn touches(host: &CompiledHost, directory: &str) -> u64 {
    accepting(host, host.leaf_record(host.leaf_below(PathKind::Host, directory.as_bytes())).path)
}

#[test]
fn a_directory_touches_what_lies_below_it() {
    let rules = vec![
        rule(Verdict::Drop, Some(&["/etc/shadow"]), &[]),
        rule(Verdict::Drop, Some(&["/home/*/.ssh/**"]), &[]),
        rule(Verdict::Accept, Some(&["/etc/shadow"]), &[]),
        rule(Verdict::Drop, Some(&["/srv/**"]), &["/srv/open/**"]),
        rule(Verdict::Drop, None, &["/tmp/x"]),
        rule(Verdict::Drop, Some(&["**/key"]), &[]),
    ];
    let host = compile(&policy(rules)).unwrap().host;
    // Of `**/key` nothing: it names a file wherever that is moved.
    let always = 0b01_0000;
    assert_eq!(touches(&host, "/etc"), always | 0b1, "the deny below, not the allow");
    assert_eq!(touches(&host, "/"), always | 0b1011);
    assert_eq!(touches(&host, "/home/ann"), always | 0b10);
    assert_eq!(touches(&host, "/home/ann/.ssh"), always | 0b10);
    assert_eq!(touches(&host, "/home/ann/mail"), always);
    assert_eq!(touches(&host, "/srv"), always | 0b1000);
    assert_eq!(touches(&host, "/srv/open"), always, "the exclusion covers all of it");
    assert_eq!(touches(&host, "/srv/other"), always | 0b1000);
    assert_eq!(touches(&host, "/tmp/x"), always, "what lies below the excluded name is not excluded");
    assert_eq!(accepting(&host, host.leaf_record(host.leaf(PathKind::Host, b"/tmp/x")).path) & 0b1_0000, 0);
}

#[test]
fn absent_and_unknown_have_their_classes() {
    let rules = vec![rule(Verdict::Drop, Some(&["/a"]), &[]), rule(Verdict::Accept, None, &["/a"])];
    let host = compile(&policy(rules)).unwrap().host;
    assert_eq!(accepting(&host, host.leaf_record(LEAF_ABSENT).path), 0);
    assert_eq!(accepting(&host, host.leaf_record(LEAF_UNKNOWN).path), 0b01);
    assert_eq!(accepting(&host, host.leaf_record(host.leaf(PathKind::Host, b"/a")).path), 0b01);
    assert_eq!(accepting(&host, host.leaf_record(host.leaf(PathKind::Host, b"/b")).path), 0b10);
}

#[test]
fn a_walk_can_be_kept_at_a_directory_and_taken_up_again() {
    let host = compile(&policy(vec![rule(Verdict::Drop, Some(&["/a/**", "/a/b/c"]), &[])])).unwrap().host;
    let (paths, tables) = (&host.consts.paths, SliceTables(&host.arena));
    let mut walk = Walk::start(paths, &tables, paths.host).unwrap();
    for component in ["/a", "/b", "/c"] {
        component.bytes().for_each(|byte| walk.step(paths, &tables, byte).unwrap());
        walk.arrive(paths, &tables).unwrap();
        // What a directory keeps: state and trees.
        walk = Walk { state: walk.state, trees: walk.trees };
    }
    assert_eq!(walk.leaf(paths, &tables), Some(host.leaf(PathKind::Host, b"/a/b/c")));
}

#[test]
fn system_libraries_are_trusted() {
    let host = compile(&Policy::empty()).unwrap().host;
    let trusted = |path: &str| host.leaf_record(host.leaf(PathKind::Host, path.as_bytes())).flags & LEAF_TRUSTED != 0;
    assert!(trusted("/usr/lib/x86_64-linux-gnu/libc.so.6") && !trusted("/tmp/evil.so") && !trusted("/usrlocal/x"));
    let foreign = host.leaf(PathKind::Foreign, b"/usr/lib/libc.so.6");
    assert_eq!(host.leaf_record(foreign).flags & LEAF_TRUSTED, 0, "of another mount namespace");
}

#[test]
fn every_pattern_matches_as_the_naive_matcher_says() {
    let mut matched = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut rules = generate::policy(&mut random).host.rules;
        // One position a rule, and few enough for rows of one word.
        rules.truncate(40);
        for rule in &mut rules {
            rule.matches.kind.clear();
        }
        let host = compile(&policy(rules.clone())).unwrap().host;
        for _ in 0..40 {
            let Some(object) = generate::access(&mut random).path else { continue };
            let leaf = match &object {
                ObjectPath::Host(path) => host.leaf(PathKind::Host, path.as_bytes()),
                ObjectPath::Foreign(path) => host.leaf(PathKind::Foreign, path.as_bytes()),
                ObjectPath::Abstract(name) => host.leaf(PathKind::Abstract, name.as_bytes()),
                ObjectPath::Unknown => continue,
            };
            assert_ne!(leaf, LEAF_UNKNOWN, "seed {seed}: {object:?} fell out of the tables");
            if host.consts.chain.active >> field::PATH & 1 == 0 {
                continue;
            }
            let class = accepting(&host, host.leaf_record(leaf).path);
            for (position, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.matches.path.is_empty()) {
                let any = |list: &[PathGlob]| list.iter().any(|glob| glob_matches(glob, &object));
                let holds = |one: &PathMatch| one.any_of.as_deref().is_none_or(any) && !any(&one.none_of);
                let expected = rule.matches.path.iter().all(holds);
                assert_eq!(class >> position & 1 == 1, expected, "seed {seed}: {object:?} and {:?}", rule.matches.path);
                matched += u32::from(expected);
            }
        }
    }
    assert!(matched > 2000, "{matched}");
}

const TOPS: [&str; 6] = ["/etc", "/usr/lib", "/var/lib", "/opt", "/srv/www", "/home/*"];

/// Ten thousand rules with a pattern each.
fn ten_thousand(text: impl Fn(usize, &str) -> String) -> Vec<HostRule> {
    (0..10_000).map(|i| rule(Verdict::Drop, Some(&[&text(i, TOPS[i % TOPS.len()])]), &[])).collect()
}

/// As people write them.
fn ordinary() -> Vec<HostRule> {
    ten_thousand(|i, top| match i % 10 {
        0 => format!("{top}/package{i}/**"),
        1 => format!("{top}/conf.d/*-{i}.conf"),
        2 => format!("{top}/app{}/data/*/cache{i}", i % 97),
        3 => format!("{top}/{{a,b}}{i}/secret"),
        _ => format!("{top}/package{}/file-{i}.so.{}", i / 7, i % 13),
    })
}

/// How many classes the paths have.
fn classes(host: &CompiledHost) -> usize {
    host.classes.iter().find(|(number, _)| *number == field::PATH).unwrap().1
}

// What it takes to compile them is bounded in `tests/memory.rs`.
#[test]
fn ten_thousand_ordinary_patterns_fit() {
    let host = compile(&policy(ordinary())).unwrap().host;
    println!("10,000 patterns: {} KiB, {} classes of paths", host.arena.len() >> 10, classes(&host));
    assert!(host.arena.len() < 32 << 20 && classes(&host) < 20_000, "{} bytes", host.arena.len());
    let class = |path: &str| host.leaf_record(host.leaf(PathKind::Host, path.as_bytes())).path;
    assert_ne!(class("/etc/package0/deep/below"), 0);
    assert_eq!(class("/etc/package0x/deep"), 0);
}

#[test]
fn patterns_for_every_place_among_trees_fit() {
    // On one path a tree and a pattern for every place can meet, each with each: that is what there are classes for.
    let host = compile(&policy(ten_thousand(|i, top| match i {
        0..200 => format!("**/secret-{i}.key"),
        200..300 => format!("{top}/tree{i}/**"),
        _ => format!("/data/package{}/file-{i}", i / 7),
    })))
    .unwrap()
    .host;
    println!("200 x 100: {} KiB, {} classes of paths", host.arena.len() >> 10, classes(&host));
    assert!(host.arena.len() < 32 << 20 && classes(&host) < 40_000, "{} bytes", host.arena.len());
    let class = |path: &str| host.leaf_record(host.leaf(PathKind::Host, path.as_bytes())).path;
    let (tree, both) = (class("/usr/lib/tree205/x"), class("/opt/tree201/etc/secret-7.key"));
    assert!(tree != 0 && both != 0 && both != tree && both != class("/opt/tree207/secret-7.key"));
    assert_eq!(both, class("/opt/tree201/secret-7.key"));
}

#[test]
fn patterns_that_blow_up_are_refused_by_name() {
    // How the first that is named begins, how many there are, and each of them.
    type Explosion<'a> = (&'a str, usize, &'a dyn Fn(usize) -> String);
    // Which of the last 24 characters were an `a` is 2^24 states.
    let window = format!("/x/*a{}", "?".repeat(24));
    let explosions: [Explosion<'_>; 4] = [
        ("/x/*a?", 1, &|_| window.clone()),
        // The parts of each can come in any order with those of the others.
        ("**/a", 300, &|i| format!("**/a{i}*b*c*d*/**/e?f{i}")),
        // Below some of these directories: any subset of them.
        ("**/dir", 300, &|i| format!("**/dir{i}/**")),
        // Each pattern for every place can lie in each of the trees.
        ("**/x", 4000, &|i| if i % 8 == 0 { format!("**/x{i}") } else { format!("/srv/tree{i}/**") }),
    ];
    for (blamed, count, text) in explosions {
        let mut rules = ordinary();
        rules.truncate(50);
        let explosive = |i| HostRule {
            name: format!("explosive-{i}"),
            at: Location { file: 0, line: 100 + i as u32, column: 1 },
            ..rule(Verdict::Drop, Some(&[&text(i)]), &[])
        };
        rules.extend((0..count).map(explosive));
        let Err(error) = compile(&policy(rules)) else { panic!("{blamed} compiled") };
        let CompileError::PatternsTooLarge { patterns, rule, .. } = &error else { panic!("{error}") };
        assert!(patterns.starts_with(&format!("`{blamed}")), "{error}");
        assert!(rule.starts_with("explosive-") && error.at().unwrap().line >= 100, "{error}");
    }
}
