//! A host chain's fields, put together into constants and one arena.

use std::collections::HashSet;

use ringfence_abi::{
    chain::{ChainConsts, MAX_RULES, PORT_ABSENT},
    host::line::BUILTINS,
    host::{HostConsts, LEAF_TRUSTED, Leaf, MASK_CONDITIONS, MASK_UNKNOWN, SMALL_ABSENT, field, op},
    zeroed,
};
use ringfence_engine::{Tables as _, slice::SliceTables};

use super::{
    CompiledHost,
    automaton::{Automaton, Meaning, TooLarge},
    fields::Builder,
    leaves::{Lists, PathField, View},
    positions::expand,
    quick,
};
use crate::{
    compile::{
        CompileError,
        arena::Arena,
        chain::{Entry, check_continuations, continuing, finish, write},
        field::Field,
        trie,
    },
    model::{GidMatch, HostRule, Mode, PathGlob, PathMatch, Policy, Verdict},
    ranges::Ranges,
};

/// Trees in which nobody but the administrator can put files, by what a distribution's package manager makes of them.
/// Code mapped from elsewhere taints a process (`docs/policy.md`).
pub const TRUSTED: [&str; 11] = [
    "/usr/**",
    "/bin/**",
    "/sbin/**",
    "/lib/**",
    "/lib32/**",
    "/lib64/**",
    "/libx32/**",
    "/opt/**",
    "/snap/**",
    "/nix/store/**",
    "/gnu/store/**",
];

/// Compiles the host chain, whose counters begin at `counter_base`.
pub(in crate::compile) fn compile(policy: &Policy, counter_base: u32) -> Result<CompiledHost, CompileError> {
    let host = &policy.host;
    let rules = &host.rules;
    if rules.len() > MAX_RULES {
        return Err(CompileError::TooManyRules { chain: "host", rules: rules.len(), limit: MAX_RULES });
    }
    let positions = expand(rules)?;
    let entries: Vec<Entry<'_>> = rules
        .iter()
        .map(|rule| Entry {
            name: &rule.name,
            at: rule.at,
            verdict: rule.verdict,
            audit: rule.audit,
            protect: false,
            limited: false,
            record: false,
        })
        .collect();
    let of_rules: Vec<usize> = positions.iter().map(|position| position.rule).collect();
    let watched = continuing(&entries, &of_rules);
    let builder = Builder { rules, positions: &positions, watched: &watched };
    let by_position: Vec<&HostRule> = of_rules.iter().map(|rule| &rules[*rule]).collect();

    let mut arena = Arena::new();
    let mut fields = builder.all_direct();
    fields.extend(builder.ids());
    let (address, address_unknown) = builder.address().unzip();
    fields.extend(address);
    let (fstype, fstype_unknown) = builder.fstype().unzip();
    fields.extend(fstype);
    let gids = gids(rules)?;
    let gid = trie::write(&mut arena, &gid_runs(&gids));
    if !gids.is_empty() {
        fields.push(builder.mask(
            field::GID,
            |rule| !rule.matches.gid.is_empty(),
            |rule, mask| rules[rule].matches.gid.iter().all(|one| gid_holds(one, &gids, mask)),
        ));
    }
    let paths = paths(&builder, &by_position, &mut fields, &mut arena)?;
    let cgroups = cgroups(&builder, &by_position, &mut fields, &mut arena)?;
    check_continuations(&entries, "host", &watched, &fields)?;

    let mut chain = ChainConsts {
        default_verdict: u32::from(host.default.code()),
        audit: u32::from(policy.mode == Mode::Audit),
        counter_base,
        counters: BUILTINS + rules.len() as u32,
        ..zeroed()
    };
    let classes = fields.iter().map(|field| (field.number, field.rows.len())).collect();
    let (quick, quick_columns) = quick::words(&fields, &entries, &of_rules, host.default);
    let quick = arena.halves(quick);
    write(&mut arena, &mut chain, BUILTINS, (&entries, &of_rules), fields);
    let arena = finish(arena, &mut chain, "host")?;
    let reads_subject = |rule: &HostRule| {
        [&rule.matches.exe, &rule.matches.ancestor, &rule.matches.target].iter().any(|side| !side.is_empty())
    };
    Ok(CompiledHost {
        consts: HostConsts {
            chain,
            gid,
            paths,
            cgroups,
            ops: ops(policy),
            serial: 0,
            address_unknown: address_unknown.unwrap_or(0),
            fstype_unknown: fstype_unknown.unwrap_or(0),
            protect_self: u32::from(host.protect_self),
            keeps: 0,
            quick,
            quick_columns,
            absent: absent(&chain, &arena),
        },
        arena,
        implicit: host.implicit,
        needs_subjects: rules.iter().any(reads_subject),
        protect_self: host.protect_self,
        classes,
    })
}

