//! Random host policies and accesses for differential tests: small alphabets, so that what is made overlaps.

use std::net::IpAddr;
use std::sync::Arc;

use ringfence_abi::host::op;

use crate::model::{
    Access, AddressList, AddressMatch, GidMatch, HostChain, HostMatch, HostRule, Location, Mode, NameMatch, ObjectPath,
    PathGlob, PathMatch, Policy, SocketKinds, SocketMatch, Verdict,
};
use crate::ranges::{AddressRanges, Ranges};

/// A stream of numbers (`SplitMix64`; Steele, Lea and Flood 2014): the same for one seed on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound.max(1))) as u32
    }

    fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize].clone()
    }

    fn some<T>(&mut self, most: u32, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, n: u32, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.once_in(n).then(|| make(self))
    }
}

const NAMES: [&str; 6] = ["a", "b", "ab", "etc", "x.conf", "srv"];
const WILD: [&str; 8] = ["*", "?", "a*", "*b", "[ab]", "[!a]*", "{a,etc}", "{x,a{b,}}*"];
const UNITS: [&str; 4] = ["a.service", "b.service", "a*.service", "srv.slice"];
const FSTYPES: [&str; 3] = ["ext4", "tmpfs", "overlay"];

/// A host policy.
#[must_use]
pub fn policy(random: &mut Random) -> Policy {
    let rules = match random.below(8) {
        0 => 70 + random.below(60),
        1..4 => random.below(4),
        _ => 3 + random.below(14),
    };
    // Few patterns that rules share: hundreds that overlap as these do would be refused as too large.
    let patterns: Vec<PathGlob> = (0..12).map(|_| glob(random)).collect();
    let ancestors = (0..3).map(|_| paths(random, 2, &patterns)).collect();
    let pool = Pool { patterns, ancestors };
    let mut continuing = 0;
    let rules = (0..rules).map(|index| rule(random, index, &pool, &mut continuing)).collect();
    let host = HostChain {
        implicit: false,
        default: random.pick(&[Verdict::Accept, Verdict::Drop]),
        default_at: Some(Location { file: 0, line: 1, column: 1 }),
        rules,
        protect_self: false,
    };
    let mode = random.pick(&[Mode::Enforce, Mode::Enforce, Mode::Audit]);
    Policy { mode, files: vec!["random.yaml".to_owned()], host, ..Policy::empty() }
}

/// What the rules of a policy choose from.
struct Pool {
    patterns: Vec<PathGlob>,
    ancestors: Vec<PathMatch>,
}

fn rule(random: &mut Random, index: u32, pool: &Pool, continuing: &mut u32) -> HostRule {
    let mut verdict =
        random.pick(&[Verdict::Accept, Verdict::Accept, Verdict::Drop, Verdict::Drop, Verdict::Drop, Verdict::Count]);
    let mut audit = verdict == Verdict::Drop && random.once_in(6);
    if audit || verdict == Verdict::Count {
        *continuing += 1;
        if *continuing > 32 {
            (verdict, audit) = (Verdict::Drop, false);
        }
    }
    HostRule {
        name: format!("rule{index}"),
        named: true,
        at: Location { file: 0, line: 2 + index, column: 7 },
        verdict,
        audit,
        matches: conditions(random, pool),
    }
}

