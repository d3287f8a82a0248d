//! Accesses: rules in order, fields one after the other.

use std::net::IpAddr;

use ringfence_abi::{chain::MAX_CONTINUATIONS, host::op};

use super::explain::{Considered, number as number_shown, shown};
use super::glob;
use super::judge::LineRef;
use super::matches::{Mismatch, Why, address_accepts, field, number, within};
use super::parse::Field;
use super::run::Failure;
use crate::model::{
    Access, AccessTest, GidMatch, HostRule, NameMatch, ObjectPath, PathGlob, PathMatch, Policy, SocketKinds,
    SocketMatch, Verdict, host_word,
};

/// What is decided about an access and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDecision {
    /// [`Verdict::Accept`] (allow) or [`Verdict::Drop`] (deny). `mode: audit` of the policy does not change it.
    pub verdict: Verdict,
    /// [`LineRef::Rule`], [`LineRef::Default`] or [`LineRef::Continuations`].
    pub line: LineRef,
    /// Indices of the rules that matched and let evaluation go on, in order.
    pub continued: Vec<usize>,
}

impl HostDecision {
    /// The name of what decided.
    #[must_use]
    pub fn by(&self, policy: &Policy) -> String {
        match self.line {
            LineRef::Rule(index) => policy.host.rules[index].name.clone(),
            LineRef::Continuations => "continuations".to_owned(),
            _ => "default".to_owned(),
        }
    }
}

/// Judges an access. Dynamic entries are not looked at.
#[must_use]
pub fn judge_access(policy: &Policy, access: &Access) -> HostDecision {
    let mut continued = Vec::new();
    for (index, rule) in policy.host.rules.iter().enumerate() {
        if check(rule, access).is_err() {
            continue;
        }
        if !rule.continues() {
            return HostDecision { verdict: rule.verdict, line: LineRef::Rule(index), continued };
        }
        if continued.len() == MAX_CONTINUATIONS as usize {
            return HostDecision { verdict: Verdict::Drop, line: LineRef::Continuations, continued };
        }
        continued.push(index);
    }
    HostDecision { verdict: policy.host.default, line: LineRef::Default, continued }
}

/// Every rule from the first to the one that decides, and why it did or did not match.
#[must_use]
pub fn explain_access(policy: &Policy, access: &Access) -> Vec<Considered> {
    let rules = &policy.host.rules;
    let end = match judge_access(policy, access).line {
        LineRef::Rule(index) => index + 1,
        _ => rules.len(),
    };
    let considered = |(rule, content): (usize, &HostRule)| {
        let outcome = check(content, access);
        let because = match outcome {
            Ok(()) => why_matched(content, access),
            Err(mismatch) => why_not(mismatch, content, access),
        };
        Considered { rule, name: content.name.clone(), matched: outcome.is_ok(), because }
    };
    rules[..end].iter().enumerate().map(considered).collect()
}

/// Runs every test about an access.
#[must_use]
pub fn run_access_tests(policy: &Policy) -> Vec<Failure> {
    let failure = |(index, test): (usize, &AccessTest)| {
        run(policy, test).err().map(|message| Failure { test: index, at: test.at, message })
    };
    policy.access_tests.iter().enumerate().filter_map(failure).collect()
}

fn run(policy: &Policy, test: &AccessTest) -> Result<(), String> {
    let decision = judge_access(policy, &test.access);
    let by = decision.by(policy);
    if decision.verdict != test.expect {
        let (expected, found) = (host_word(test.expect), host_word(decision.verdict));
        return Err(format!("expected {expected}, but `{by}` decides {found}"));
    }
    match &test.rule {
        Some(rule) if *rule != by => Err(format!("expected `{rule}` to decide, but `{by}` does")),
        _ => Ok(()),
    }
}

