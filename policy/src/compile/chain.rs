//! A chain's fields, put together into constants and one arena.

use std::collections::BTreeSet;

use ringfence_abi::{
    chain::{
        BLOCK, ChainConsts, DST, DST_SETS, IP, MAX_ARENA, MAX_CHAIN_SETS, MAX_CONTINUATIONS, MAX_RULES, ORDER,
        SETS_PER_FIELD, SRC, SRC_SETS,
    },
    counter::{ANSWER_NAMES, BUILTINS, COOKIE_NAMES},
    verdict::{FLAG_AUDIT, PROTECT},
    zeroed,
};

use super::{
    CompileError, CompiledChain, InterfaceClasses, Line,
    arena::Arena,
    direct,
    field::{Builder, Field, Lookup},
    limits::{self, Limits, Rings},
    positions::{Address, Position, expand},
    rows::{Blocks, Rows, summary},
    trie,
};
use crate::model::{Chain, Location, Mode, Policy, SetId, Verdict};

/// Compiles one chain whose counters, `lines`, begin at `counter_base`.
pub(super) fn compile(
    policy: &Policy,
    (chain, name): (&Chain, &'static str),
    lines: &[Line],
    counter_base: u32,
    rings: &Rings,
) -> Result<CompiledChain, CompileError> {
    if chain.rules.len() > MAX_RULES {
        return Err(CompileError::TooManyRules { chain: name, rules: chain.rules.len(), limit: MAX_RULES });
    }
    let limited = chain.rules.iter().filter(|rule| limits::has_record(rule)).count();
    if limited > limits::MOST {
        return Err(CompileError::TooManyLimits { chain: name, limits: limited, limit: limits::MOST });
    }
    let positions = expand(chain, name)?;
    let rules: Vec<Entry<'_>> = chain
        .rules
        .iter()
        .map(|rule| Entry {
            name: &rule.name,
            at: rule.at,
            verdict: rule.verdict,
            audit: rule.audit,
            protect: rule.protect,
            limited: rule.limit.is_some(),
            record: limits::has_record(rule),
        })
        .collect();
    let of_rules: Vec<usize> = positions.iter().map(|position| position.rule).collect();
    let watched = continuing(&rules, &of_rules);
    let builder = Builder { chain, positions: &positions, watched: &watched };
    let src_sets = sets(&positions, |position| &position.src, name)?;
    let dst_sets = sets(&positions, |position| &position.dst, name)?;

    let mut fields: Vec<Field> = direct::FIELDS.iter().filter_map(|field| builder.direct(field)).collect();
    fields.extend(builder.address(SRC, |position| &position.src));
    fields.extend(builder.address(DST, |position| &position.dst));
    fields.extend(builder.mark());
    for (group, sets) in src_sets.chunks(SETS_PER_FIELD).enumerate() {
        fields.push(builder.membership(SRC_SETS + group, sets, |position| &position.src));
    }
    for (group, sets) in dst_sets.chunks(SETS_PER_FIELD).enumerate() {
        fields.push(builder.membership(DST_SETS + group, sets, |position| &position.dst));
    }
    let mut interfaces = InterfaceClasses::default();
    if let Some((field, classes)) = builder.interface(name)? {
        fields.push(field);
        interfaces = classes;
    }
    if positions.len() > 64 && fields.is_empty() {
        fields.push(unread(&positions));
    }
    check_continuations(&rules, name, &watched, &fields)?;

    let answers = BUILTINS + chain.rules.len() as u32;
    let cookies = answers + if rejects(chain) { ANSWER_NAMES.len() as u32 } else { 0 };
    let mut consts = ChainConsts {
        default_verdict: u32::from(if chain.protect { PROTECT } else { chain.default.code() }),
        audit: u32::from(policy.mode == Mode::Audit),
        floor: policy.floor.iter().enumerate().map(|(line, on)| u32::from(*on) << line).sum(),
        counter_base,
        counters: cookies + if protects(chain) { COOKIE_NAMES.len() as u32 } else { 0 },
        answers: if rejects(chain) { answers } else { 0 },
        cookies: if protects(chain) { cookies } else { 0 },
        src_set_count: src_sets.len() as u32,
        dst_set_count: dst_sets.len() as u32,
        src_sets: ids(&src_sets),
        dst_sets: ids(&dst_sets),
        ..zeroed()
    };
    let classes = fields.iter().map(|field| (field.number, field.rows.len())).collect();
    let mut arena = Arena::new();
    let limits = limits::write(&mut arena, policy, chain, (lines, counter_base), rings);
    write(&mut arena, &mut consts, BUILTINS, (&rules, &of_rules), fields);
    let arena = finish(arena, &mut consts, name)?;
    Ok(CompiledChain { consts, arena, interfaces, classes, limits })
}

/// Whether the chain has anything to answer.
pub(super) fn rejects(chain: &Chain) -> bool {
    let mut verdicts = chain.rules.iter().filter(|rule| !rule.audit).map(|rule| rule.verdict);
    chain.default == Verdict::Reject || verdicts.any(|verdict| verdict == Verdict::Reject)
}

/// Whether the chain gives SYN cookies.
pub(super) fn protects(chain: &Chain) -> bool {
    chain.protect || chain.rules.iter().any(|rule| rule.protect)
}

/// What the tables keep of a rule.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a rule, not states of something")]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) at: Location,
    pub(super) verdict: Verdict,
    pub(super) audit: bool,
    pub(super) protect: bool,
    /// A match may be none for its limit.
    pub(super) limited: bool,
    /// It has a limit, or adds to a set.
    pub(super) record: bool,
}