/// Class of each field for a call that has nothing of the kind.
fn absent(chain: &ChainConsts, arena: &[u8]) -> [u32; field::COUNT] {
    let mut classes = [0; field::COUNT];
    for (number, class) in classes.iter_mut().enumerate() {
        let index = match number {
            field::PORT => PORT_ABSENT,
            field::PROTO | field::FAMILY | field::TYPE | field::CAPABILITY | field::SIGNAL => SMALL_ABSENT,
            // 0 is the class of absent paths, names and ids; operation and flags are always set.
            _ => continue,
        };
        if chain.active >> number & 1 == 1 {
            *class = SliceTables(arena).u32(chain.direct[number] + index * 4).unwrap_or(0);
        }
    }
    classes
}

/// Operations that some rule, or the default, may refuse or count.
fn ops(policy: &Policy) -> u32 {
    if policy.host.default.refuses() {
        return (1 << op::COUNT) - 1;
    }
    let touched = policy.host.rules.iter().filter(|rule| rule.verdict != Verdict::Accept);
    touched.fold(0, |all, rule| all | rule.matches.ops)
}

/// The distinct conditions on group ids, one bit of the mask each.
fn gids(rules: &[HostRule]) -> Result<Vec<Ranges>, CompileError> {
    let mut distinct: Vec<Ranges> = Vec::new();
    for rule in rules {
        for one in &rule.matches.gid {
            for ranges in one.any_of.iter().chain((!one.none_of.is_empty()).then_some(&one.none_of)) {
                if !distinct.contains(ranges) {
                    distinct.push(ranges.clone());
                    limit("gid", distinct.len(), rule)?;
                }
            }
        }
    }
    Ok(distinct)
}

fn limit(field: &'static str, conditions: usize, rule: &HostRule) -> Result<(), CompileError> {
    if conditions <= MASK_CONDITIONS {
        return Ok(());
    }
    Err(CompileError::TooManyConditions { field, limit: MASK_CONDITIONS, rule: rule.name.clone(), at: rule.at })
}

fn gid_holds(one: &GidMatch, distinct: &[Ranges], mask: u32) -> bool {
    let bit = |ranges: &Ranges| distinct.iter().position(|known| known == ranges).is_some_and(|i| mask >> i & 1 == 1);
    one.any_of.as_ref().is_none_or(bit) && (one.none_of.is_empty() || !bit(&one.none_of))
}

/// Runs of group ids that satisfy the same conditions, left-aligned.
fn gid_runs(distinct: &[Ranges]) -> Vec<(u128, u32)> {
    let mut starts: Vec<u32> = distinct
        .iter()
        .flat_map(Ranges::as_slice)
        .flat_map(|&(low, high)| [Some(low), high.checked_add(1)])
        .flatten()
        .chain([0])
        .collect();
    starts.sort_unstable();
    starts.dedup();
    let mask = |gid: u32| distinct.iter().enumerate().map(|(i, ranges)| u32::from(ranges.contains(gid)) << i).sum();
    starts.into_iter().map(|start| (u128::from(start) << 96, mask(start))).collect()
}

/// The automaton of objects and executables, and the fields that read it.
fn paths(
    builder: &Builder<'_>,
    rules: &[&HostRule],
    fields: &mut Vec<Field>,
    arena: &mut Arena,
) -> Result<ringfence_abi::host::Automaton, CompileError> {
    let mut lists = Lists::default();
    let mut path = PathField::new(field::PATH, rules, |rule| &rule.matches.path, &mut lists);
    let mut exe = PathField::new(field::EXE, rules, |rule| &rule.matches.exe, &mut lists);
    let mut target = PathField::new(field::TARGET, rules, |rule| &rule.matches.target, &mut lists);
    let (ancestors, wanted) = ancestors(builder.rules, &mut lists)?;
    let trusted = lists.number(&TRUSTED.map(|tree| PathGlob::Path(tree.to_owned())));
    let automaton = automaton(&lists, Some(lists.excluded()), builder.rules)?;
    let sets = automaton.sets();
    let class = |field: &mut Option<PathField>, meaning: Meaning, view| {
        field.as_mut().map_or(0, |field| field.class(meaning, sets, view))
    };
    let unknown = |field: &Option<PathField>| if field.is_some() { PathField::unknown() } else { 0 };
    let mut leaves = vec![Leaf::default()];
    leaves.push(Leaf {
        path: unknown(&path),
        exe: unknown(&exe),
        tainted: unknown(&exe),
        target: unknown(&target),
        ancestor: MASK_UNKNOWN,
        flags: 0,
    });
    for meaning in automaton.leaves() {
        let holds = |list: u32| sets.get(meaning.matched).binary_search(&list).is_ok();
        leaves.push(Leaf {
            path: class(&mut path, *meaning, View::Itself),
            exe: class(&mut exe, meaning.itself(), View::Itself),
            tainted: class(&mut exe, meaning.itself(), View::Tainted),
            target: class(&mut target, meaning.itself(), View::Itself),
            ancestor: ancestors.iter().enumerate().map(|(i, list)| u32::from(holds(*list)) << i).sum(),
            flags: if holds(trusted) { LEAF_TRUSTED } else { 0 },
        });
    }
    fields.extend([path, exe, target].into_iter().flatten().map(|field| field.finish(builder.rows())));
    if !ancestors.is_empty() {
        fields.push(builder.mask(
            field::ANCESTOR,
            |rule| !rule.matches.ancestor.is_empty(),
            |rule, mask| {
                wanted[rule].iter().all(|(any_of, none_of)| {
                    any_of.is_none_or(|bit| mask >> bit & 1 == 1) && none_of.is_none_or(|bit| mask >> bit & 1 == 0)
                })
            },
        ));
    }
    Ok(automaton.write(&leaves, arena))
}