/// Every field that the rule reads accepts the access; or the first that does not.
fn check(rule: &HostRule, access: &Access) -> Result<(), Mismatch> {
    let refuses = rule.verdict.refuses();
    let reads = &rule.matches;
    field("op", Field::Value(access.op), refuses, |op| reads.ops >> op & 1 == 1)?;
    for one in &reads.path {
        let path = match &access.path {
            None => Field::Absent,
            Some(ObjectPath::Unknown) => Field::Unknown,
            Some(path) => Field::Value(path),
        };
        field("path", path, refuses, |path| path_accepts(one, path))?;
    }
    for one in &reads.fstype {
        field("fstype", Field::or_absent(access.fstype.as_deref()), refuses, |name| name_accepts(one, name))?;
    }
    flag("anonymous", reads.anonymous, access.anonymous, refuses)?;
    for one in &reads.exe {
        exe("exe", one, access.exe.as_deref(), access.tainted, refuses)?;
    }
    for one in &reads.ancestor {
        field("ancestor", Field::Value(()), refuses, |()| {
            let some = |globs: &[PathGlob]| access.ancestors.iter().any(|path| listed(globs, &host(path)));
            one.any_of.as_deref().is_none_or(some) && !some(&one.none_of)
        })?;
    }
    for one in &reads.target {
        exe("target", one, access.target.as_deref(), false, refuses)?;
    }
    number("uid", reads.uid.as_ref(), Field::Value(access.uid), refuses)?;
    for one in &reads.gid {
        field("gid", Field::Value(()), refuses, |()| gids_accept(one, &access.gids))?;
    }
    flag("owner", reads.owner, access.owner, refuses)?;
    number("auid", reads.auid.as_ref(), Field::Value(access.auid), refuses)?;
    for one in &reads.cgroup {
        let cgroup = Field::or_absent(access.cgroup.as_deref());
        field("cgroup", cgroup, refuses, |path| path_accepts(one, &host(path)))?;
    }
    flag("container", reads.container, Some(access.container), refuses)?;
    for one in &reads.to {
        let address = Field::or_absent(access.to.map(|address| address.to_canonical()));
        field("to", address, refuses, |address: IpAddr| address_accepts(one, address, &super::no_members))?;
    }
    number("port", reads.port.as_ref(), Field::or_absent(access.port), refuses)?;
    number("proto", reads.proto.as_ref(), Field::or_absent(access.proto), refuses)?;
    number("family", reads.family.as_ref(), Field::or_absent(access.family), refuses)?;
    for one in &reads.kind {
        socket(one, access)?;
    }
    number("capability", reads.capability.as_ref(), Field::or_absent(access.capability), refuses)?;
    number("signal", reads.signal.as_ref(), Field::or_absent(access.signal), refuses)
}

fn host(path: &str) -> ObjectPath {
    ObjectPath::Host(path.to_owned())
}

fn listed(globs: &[PathGlob], path: &ObjectPath) -> bool {
    globs.iter().any(|pattern| glob::matches(pattern, path))
}

fn path_accepts(one: &PathMatch, path: &ObjectPath) -> bool {
    one.any_of.as_deref().is_none_or(|globs| listed(globs, path)) && !listed(&one.none_of, path)
}

fn name_accepts(one: &NameMatch, name: &str) -> bool {
    let has = |names: &[String]| names.iter().any(|known| known == name);
    one.any_of.as_deref().is_none_or(has) && !has(&one.none_of)
}

fn gids_accept(one: &GidMatch, gids: &[u32]) -> bool {
    one.any_of.as_ref().is_none_or(|ranges| gids.iter().any(|gid| within(ranges, *gid)))
        && !gids.iter().any(|gid| within(&one.none_of, *gid))
}

fn flag(name: &'static str, wanted: Option<bool>, value: Option<bool>, refuses: bool) -> Result<(), Mismatch> {
    wanted.map_or(Ok(()), |wanted| field(name, Field::or_absent(value), refuses, |value| value == wanted))
}

/// An executable. That of a process with foreign code permits nothing any more, and no exclusion protects it.
fn exe(name: &'static str, one: &PathMatch, path: Option<&str>, tainted: bool, refuses: bool) -> Result<(), Mismatch> {
    if tainted && path.is_some() && !refuses {
        return Err(Mismatch { field: name, why: Why::Unknown });
    }
    field(name, Field::or_absent(path), refuses, |path| {
        let path = host(path);
        one.any_of.as_deref().is_none_or(|globs| listed(globs, &path)) && (tainted || !listed(&one.none_of, &path))
    })
}

