//! A policy's text to [`Policy`]: YAML to a tree with places, the tree to the model, every mistake on the way kept.
//!
//! `source` reads files, `tree` YAML, `outline` the top level; `sets`, `fields`, `rules`, `chains` and `tests_section`
//! what is below it; `shadow` looks for rules that cannot match. Nothing here looks at the machine.

mod add;
mod chains;
mod combine;
mod connections;
mod deferred;
mod fields;
mod host;
mod limit;
mod node;
mod outline;
mod packets;
mod problems;
mod rules;
mod selection;
mod set_file;
mod set_list;
mod sets;
mod shadow;
mod source;
mod tests_section;
mod tree;
mod values;
mod yaml_error;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringfence_abi::chain::MAX_CHAIN_SETS;

pub(crate) use self::host::{ACCESS_KEYS, FIELDS as HOST_FIELDS, OPERATIONS};
pub(crate) use self::packets::KEYS as PACKET_KEYS;
pub(crate) use self::set_file::{BAD_LINES, FORMATS, SEPARATORS};
pub use self::set_file::{BadLines, Column, Feed, Format, SetFile, check_set_file};
pub use self::sets::{MAX_CAPACITY, MAX_DYNAMIC_SETS, MAX_ELEMENTS, MAX_SETS};
pub use self::source::{MAX_FILES, MAX_TEXT, SourceText};

use self::deferred::Deferred;
use self::fields::Context;
use self::outline::{File, Outline};
use self::packets::Packet;
use self::problems::{Complaint, Problems};
use self::sets::{BUILT_IN, Sets};
use self::source::{Lines, Span};
use crate::diagnostic::{Diagnostic, Report};
use crate::model::{Access, Chain, DynamicSet, HostChain, Mode, Policy, SetId, TestPacket, Verdict};
use crate::users::Users;

const _: () = assert!(MAX_DYNAMIC_SETS <= MAX_CHAIN_SETS);

/// A policy without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The text it was made from, in the order of [`Policy::files`].
    pub sources: Vec<SourceText>,
    /// The set files that were read.
    pub set_files: Vec<SetFile>,
}

/// Copies of set files by the files' own paths, to be read in their place.
pub type Copies = BTreeMap<PathBuf, PathBuf>;

/// Loads a policy file, or all `*.yaml` of a directory in the order of their names.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_with_copies(path, &Copies::new())
}

/// [`load`], with copies read in place of the set files they are of: a generation that was kept is loaded again with
/// the files as they were.
pub fn load_with_copies(path: &Path, copies: &Copies) -> Result<Loaded, Report> {
    let mut problems = Problems::default();
    let texts = source::read(path, &mut problems);
    let incomplete = problems.errors() > 0;
    build(texts, problems, incomplete, copies)
}

/// Loads policy texts as if they were the files of a directory, in this order. Relative paths of set files start at
/// each text's `base`.
pub fn load_texts(texts: Vec<SourceText>) -> Result<Loaded, Report> {
    load_texts_with_copies(texts, &Copies::new())
}

/// [`load_texts`], with copies read in place of the set files they are of.
pub fn load_texts_with_copies(texts: Vec<SourceText>, copies: &Copies) -> Result<Loaded, Report> {
    let mut problems = Problems::default();
    let total: usize = texts.iter().map(|source| source.text.len()).sum();
    let refused = if total > MAX_TEXT {
        Some(format!("the policy is larger than {} MiB of text", MAX_TEXT >> 20))
    } else if texts.len() > MAX_FILES {
        Some(format!("{} policy files, the limit is {MAX_FILES}", texts.len()))
    } else if texts.is_empty() {
        Some("there is no policy text".into())
    } else {
        None
    };
    if let Some(message) = refused {
        problems.file_error(texts.first().map_or("-", |source| &source.name), message);
        return Err(problems.into_report(&[], &[]));
    }
    build(texts, problems, false, copies)
}

