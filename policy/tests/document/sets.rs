use ringfence_policy::model::{DynamicKind, WhenFull};

use super::{accepts, refuses, warns};

fn with_sets(sets: &str, from: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n{sets}network:\n  ingress: {{default: accept, rules: [{{drop: {{from: {from}}}}}]}}\n"
    )
}

#[test]
fn sets_nest_and_share() {
    let loaded = accepts(&with_sets(
        "  a: [10.0.0.0/8]\n  b: [$a, \"2001:db8::/32\", $jail]\n  jail: {dynamic: true}\n  one: 10.0.0.1\n",
        "[$b, $a, $one]",
    ));
    let chain = loaded.policy.ingress.unwrap();
    let list = chain.rules[0].matches.from[0].any_of.as_ref().unwrap();
    assert_eq!((list.fixed.len(), list.dynamic.len()), (3, 1));
}

#[test]
fn dynamic_sets() {
    let loaded = accepts(&with_sets(
        "  z: {dynamic: true}\n  a: {dynamic: true, timeout: 1h, capacity: 10, full: evict-oldest, never: [$n, 10.9.0.1]}\n  n: [10.0.0.0/8]\n",
        "[$local, $z, $resolvers, $a]",
    ));
    let sets = &loaded.policy.dynamic_sets;
    let names: Vec<_> = sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["a", "z", "local", "resolvers"]);
    let DynamicKind::Declared { timeout, capacity, full, never } = &sets[0].kind else { panic!("{:?}", sets[0]) };
    assert_eq!((*timeout, *capacity, *full), (Some(3600), 10, WhenFull::EvictOldest));
    assert!(never.contains("10.0.0.1".parse().unwrap()));
    let chain = loaded.policy.ingress.unwrap();
    let ids: Vec<u16> = chain.rules[0].matches.from[0].any_of.as_ref().unwrap().dynamic.iter().map(|id| id.0).collect();
    assert_eq!(
        {
            let mut ids = ids;
            ids.sort_unstable();
            ids
        },
        [0, 1, 2, 3]
    );
}

#[test]
fn mistakes_in_sets() {
    for (sets, fragment) in [
        ("  a: [10.0.0.1, 80]\n", "ports in a set that begins with addresses"),
        ("  a: [80, /etc]\n", "paths in a set that begins with ports"),
        ("  a: [sssh]\n", "did you mean `ssh`?"),
        ("  a: [$b]\n  b: [$a]\n", "contains itself"),
        ("  a: [$a]\n", "contains itself"),
        ("  a: [$x]\n", "there is no set `$x`"),
        ("  a: []\n", "an empty list"),
        ("  a: {}\n", "an empty mapping"),
        ("  a:\n", "`a` has no value"),
        ("  a: [{not: 10.0.0.1}]\n", "sets are not negated"),
        ("  local: [10.0.0.1]\n", "is a built-in set"),
        ("  \"a b\": [10.0.0.1]\n", "is not a name"),
        ("  a: {optional: true}\n", "neither values nor `file:`"),
        ("  a: {fiel: x}\n", "did you mean `file`?"),
        ("  a: {file: /nonexistent/x}\n", "no such file"),
        ("  a: {dynamic: false}\n", "means nothing"),
        ("  a: {dynamic: true, file: x}\n", "one or the other"),
        ("  a: {dynamic: true, timout: 1h}\n", "did you mean `timeout`?"),
        ("  a: {dynamic: true, timeout: 1x}\n", "expected a duration"),
        ("  a: {dynamic: true, timeout: 0s}\n", "out of range, 1 second"),
        ("  a: {dynamic: true, timeout: 9999w}\n", "out of range, 1 second"),
        ("  a: {dynamic: true, capacity: 0}\n", "would stay empty"),
        ("  a: {dynamic: true, capacity: 4000001}\n", "the largest is 4000000"),
        ("  a: {dynamic: true, full: drop}\n", "unknown value of `full`"),
        ("  a: {dynamic: true, never: $local}\n", "static addresses"),
        ("  a: {dynamic: true, never: 80}\n", "takes addresses, found ports"),
        ("  a: {dynamic: true, never: {a: b}}\n", "found a mapping"),
    ] {
        refuses(&with_sets(sets, "10.0.0.1"), fragment);
    }
    warns(&with_sets("  a: [10.0.0.1]\n", "10.0.0.2"), "the set `a` is not used");
}

#[test]
fn limits_on_their_number() {
    let many = |count: usize, value: &str| (0..count).map(|i| format!("  s{i}: {value}\n")).collect::<String>();
    accepts(&with_sets(&many(1000, "[10.0.0.1]"), "$s1"));
    refuses(&with_sets(&many(1001, "[10.0.0.1]"), "$s1"), "1001 sets, the limit is 1000");
    accepts(&with_sets(&many(64, "{dynamic: true}"), "$s1"));
    refuses(&with_sets(&many(65, "{dynamic: true}"), "$s1"), "more than 64 dynamic sets");
    accepts(&with_sets(&many(63, "{dynamic: true}"), "$local"));
    refuses(&with_sets(&many(64, "{dynamic: true}"), "$local"), "65 dynamic sets");
}
