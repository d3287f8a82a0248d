//! Model to tables: fields to classes to rows (`abi::chain`), one arena a chain, deterministic to the byte.

mod arena;
mod chain;
mod direct;
mod field;
mod host;
mod limits;
mod lines;
mod positions;
mod rows;
mod sweep;
mod track;
mod trie;

use ringfence_abi::{chain::ChainConsts, connection::TrackConsts};

pub(crate) use self::host::fstype_number;
pub use self::host::{CompiledHost, PathKind, TRUSTED};
use self::limits::Rings;
use crate::model::{Chain, Location, Policy, SetId};

/// A policy as the loader takes it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Tables for packets that arrive; `None`: the policy has no such chain and nothing is attached.
    pub ingress: Option<CompiledChain>,
    /// Tables for packets that leave.
    pub egress: Option<CompiledChain>,
    /// How connections are remembered; `on` is 0 where no rule asks. The loader writes the slot, and the kernel's ids into
    /// `sets`.
    pub track: TrackConsts,
    /// Connections that are remembered at most; 0 where no rule asks.
    pub connections: u32,
    /// The sets that rules add to, in the order of their [`ringfence_abi::limit::AddState`]s.
    pub added: Vec<AddedSet>,
    /// Tables for what processes do.
    pub host: CompiledHost,
    /// What each counter stands for, by counter index (`ChainConsts::counter_base` included).
    pub lines: Vec<Line>,
}

/// A set that rules add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedSet {
    /// Which one.
    pub set: SetId,
    /// The first place of its ring in the map `ADDED`.
    pub base: u32,
    /// How many there are: its capacity.
    pub capacity: u32,
}

/// One chain's tables.
#[derive(Clone, Debug)]
pub struct CompiledChain {
    /// Constants. `src_sets` and `dst_sets` hold [`crate::model::SetId`]s; the loader writes the kernel's ids there.
    pub consts: ChainConsts,
    /// The arena, `consts.arena` bytes.
    pub arena: Vec<u8>,
    /// How interface names map to classes.
    pub interfaces: InterfaceClasses,
    /// How many classes each field that some rule reads has, for reports; fields as in [`ringfence_abi::chain`].
    pub classes: Vec<(usize, usize)>,
    /// Offset of the limits in the arena; 0: no rule has one.
    pub limits: u32,
}

/// Classes of interface names in one chain; a new interface is classified without compiling again.
#[derive(Clone, Debug, Default)]
pub struct InterfaceClasses {
    // Names that rules mention literally.
    literal: std::collections::BTreeMap<String, u32>,
    // Wildcards that rules mention; a name outside `literal` has the class `sum(1 << i)` over those it matches.
    globs: Vec<crate::model::NameGlob>,
}

impl InterfaceClasses {
    /// The class of an interface name.
    #[must_use]
    pub fn class(&self, name: &str) -> u32 {
        self.literal.get(name).copied().unwrap_or_else(|| {
            self.globs.iter().enumerate().filter(|(_, glob)| glob.matches(name)).map(|(i, _)| 1 << i).sum()
        })
    }
}

/// What a counter counts: the index that travels with the compiled policy, so that reports never re-read the YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `default`, `floor/NAME`, `malformed/NAME`, `dynamic`, `continuations`, `tables`, `unknown`,
    /// `reject/NAME`, or a rule's name.
    pub name: String,
    /// Whether the name was given by the policy's author or is one of the reserved ones.
    pub named: bool,
    /// `ingress`, `egress` or `host`.
    pub chain: &'static str,
    /// The verb: `accept`, `drop`, `reject`, `count`, `would-drop`, `would-reject`.
    pub verb: &'static str,
    /// Where it was written; `None` for the built-in lines.
    pub at: Option<Location>,
    /// Hash of the rule's content, by which counters of unnamed rules carry over an apply.
    pub content: u64,
}