/// Bits of the mask that must be set, and unset, in each condition of a rule.
type Bits = Vec<(Option<usize>, Option<usize>)>;

/// The distinct conditions on ancestors, one bit of the mask each, and what each rule wants of them.
fn ancestors(rules: &[HostRule], lists: &mut Lists) -> Result<(Vec<u32>, Vec<Bits>), CompileError> {
    let mut distinct = Vec::new();
    let mut wanted = Vec::with_capacity(rules.len());
    for rule in rules {
        let mut bit = |list: &[PathGlob]| {
            let number = lists.number(list);
            let known = distinct.iter().position(|known| *known == number);
            known.unwrap_or_else(|| {
                distinct.push(number);
                distinct.len() - 1
            })
        };
        let bits = |one: &PathMatch| {
            let any_of = one.any_of.as_ref().map(|list| bit(list));
            (any_of, (!one.none_of.is_empty()).then(|| bit(&one.none_of)))
        };
        wanted.push(rule.matches.ancestor.iter().map(bits).collect());
        limit("ancestor", distinct.len(), rule)?;
    }
    Ok((distinct, wanted))
}

/// The automaton of cgroups, and the field that reads it.
fn cgroups(
    builder: &Builder<'_>,
    rules: &[&HostRule],
    fields: &mut Vec<Field>,
    arena: &mut Arena,
) -> Result<ringfence_abi::host::Automaton, CompileError> {
    let mut lists = Lists::default();
    let mut cgroup = PathField::new(field::CGROUP, rules, |rule| &rule.matches.cgroup, &mut lists);
    let automaton = automaton(&lists, None, builder.rules)?;
    let unknown = if cgroup.is_some() { PathField::unknown() } else { 0 };
    let mut leaves = vec![Leaf::default(), Leaf { path: unknown, ..Leaf::default() }];
    for meaning in automaton.leaves() {
        let path = cgroup.as_mut().map_or(0, |field| field.class(*meaning, automaton.sets(), View::Itself));
        leaves.push(Leaf { path, ..Leaf::default() });
    }
    fields.extend(cgroup.map(|field| field.finish(builder.rows())));
    Ok(automaton.write(&leaves, arena))
}

fn automaton(lists: &Lists, below: Option<&HashSet<u32>>, rules: &[HostRule]) -> Result<Automaton, CompileError> {
    let mut bad = None;
    let built = Automaton::new(lists.all(), below, &mut bad);
    // The rule that has a pattern, for its place.
    let rule = |glob: &PathGlob| {
        let has = |one: &PathMatch| one.any_of.iter().flatten().chain(&one.none_of).any(|known| known == glob);
        let all = |rule: &&HostRule| {
            let m = &rule.matches;
            [&m.path, &m.exe, &m.target, &m.ancestor, &m.cgroup].into_iter().flatten().any(has)
        };
        rules.iter().find(all)
    };
    match (built, bad) {
        (_, Some((glob, error))) => Err(CompileError::BadPattern { pattern: glob.to_string(), error }),
        (Ok(automaton), None) => Ok(automaton),
        (Err(TooLarge { worst }), None) => {
            let globs = worst.iter().map(|(list, glob)| &lists.all()[*list as usize][*glob as usize]);
            // The trusted trees are no rule's.
            let worst: Vec<(&PathGlob, &HostRule)> =
                globs.filter_map(|glob| Some((glob, rule(glob)?))).take(3).collect();
            Err(CompileError::PatternsTooLarge {
                patterns: worst.iter().map(|(glob, _)| format!("`{glob}`")).collect::<Vec<_>>().join(", "),
                rule: worst.first().map(|(_, rule)| rule.name.clone()).unwrap_or_default(),
                at: worst.first().map(|(_, rule)| rule.at),
            })
        }
    }
}
