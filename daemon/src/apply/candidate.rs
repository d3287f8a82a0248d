//! A policy that is read, tested and compiled, and not loaded yet. Touches neither the kernel nor the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ringfence_api::{ApplySource, Diagnostic, Severity};
use ringfence_policy::compile::{Compiled, compile};
use ringfence_policy::model::Policy;
use ringfence_policy::{Copies, Loaded, SourceText, load_texts_with_copies, load_with_copies, oracle, paths};
use sha2::{Digest, Sha256};

use super::fallback::{self, LeftOut};
use super::own::Own;
use crate::daemon::EMPTY;
use crate::error::{Error, Result, diagnostic};
use crate::interfaces::select::Demand;
use crate::state::generations::{KeptLine, Record, SetRecord, Sources, Store};

/// All that an apply needs.
#[derive(Debug)]
pub struct Candidate {
    /// The policy.
    pub policy: Policy,
    /// Its tables.
    pub compiled: Compiled,
    /// What its counters count.
    pub lines: Vec<KeptLine>,
    /// What it asks of interfaces.
    pub demand: Demand,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// What it was made from.
    pub sources: Sources,
    /// [`Sources::digest`].
    pub digest: String,
    /// Its set files.
    pub sets: Vec<SetRecord>,
    /// Set files that have vanished, or hold nothing any more: the last good copy stands in.
    pub missing: Vec<PathBuf>,
    /// Rules that are not enforced as written, because programs at a cgroup judge.
    pub left_out: Vec<LeftOut>,
    /// Where it came from, for listings.
    pub origin: String,
}

/// Where a policy is read from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file or directory.
    Path(PathBuf),
    /// Texts that came by the socket.
    Texts(Vec<SourceText>),
    /// A kept generation, its set files included.
    Kept(u64),
    /// A kept generation, with these set files as they are now.
    Refreshed(u64, BTreeSet<PathBuf>),
}

impl Origin {
    /// What a request asks for; `configured` is what a reload reads.
    #[must_use]
    pub fn of(source: ApplySource, configured: &Path) -> Self {
        match source {
            ApplySource::Reload => Self::Path(configured.to_owned()),
            ApplySource::Texts(texts) => Self::Texts(
                texts
                    .into_iter()
                    .map(|text| SourceText { name: text.name, text: text.text, base: text.base.into() })
                    .collect(),
            ),
        }
    }
}

impl Candidate {
    /// Reads, tests and compiles. `last` is the generation whose copies stand in for set files that have vanished.
    /// `own` is what a policy with `protect_self` guards; `at_cgroup`: the kernel has no security hooks to give.
    pub fn prepare(origin: Origin, store: &Store, own: &Own, at_cgroup: bool, last: Option<u64>) -> Result<Self> {
        let policy = |report| Error::Policy(Box::new(report));
        let kept = matches!(origin, Origin::Kept(_) | Origin::Refreshed(..));
        let (mut loaded, name) = match origin {
            Origin::Path(path) => {
                let copies = copies(store, last, is_lost)?;
                let name = path.display().to_string();
                (load_with_copies(&path, &copies).map_err(policy)?, name)
            }
            Origin::Texts(texts) => {
                let copies = copies(store, last, is_lost)?;
                let name = match &texts[..] {
                    [one] => one.name.clone(),
                    texts => texts.first().map(|text| text.base.display().to_string()).unwrap_or_default(),
                };
                (load_texts_with_copies(texts, &copies).map_err(policy)?, name)
            }
            Origin::Kept(number) => (load_kept(store, number, &BTreeSet::new())?, store.record(number)?.policy),
            Origin::Refreshed(number, fresh) => (load_kept(store, number, &fresh)?, store.record(number)?.policy),
        };
        let failures: Vec<Diagnostic> = oracle::run_tests(&loaded.policy)
            .into_iter()
            .chain(oracle::run_access_tests(&loaded.policy))
            .map(|failure| Diagnostic {
                severity: Severity::Error,
                file: loaded.policy.files.get(failure.at.file as usize).cloned().unwrap_or_default(),
                line: Some(failure.at.line),
                column: Some(failure.at.column),
                end_column: None,
                source: None,
                message: failure.message,
                help: None,
            })
            .collect();
        if !failures.is_empty() {
            return Err(Error::Tests(failures));
        }
        // After the tests, which mean the same on every machine.
        let remarks = paths::resolve(&mut loaded, &paths::Machine);
        own.protect(&mut loaded.policy);
        let left_out = if at_cgroup { fallback::reduce(&mut loaded.policy) } else { Vec::new() };
        let compiled = compile(&loaded.policy)?;
        let lines = KeptLine::all(&compiled.lines, &loaded.policy.files);
        let demand = Demand::of(loaded.policy.interfaces.clone(), &compiled);
        let texts = loaded
            .sources
            .into_iter()
            .map(|source| crate::state::generations::SourceText {
                name: source.name,
                base: source.base.display().to_string(),
                text: source.text,
            })
            .collect();
        let mut sources = Sources { texts, sets: Vec::new() };
        let (mut sets, mut missing) = (Vec::new(), Vec::new());
        for file in loaded.set_files {
            let content = match &file.sha256 {
                Some(expected) => Some(read_unchanged(&file.path, &file.read_from, expected)?),
                None => None,
            };
            if !kept && file.read_from != file.path {
                missing.push(file.path.clone());
            }
            sources.sets.push((file.path.clone(), content));
            sets.push(SetRecord::from(file));
        }
        Ok(Self {
            digest: sources.digest(),
            warnings: loaded.warnings.iter().chain(&remarks).map(diagnostic).collect(),
            policy: loaded.policy,
            compiled,
            lines,
            demand,
            sources,
            sets,
            missing,
            left_out,
            origin: name,
        })
    }