/// Reads a packet from `interface=eth0 proto=tcp from=203.0.113.5 to=192.0.2.1 port=22`: the fields of a packet in
/// `tests:`, and whether it arrives (`direction=ingress`, the default).
pub fn parse_packet_spec(spec: &str) -> Result<(TestPacket, bool), Report> {
    let mut problems = Problems::default();
    let mut packet = Packet::default();
    let mut column = 1;
    for word in spec.split(' ') {
        let width = word.chars().count() as u32;
        let span = Span { file: 0, line: 1, column, end: column + width };
        column += width + 1;
        if word.is_empty() {
            continue;
        }
        let result = match word.split_once('=') {
            Some((key, value)) => packet.set(key, value, span),
            None => Err(Complaint::new(format!("expected `field=value`, found {}", problems::quote(word)))),
        };
        problems.check(span, result);
    }
    packet.finish(&mut problems);
    if problems.errors() == 0 {
        return Ok((packet.fields, !packet.egress));
    }
    let source = SourceText { name: "packet".into(), text: spec.to_owned(), base: PathBuf::new() };
    let lines = Lines::of(spec);
    Err(problems.into_report(&[source], &[lines]))
}

/// Reads a system call from `op=read path=/etc/shadow exe=/usr/bin/cat uid=1000`: the fields of an access in `tests:`.
pub fn parse_access_spec(spec: &str) -> Result<Access, Report> {
    let mut problems = Problems::default();
    let copies = Copies::new();
    let (mut sets, mut deferred, users) = (Sets::new(false, &copies), Deferred::default(), Users::default());
    let mut cx = Context {
        sets: &mut sets,
        problems: &mut problems,
        deferred: &mut deferred,
        users: &users,
        interfaces: None,
        audit_policy: false,
    };
    let mut access = host::AccessBuilder::default();
    let mut column = 1;
    for word in spec.split(' ') {
        let width = word.chars().count() as u32;
        let span = Span { file: 0, line: 1, column, end: column + width };
        column += width + 1;
        if word.is_empty() {
            continue;
        }
        let result = match word.split_once('=') {
            Some((key, value)) => access.set(key, value, &cx),
            None => Err(Complaint::new(format!("expected `field=value`, found {}", problems::quote(word)))),
        };
        cx.problems.check(span, result);
    }
    let access = access.finish(Span { file: 0, line: 1, column: 1, end: column }, &mut cx);
    match access {
        Some(access) if problems.errors() == 0 => Ok(access),
        _ => {
            let source = SourceText { name: "access".into(), text: spec.to_owned(), base: PathBuf::new() };
            Err(problems.into_report(&[source], &[Lines::of(spec)]))
        }
    }
}

fn build(
    sources: Vec<SourceText>,
    mut problems: Problems,
    incomplete: bool,
    copies: &Copies,
) -> Result<Loaded, Report> {
    let lines: Vec<Lines> = sources.iter().map(|source| Lines::of(&source.text)).collect();
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let built = read(&sources, &lines, &names, &mut problems, incomplete, copies);
    let failed = problems.errors() > 0;
    let report = problems.into_report(&sources, &lines);
    match built {
        Some((policy, set_files)) if !failed => Ok(Loaded { policy, warnings: report.diagnostics, sources, set_files }),
        _ => Err(report),
    }
}

fn read(
    sources: &[SourceText],
    lines: &[Lines],
    names: &[String],
    problems: &mut Problems,
    mut incomplete: bool,
    copies: &Copies,
) -> Option<(Policy, Vec<SetFile>)> {
    let mut nodes = 0;
    let mut trees = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        match tree::read(&source.text, &lines[index], index as u32, &mut nodes, problems) {
            Some(root) => trees.push((root, source.base.as_path())),
            None => incomplete = true,
        }
    }
    let files: Vec<File<'_, '_>> = trees.iter().map(|(root, base)| File { root, base }).collect();
    let mut deferred = Deferred::default();
    let outline = outline::read(&files, names, problems);
    let mut sets = Sets::new(incomplete, copies);
    for (entries, base) in &outline.sets {
        sets.declare(entries, base, names, problems);
    }
    sets.resolve_all(problems);
    let interfaces = outline.interfaces.as_ref().map(|(globs, _)| globs.as_slice());
    let audit_policy = outline.mode.is_some_and(|(mode, _)| mode == Mode::Audit);
    let users = Users::default();
    let mut cx =
        Context { sets: &mut sets, problems, deferred: &mut deferred, users: &users, interfaces, audit_policy };
    let ([mut ingress, mut egress], host) = chains(&outline, names, incomplete, &mut cx);
    let written = [0, 1].map(|index| outline.chains[index].at.is_some() || incomplete);
    let (tests, access_tests) =
        tests_section::read(&outline.tests, [ingress.as_ref(), egress.as_ref()], &host, written, &mut cx);
    deferred.report(names, problems);
    if problems.errors() > 0 {
        return None;
    }
    sets.warn_unused(problems);
    follow_both(&mut ingress, &mut egress);
    let dynamic_sets = dynamic_sets(&mut sets, [&mut ingress, &mut egress], problems)?;
    for chain in [&ingress, &egress].into_iter().flatten() {
        shadow::warn(&chain.rules, names, problems);
    }
    let policy = Policy {
        mode: outline.mode.map_or(Mode::Enforce, |(mode, _)| mode),
        files: names.to_vec(),
        dynamic_sets,
        interfaces: outline.interfaces.map(|(globs, _)| globs),
        floor: outline.floor.map(|line| line.is_none_or(|(on, _)| on)),
        connections: outline.connections.connections(),
        ingress,
        egress,
        host,
        tests,
        access_tests,
    };
    Some((policy, sets.files))
}