/// Why a valid policy cannot be compiled: it needs more than the tables can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules than a chain may have.
    #[error("{chain} has {rules} rules after groups are flattened, the limit is {limit}")]
    TooManyRules {
        /// The chain.
        chain: &'static str,
        /// How many it has.
        rules: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Too many bit positions, because rules OR static and dynamic sets.
    #[error(
        "{chain} needs {positions} rule positions (a rule that lists static and dynamic sets takes one for each), the limit is {limit}"
    )]
    TooManyPositions {
        /// The chain.
        chain: &'static str,
        /// How many it needs.
        positions: usize,
        /// How many it may have.
        limit: usize,
    },
    /// More dynamic sets than a packet's address is looked up in.
    #[error("{chain} reads {sets} dynamic sets for one address, the limit is {limit}")]
    TooManyDynamicSets {
        /// The chain.
        chain: &'static str,
        /// How many it reads.
        sets: usize,
        /// How many it may read.
        limit: usize,
    },
    /// More rules with a limit than have a number in a position.
    #[error("{chain} has {limits} rules with a `limit`, the limit is {limit}")]
    TooManyLimits {
        /// The chain.
        chain: &'static str,
        /// How many it has.
        limits: usize,
        /// How many it may have.
        limit: usize,
    },
    /// More different wildcards in `interface:` fields than the class table holds.
    #[error("{chain} uses {globs} different wildcards in `interface:`, the limit is {limit}")]
    TooManyInterfaceGlobs {
        /// The chain.
        chain: &'static str,
        /// How many it uses.
        globs: usize,
        /// How many it may use.
        limit: usize,
    },
    /// The tables are larger than one map value may be.
    #[error("the tables of {chain} need {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The chain.
        chain: &'static str,
        /// Bytes needed.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A packet could match more rules that let evaluation go on than the programs follow.
    #[error(
        "{chain}: a packet could match {needed} rules that count or only audit before one decides (the last of them is `{rule}`), the limit is {limit}"
    )]
    TooManyContinuations {
        /// The chain.
        chain: &'static str,
        /// How many could match.
        needed: usize,
        /// How many may match.
        limit: usize,
        /// The last such rule.
        rule: String,
        /// Where it stands.
        at: Location,
    },
    /// More distinct conditions on group ids or ancestors than a mask has bits.
    #[error("host: the rules up to `{rule}` have more than {limit} different conditions on `{field}`")]
    TooManyConditions {
        /// The field.
        field: &'static str,
        /// How many there may be.
        limit: usize,
        /// The rule with the first that is too many.
        rule: String,
        /// Where it stands.
        at: Location,
    },
    /// The automaton of the path patterns would be too large.
    #[error("host: the path patterns blow up, most of all {patterns} (rule `{rule}`): use fewer wildcards")]
    PatternsTooLarge {
        /// Those most to blame.
        patterns: String,
        /// The rule of the first of them.
        rule: String,
        /// Where it stands.
        at: Option<Location>,
    },
    /// A policy that was not made by the loader has a pattern that is none.
    #[error("host: `{pattern}`: {error}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        error: crate::glob::GlobError,
    },
}

impl CompileError {
    /// Where the rule stands that is the most to blame, where one is.
    #[must_use]
    pub fn at(&self) -> Option<Location> {
        match self {
            Self::TooManyContinuations { at, .. } | Self::TooManyConditions { at, .. } => Some(*at),
            Self::PatternsTooLarge { at, .. } => *at,
            _ => None,
        }
    }
}

/// Compiles a policy. Same policy, same bytes.
pub fn compile(policy: &Policy) -> Result<Compiled, CompileError> {
    let mut lines = Vec::new();
    let rings = Rings::of(policy);
    let mut compiled = |chain: Option<&Chain>, name| {
        let Some(chain) = chain else { return Ok(None) };
        let own = lines::lines(policy, chain, name);
        let tables = chain::compile(policy, (chain, name), &own, lines.len() as u32, &rings)?;
        lines.extend(own);
        Ok(Some(tables))
    };
    let ingress = compiled(policy.ingress.as_ref(), "ingress")?;
    let egress = compiled(policy.egress.as_ref(), "egress")?;
    let host = host::compile(policy, lines.len() as u32)?;
    lines.extend(lines::host(&policy.host));
    let (mut track, connections) = track::compile(policy);
    track.limits =
        [&ingress, &egress].map(|chain: &Option<CompiledChain>| chain.as_ref().map_or(0, |chain| chain.limits));
    (track.adding, track.added) = rings.sizes();
    Ok(Compiled { ingress, egress, track, connections, host, lines, added: rings.sets().collect() })
}