impl Entry<'_> {
    /// The byte in the tables.
    fn code(&self) -> u8 {
        if self.protect { PROTECT } else { self.verdict.code() }
    }

    /// It is counted and evaluation goes on.
    pub(super) fn continues(&self) -> bool {
        self.audit || self.verdict == Verdict::Count
    }

    /// It may be.
    fn may_continue(&self) -> bool {
        self.continues() || self.limited
    }
}

/// The arena's bytes, if they are not too many.
pub(super) fn finish(arena: Arena, consts: &mut ChainConsts, name: &'static str) -> Result<Vec<u8>, CompileError> {
    let bytes = arena.finish();
    if bytes.len() > MAX_ARENA {
        return Err(CompileError::TooLarge { chain: name, bytes: bytes.len(), limit: MAX_ARENA });
    }
    consts.arena = bytes.len() as u32;
    Ok(bytes)
}

fn ids(sets: &[SetId]) -> [u16; MAX_CHAIN_SETS] {
    std::array::from_fn(|i| sets.get(i).map_or(0, |set| set.0))
}

/// The dynamic sets that positions read for one address.
fn sets(
    positions: &[Position],
    side: fn(&Position) -> &Address,
    chain: &'static str,
) -> Result<Vec<SetId>, CompileError> {
    let read: BTreeSet<SetId> =
        positions.iter().flat_map(|p| side(p).members.iter().chain(&side(p).strangers)).copied().collect();
    if read.len() > MAX_CHAIN_SETS {
        return Err(CompileError::TooManyDynamicSets { chain, sets: read.len(), limit: MAX_CHAIN_SETS });
    }
    Ok(read.into_iter().collect())
}

/// A field that nobody reads: a wide chain of rules without conditions still needs one to search by.
fn unread(positions: &[Position]) -> Field {
    let mut rows = Rows::new(positions.len());
    rows.push();
    let lookup = Lookup::Direct(vec![0; ringfence_abi::chain::IP_SPACE as usize]);
    Field { number: IP, readers: vec![0; positions.len().div_ceil(64)], rows, lookup }
}