fn chains<'n, 't>(
    outline: &Outline<'n, 't>,
    names: &[String],
    incomplete: bool,
    cx: &mut Context<'_, 'n, 't>,
) -> ([Option<Chain>; 2], HostChain) {
    let mut taken = chains::Names::default();
    let groups = chains::read_groups(&outline.groups, &mut taken, names, cx);
    let host_groups = host::read_groups(&outline.groups, &mut taken, names, cx);
    let mut builder = chains::Builder::new(cx, groups, taken, names, incomplete);
    let chains = [0, 1].map(|index| builder.chain(index, &outline.chains[index]));
    builder.warn_unused();
    let mut taken = builder.names;
    (chains, host::read(&outline.host, host_groups, &mut taken, names, incomplete, cx))
}

// Connections are followed in both directions: where a rule asks for their state, a direction that the policy says nothing
// of has a chain that accepts.
fn follow_both(ingress: &mut Option<Chain>, egress: &mut Option<Chain>) {
    let reads = |chain: &Option<Chain>| {
        chain.as_ref().is_some_and(|chain| chain.rules.iter().any(|rule| rule.matches.state.is_some()))
    };
    let accepting = |beside: &Chain| Chain {
        default: Verdict::Accept,
        default_at: beside.default_at,
        protect: false,
        rules: Vec::new(),
    };
    if reads(ingress) && egress.is_none() {
        *egress = ingress.as_ref().map(accepting);
    } else if reads(egress) && ingress.is_none() {
        *ingress = egress.as_ref().map(accepting);
    }
}

// The dynamic sets of the policy: the declared ones, then the built-in ones that some rule reads.
fn dynamic_sets(
    sets: &mut Sets<'_, '_>,
    chains: [&mut Option<Chain>; 2],
    problems: &mut Problems,
) -> Option<Vec<DynamicSet>> {
    let mut all = std::mem::take(&mut sets.dynamic);
    let declared = all.len();
    let mut lists: Vec<&mut SetId> = chains
        .into_iter()
        .flatten()
        .flat_map(|chain| &mut chain.rules)
        .flat_map(|rule| rule.matches.from.iter_mut().chain(&mut rule.matches.to))
        .flat_map(|condition| condition.any_of.iter_mut().chain([&mut condition.none_of]))
        .flat_map(|list| &mut list.dynamic)
        .filter(|id| usize::from(id.0) >= declared)
        .collect();
    for (index, (name, kind)) in BUILT_IN.into_iter().enumerate() {
        let provisional = SetId((declared + index) as u16);
        let id = SetId(all.len() as u16);
        let mut read = false;
        lists.retain_mut(|found| {
            let this = **found == provisional;
            if this {
                **found = id;
                read = true;
            }
            !this
        });
        if read {
            all.push(DynamicSet { name: name.to_owned(), at: None, kind });
        }
    }
    if all.len() > MAX_DYNAMIC_SETS {
        let at = all.iter().find_map(|set| set.at);
        let message = format!(
            "{} dynamic sets, the built-in ones that rules read included; the limit is {MAX_DYNAMIC_SETS}",
            all.len()
        );
        if let Some(at) = at {
            problems.error(Span { file: at.file, line: at.line, column: at.column, end: at.column + 1 }, message);
        }
        return None;
    }
    Some(all)
}