fn conditions(random: &mut Random, pool: &Pool) -> HostMatch {
    let all = (1 << op::COUNT) - 1;
    HostMatch {
        ops: match random.below(4) {
            0 => all,
            1 => 1 << random.below(op::COUNT),
            2 => 0x1ff,
            _ => random.next() as u32 & all | 1,
        },
        path: several(random, 2, |random| paths(random, 4, &pool.patterns)),
        fstype: several(random, 9, names),
        anonymous: random.maybe(12, |random| random.once_in(2)),
        exe: several(random, 5, |random| paths(random, 3, &pool.patterns)),
        ancestor: several(random, 9, |random| random.pick(&pool.ancestors)),
        target: several(random, 12, |random| paths(random, 2, &pool.patterns)),
        uid: random.maybe(5, |random| numbers(random, 4, u32::MAX)),
        gid: several(random, 8, |random| GidMatch {
            any_of: random.maybe(2, |random| Ranges::new(vec![(random.below(2), 2)])),
            none_of: random.maybe(2, |random| Ranges::new(vec![(3, 3 + random.below(2))])).unwrap_or_default(),
        }),
        owner: random.maybe(10, |random| random.once_in(2)),
        auid: random.maybe(12, |random| {
            random.maybe(2, |_| Ranges::new(vec![(u32::MAX, u32::MAX)])).unwrap_or_else(|| numbers(random, 3, u32::MAX))
        }),
        cgroup: several(random, 6, cgroups),
        container: random.maybe(12, |random| random.once_in(2)),
        to: several(random, 9, addresses),
        port: random.maybe(12, |random| numbers(random, 5, 65_535)),
        proto: random.maybe(14, |random| numbers(random, 20, 255)),
        family: random.maybe(12, |random| numbers(random, 20, 255)),
        kind: several(random, 9, sockets),
        capability: random.maybe(14, |random| numbers(random, 6, 40)),
        signal: random.maybe(14, |random| numbers(random, 6, 64)),
    }
}

/// Mostly nothing, at times one, seldom two conditions.
fn several<T>(random: &mut Random, n: u32, mut make: impl FnMut(&mut Random) -> T) -> Vec<T> {
    let mut all = Vec::new();
    if random.once_in(n) {
        all.push(make(random));
        if random.once_in(8) {
            all.push(make(random));
        }
    }
    all
}

fn numbers(random: &mut Random, small: u32, max: u32) -> Ranges {
    let one = |random: &mut Random| {
        let low = random.below(small);
        (low, low + random.below(3))
    };
    let ranges = Ranges::new(random.some(2, one));
    if random.once_in(3) { ranges.complement(max) } else { ranges }
}

fn paths(random: &mut Random, most: u32, patterns: &[PathGlob]) -> PathMatch {
    let list = |random: &mut Random| random.some(most, |random| random.pick(patterns));
    match random.below(6) {
        0 => PathMatch { any_of: None, none_of: list(random) },
        1 => PathMatch { any_of: Some(list(random)), none_of: list(random) },
        _ => PathMatch { any_of: Some(list(random)), none_of: Vec::new() },
    }
}

fn glob(random: &mut Random) -> PathGlob {
    if random.once_in(12) {
        return PathGlob::Path(
            random.pick(&["@a", "@a*", "@**", "@a/b", "@a/**", "/", "/**", "**/a/**/b/**"]).to_owned(),
        );
    }
    let mut text = String::new();
    if random.once_in(5) {
        text.push_str("**");
    }
    for at in 0..=random.below(3) {
        if at > 0 && random.once_in(8) {
            text.push_str("/**");
        }
        text.push('/');
        text.push_str(if random.once_in(3) { random.pick(&WILD) } else { random.pick(&NAMES) });
    }
    if random.once_in(3) {
        text.push_str("/**");
    }
    PathGlob::Path(text)
}

fn cgroups(random: &mut Random) -> PathMatch {
    let one = |random: &mut Random| {
        if random.once_in(3) {
            PathGlob::Path(random.pick(&["/srv.slice/**", "/*.slice/a.service", "/**"]).to_owned())
        } else {
            PathGlob::Unit(random.pick(&UNITS).to_owned())
        }
    };
    let list = random.some(2, one);
    if random.once_in(3) {
        PathMatch { any_of: None, none_of: list }
    } else {
        PathMatch { any_of: Some(list), none_of: Vec::new() }
    }
}

fn names(random: &mut Random) -> NameMatch {
    let list = random.some(2, |random| random.pick(&FSTYPES).to_owned());
    if random.once_in(3) {
        NameMatch { any_of: None, none_of: list }
    } else {
        NameMatch { any_of: Some(list), none_of: Vec::new() }
    }
}