/// The positions whose rules let evaluation go on, as a bitmap; empty when there are too few to matter.
pub(super) fn continuing(rules: &[Entry<'_>], positions: &[usize]) -> Vec<u64> {
    if rules.iter().filter(|rule| rule.may_continue()).count() <= MAX_CONTINUATIONS as usize {
        return Vec::new();
    }
    let mut bitmap = vec![0; positions.len().div_ceil(64)];
    for (position, rule) in positions.iter().enumerate() {
        if rules[*rule].may_continue() {
            bitmap[position / 64] |= 1 << (position % 64);
        }
    }
    bitmap
}

/// No packet may match more continuing rules than the programs follow. What a packet matches lies within the row of
/// its class in every field, so the smallest of the fields' largest rows is a bound.
pub(super) fn check_continuations(
    rules: &[Entry<'_>],
    name: &'static str,
    watched: &[u64],
    fields: &[Field],
) -> Result<(), CompileError> {
    let bound = fields
        .iter()
        .map(|field| {
            let wild = watched.iter().zip(&field.readers).map(|(w, readers)| (w & !readers).count_ones()).sum::<u32>();
            wild + field.rows.most_watched()
        })
        .chain([watched.iter().map(|word| word.count_ones()).sum()])
        .min()
        .unwrap_or(0);
    if bound <= MAX_CONTINUATIONS {
        return Ok(());
    }
    let Some(last) = rules.iter().rfind(|rule| rule.may_continue()) else { return Ok(()) };
    Err(CompileError::TooManyContinuations {
        chain: name,
        needed: bound as usize,
        limit: MAX_CONTINUATIONS as usize,
        rule: last.name.to_owned(),
        at: last.at,
    })
}

/// Writes rules, with the rule number of each position, and fields into the arena and their offsets into the constants. The
/// rules' counters come after `builtins` others.
pub(super) fn write(
    arena: &mut Arena,
    consts: &mut ChainConsts,
    builtins: u32,
    (rules, positions): (&[Entry<'_>], &[usize]),
    mut fields: Vec<Field>,
) {
    fields.sort_by_key(|field| ORDER.iter().position(|number| *number == field.number));
    consts.blocks = if positions.len() > 64 { (positions.len() as u32).div_ceil(BLOCK) } else { 0 };
    let limits = Limits::of(rules);
    consts.positions = arena.words(positions.iter().map(|&number| {
        let rule = &rules[number];
        let flags = if rule.audit { FLAG_AUDIT } else { 0 };
        let line = u64::from(builtins) + number as u64;
        line | u64::from(rule.code()) << 32 | u64::from(flags) << 40 | limits.number(number) << 48
    }));
    let all = bitmap_of_all(positions.len());
    let wild: Vec<Vec<u64>> = fields
        .iter()
        .map(|field| all.iter().zip(&field.readers).map(|(all, readers)| all & !readers).collect())
        .collect();
    if consts.blocks == 0 {
        consts.wild = arena.words(all);
    } else {
        consts.wild = arena.words((0..all.len()).flat_map(|word| wild.iter().map(move |wild| wild[word])));
        let summaries: Vec<Vec<u64>> = wild.iter().map(|wild| wild.chunks(64).map(summary).collect()).collect();
        consts.wild_summary =
            arena.words((0..consts.blocks as usize).flat_map(|block| summaries.iter().map(move |of| of[block])));
    }
    let mut blocks = Blocks::default();
    for (field, wild) in fields.iter().zip(&wild) {
        consts.active |= 1 << field.number;
        consts.active_count += 1;
        consts.rows[field.number] = field.rows.write(arena, &mut blocks, wild);
    }
    for field in fields {
        match field.lookup {
            Lookup::Direct(table) => consts.direct[field.number] = arena.halves(table),
            Lookup::Tries(tries) => {
                for (index, runs) in tries {
                    consts.tries[index] = trie::write(arena, &runs);
                }
            }
            Lookup::Given => {}
        }
    }
}

fn bitmap_of_all(positions: usize) -> Vec<u64> {
    let mut all = vec![u64::MAX; positions.div_ceil(64).max(1)];
    if let Some(last) = all.last_mut()
        && (positions == 0 || !positions.is_multiple_of(64))
    {
        *last = (1 << (positions % 64)) - 1;
    }
    all
}