    /// How many rules it has, all chains together.
    #[must_use]
    pub fn rules(&self) -> u64 {
        self.lines.iter().filter(|line| line.is_rule()).count() as u64
    }

    /// Names the exact tables: a daemon of another version may make others from the same text.
    #[must_use]
    pub fn tables_digest(&self) -> String {
        let mut hash = Sha256::new();
        for chain in [&self.compiled.ingress, &self.compiled.egress].into_iter().flatten() {
            hash.update(format!("{:?}", chain.consts));
            hash.update((chain.arena.len() as u64).to_le_bytes());
            hash.update(&chain.arena);
        }
        hash.update(format!("{:?}", self.compiled.host.consts));
        hash.update((self.compiled.host.arena.len() as u64).to_le_bytes());
        hash.update(&self.compiled.host.arena);
        hash.update(format!("{:?}", self.compiled.lines));
        crate::state::generations::hexadecimal(&hash.finalize())
    }

    /// What is kept of it on disk.
    #[must_use]
    pub fn record(&self, generation: u64, by: &str, why: &str, confirmed: bool) -> Record {
        Record {
            generation,
            applied: crate::clock::wall_now(),
            by: by.to_owned(),
            why: why.to_owned(),
            policy: self.origin.clone(),
            confirmed,
            rules: self.rules(),
            digest: self.digest.clone(),
            tables: self.tables_digest(),
            texts: self.sources.texts.iter().map(|text| (text.name.clone(), text.base.clone())).collect(),
            sets: self.sets.clone(),
        }
    }

    /// The sets that lost more than half of their elements since the generation that `record` describes, and may not.
    #[must_use]
    pub fn shrunk(&self, record: &Record) -> Vec<String> {
        let before: BTreeMap<&str, usize> = record.sets.iter().map(|set| (set.set.as_str(), set.elements)).collect();
        let lost = |set: &&SetRecord| {
            !set.feed.shrink && before.get(set.set.as_str()).is_some_and(|&old| set.elements * 2 < old)
        };
        self.sets.iter().filter(lost).map(|set| set.set.clone()).collect()
    }
}

/// The kept copies of a generation's set files, for those that `wanted` says.
fn copies(store: &Store, generation: Option<u64>, wanted: impl Fn(&SetRecord) -> bool) -> Result<Copies> {
    let Some(generation) = generation.filter(|&number| number != EMPTY) else { return Ok(Copies::new()) };
    let sets = store.record(generation)?.sets;
    let unwanted: BTreeSet<&Path> = sets.iter().filter(|set| !wanted(set)).map(|set| set.path.as_path()).collect();
    let copies = store.set_copies(generation)?;
    Ok(copies.into_iter().filter(|(path, _)| !unwanted.contains(path.as_path())).collect())
}

/// Whether the copy must stand in: a download that failed often leaves an empty file.
fn is_lost(set: &SetRecord) -> bool {
    match set.path.metadata() {
        Ok(file) => file.len() == 0 && !set.feed.optional,
        Err(_) => !set.path.exists(),
    }
}

/// A kept generation, with its own copies of all set files but the `fresh` ones.
fn load_kept(store: &Store, number: u64, fresh: &BTreeSet<PathBuf>) -> Result<Loaded> {
    let copies = copies(store, Some(number), |set| !fresh.contains(&set.path))?;
    let texts = store.texts(number)?;
    let texts = texts.into_iter().map(|t| SourceText { name: t.name, text: t.text, base: t.base.into() }).collect();
    load_texts_with_copies(texts, &copies).map_err(|report| Error::Policy(Box::new(report)))
}

/// Reads a set file once more, to be kept. What is kept must be what was compiled.
fn read_unchanged(path: &Path, from: &Path, expected: &str) -> Result<Vec<u8>> {
    let changed = || Error::BadInput(format!("set file {} changed while it was read; apply again", path.display()));
    let bytes = fs::read(from).map_err(|_| changed())?;
    if crate::state::generations::hexadecimal(&Sha256::digest(&bytes)) == expected { Ok(bytes) } else { Err(changed()) }
}