fn addresses(random: &mut Random) -> AddressMatch {
    let list = |random: &mut Random| {
        let mut ranges = AddressRanges::default();
        for _ in 0..=random.below(2) {
            let length = 24 + random.below(9) as u8;
            if random.once_in(2) {
                ranges.push_prefix(format!("192.0.2.{}", random.below(8)).parse().unwrap_or([0; 4].into()), length);
            } else {
                ranges.push_prefix(
                    format!("2001:db8::{:x}", random.below(8)).parse().unwrap_or([0; 16].into()),
                    96 + length,
                );
            }
        }
        ranges.normalise();
        AddressList { fixed: vec![Arc::new(ranges)], dynamic: Vec::new() }
    };
    match random.below(3) {
        0 => AddressMatch { any_of: None, none_of: list(random) },
        1 => AddressMatch { any_of: Some(list(random)), none_of: list(random) },
        _ => AddressMatch { any_of: Some(list(random)), none_of: AddressList::default() },
    }
}

fn sockets(random: &mut Random) -> SocketMatch {
    let kinds = |random: &mut Random| SocketKinds {
        types: random.maybe(2, |random| numbers(random, 4, 255)).unwrap_or_default(),
        packet: random.once_in(2),
    };
    let any_of = random.maybe(2, kinds);
    SocketMatch { any_of, none_of: kinds(random) }
}

/// A path of the alphabet.
fn path(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(5) {
        text.push('/');
        text.push_str(random.pick(&["a", "b", "ab", "abc", "etc", "x.conf", "srv", "z", "-"]));
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

/// An access.
#[must_use]
pub fn access(random: &mut Random) -> Access {
    let object = |random: &mut Random| match random.below(9) {
        0 => ObjectPath::Unknown,
        1 => ObjectPath::Foreign(path(random)),
        2 => ObjectPath::Abstract(random.pick(&["a", "ab", "a/b", "/a/b", "b"]).to_owned()),
        _ => ObjectPath::Host(path(random)),
    };
    let socket = random.once_in(2);
    Access {
        op: random.below(op::COUNT),
        path: random.maybe(5, |_| ()).is_none().then(|| object(random)),
        fstype: random.maybe(2, |random| random.pick(&["ext4", "tmpfs", "overlay", "proc"]).to_owned()),
        anonymous: random.maybe(2, |random| random.once_in(2)),
        exe: random.once_in(6).then_some(()).map_or_else(|| Some(path(random)), |()| None),
        tainted: random.once_in(5),
        ancestors: random.some(3, path),
        uid: random.below(7),
        gids: random.some(3, |random| random.below(6)),
        owner: random.maybe(2, |random| random.once_in(2)),
        auid: random.pick(&[0, 1, 2, 4, u32::MAX]),
        cgroup: random.once_in(8).then_some(()).map_or_else(|| Some(cgroup(random)), |()| None),
        container: random.once_in(2),
        to: random.maybe(2, |random| {
            let text = random.pick(&["192.0.2.", "::ffff:192.0.2.", "2001:db8::"]);
            format!("{text}{}", random.below(9)).parse().unwrap_or(IpAddr::V4([0; 4].into()))
        }),
        port: random.maybe(2, |random| random.below(8) as u16),
        proto: random.maybe(2, |random| random.below(24) as u8),
        family: socket.then(|| random.pick(&[1, 2, 10, 17])),
        kind: socket.then(|| random.below(6) as u8),
        capability: random.maybe(2, |random| random.below(10) as u8),
        signal: random.maybe(2, |random| random.below(10) as u8),
        target: random.maybe(2, path),
    }
}

fn cgroup(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(4) {
        text.push('/');
        text.push_str(random.pick(&["srv.slice", "a.slice", "a.service", "ab.service", "b.service", "user@1.service"]));
    }
    text
}