/// `packet` is a family, the others are types; a call without a socket has neither.
fn socket(one: &SocketMatch, access: &Access) -> Result<(), Mismatch> {
    let mismatch = |why| Err(Mismatch { field: "type", why });
    let (Some(kind), Some(family)) = (access.kind, access.family) else { return mismatch(Why::Absent) };
    let has = |kinds: &SocketKinds| within(&kinds.types, kind.into()) || kinds.packet && family == 17;
    if one.any_of.as_ref().is_none_or(has) && !has(&one.none_of) { Ok(()) } else { mismatch(Why::Outside) }
}

fn why_matched(rule: &HostRule, access: &Access) -> String {
    let mut text = "matches".to_owned();
    if !rule.matches.path.is_empty() && access.path == Some(ObjectPath::Unknown) {
        text.push_str("; path cannot be told, which a refusal matches");
    }
    match (rule.verdict, rule.audit) {
        (Verdict::Count, _) => text.push_str("; counts, evaluation goes on"),
        (_, true) => text.push_str("; only audits, evaluation goes on"),
        (_, false) => {}
    }
    text
}

fn why_not(mismatch: Mismatch, rule: &HostRule, access: &Access) -> String {
    let name = mismatch.field;
    match mismatch.why {
        Why::Absent => format!("{name}: the access has none"),
        Why::Unknown if name == "exe" => "exe: the process runs foreign code, so its name permits nothing".to_owned(),
        Why::Unknown => format!("{name}: cannot be told, which only a refusal matches"),
        Why::Outside => format!("{name}: {}", outside(name, rule, access)),
    }
}

fn outside(name: &str, rule: &HostRule, access: &Access) -> String {
    let reads = &rule.matches;
    let plain = |value: Option<&str>| format!("{} is outside", value.unwrap_or("none"));
    match name {
        "op" => {
            let named = (0..op::COUNT).filter(|op| reads.ops >> op & 1 == 1).map(|op| op::NAMES[op as usize]);
            format!("{} is not {}", op::NAMES[access.op as usize], named.collect::<Vec<_>>().join(", "))
        }
        "path" => match &access.path {
            Some(ObjectPath::Host(path) | ObjectPath::Foreign(path)) => plain(Some(path)),
            Some(ObjectPath::Abstract(name)) => format!("@{name} is outside"),
            Some(ObjectPath::Unknown) | None => plain(None),
        },
        "fstype" => plain(access.fstype.as_deref()),
        "exe" => plain(access.exe.as_deref()),
        "target" => plain(access.target.as_deref()),
        "cgroup" => plain(access.cgroup.as_deref()),
        "ancestor" => format!("{} ancestors are outside", access.ancestors.len()),
        "gid" => format!("{:?} are outside", access.gids),
        "uid" => number_shown(Field::Value(access.uid), reads.uid.as_ref()),
        "auid" if access.auid == u32::MAX => "unset is outside".to_owned(),
        "auid" => number_shown(Field::Value(access.auid), reads.auid.as_ref()),
        "to" => format!("{} is outside", shown(Field::or_absent(access.to))),
        "port" => number_shown(Field::or_absent(access.port), reads.port.as_ref()),
        "proto" => number_shown(Field::or_absent(access.proto), reads.proto.as_ref()),
        "family" => number_shown(Field::or_absent(access.family), reads.family.as_ref()),
        "type" => format!("{} is outside", shown(Field::or_absent(access.kind))),
        "capability" => number_shown(Field::or_absent(access.capability), reads.capability.as_ref()),
        "signal" => number_shown(Field::or_absent(access.signal), reads.signal.as_ref()),
        "owner" => {
            if access.owner == Some(true) { "the file is the caller's" } else { "the file is another's" }.to_owned()
        }
        "anonymous" => {
            if access.anonymous == Some(true) { "the file has no name" } else { "the file has a name" }.to_owned()
        }
        _ => if access.container { "the caller is in a container" } else { "the caller is in no container" }.to_owned(),
    }
}
