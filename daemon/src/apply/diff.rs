//! What differs between two policies: rules by name and content, and the texts.

use std::collections::{BTreeSet, HashMap, HashSet};

use ringfence_api::{Change, ChangeKind, FileDiff};

use crate::state::generations::{KeptLine, SourceText};

/// Lines around a difference.
const CONTEXT: usize = 3;

/// The rules that differ: removed ones first, then the new policy's in its order.
#[must_use]
pub fn rules(old: &[KeptLine], new: &[KeptLine]) -> Vec<Change> {
    let (old, new) = (rules_of(old), rules_of(new));
    let pairs = pair(&old, &new);
    let kept_old: HashSet<usize> = pairs.iter().flatten().copied().collect();
    let mut changes: Vec<Change> = old
        .iter()
        .enumerate()
        .filter(|(index, _)| !kept_old.contains(index))
        .map(|(_, line)| change(ChangeKind::Removed, line))
        .collect();
    let in_order = longest_increasing(&pairs);
    for (index, line) in new.iter().enumerate() {
        let kind = match pairs[index] {
            None => ChangeKind::Added,
            Some(before) if old[before].content != line.content || old[before].verb != line.verb => ChangeKind::Changed,
            Some(_) if !in_order.contains(&index) => ChangeKind::Moved,
            Some(_) => continue,
        };
        changes.push(change(kind, line));
    }
    changes
}

/// Rules and defaults; the built-in lines are the same in every policy.
fn rules_of(lines: &[KeptLine]) -> Vec<&KeptLine> {
    lines.iter().filter(|line| line.at.is_some()).collect()
}

/// What two lines have in common that are the same rule.
type Key<'a> = fn(&'a KeptLine) -> Option<(&'a str, &'a str, u64)>;

/// For each new line the old one it continues: by given name, otherwise by content, otherwise by place if the name that
/// was made from the place is the same.
fn pair(old: &[&KeptLine], new: &[&KeptLine]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; new.len()];
    let mut used = HashSet::new();
    let keys: [Key<'_>; 3] = [
        |line| line.named.then_some((line.chain.as_str(), line.name.as_str(), 0)),
        |line| (!line.named).then_some((line.chain.as_str(), "", line.content)),
        |line| (!line.named).then_some((line.chain.as_str(), line.name.as_str(), 0)),
    ];
    for key in keys {
        let mut candidates: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, line) in old.iter().enumerate().rev().filter(|(index, _)| !used.contains(index)) {
            if let Some(key) = key(line) {
                candidates.entry(key).or_default().push(index);
            }
        }
        for (index, line) in new.iter().enumerate() {
            if pairs[index].is_none()
                && let Some(found) = key(line).and_then(|key| candidates.get_mut(&key)?.pop())
            {
                pairs[index] = Some(found);
                used.insert(found);
            }
        }
    }
    pairs
}

/// The new lines whose partners are in the same order: the most lines that can be said not to have moved.
fn longest_increasing(pairs: &[Option<usize>]) -> BTreeSet<usize> {
    // Patience sorting: `tails[n]` ends the best sequence of n + 1 lines found so far.
    let mut tails: Vec<(usize, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; pairs.len()];
    for (index, partner) in pairs.iter().enumerate() {
        let Some(partner) = *partner else { continue };
        let place = tails.partition_point(|&(tail, _)| tail < partner);
        before[index] = place.checked_sub(1).map(|place| tails[place].1);
        if place == tails.len() {
            tails.push((partner, index));
        } else {
            tails[place] = (partner, index);
        }
    }
    let mut kept = BTreeSet::new();
    let mut next = tails.last().map(|&(_, index)| index);
    while let Some(index) = next {
        kept.insert(index);
        next = before[index];
    }
    kept
}

fn change(change: ChangeKind, line: &KeptLine) -> Change {
    let (file, number) = line.at.clone().map_or((None, None), |(file, number)| (Some(file), Some(number)));
    Change { change, name: line.name.clone(), chain: line.chain.clone(), verb: line.verb.clone(), file, line: number }
}

/// The policy files that differ, as unified diffs.
#[must_use]
pub fn files(old: &[SourceText], new: &[SourceText]) -> Vec<FileDiff> {
    let text = |texts: &[SourceText], name: &str| {
        texts.iter().find(|text| text.name == name).map(|text| text.text.clone()).unwrap_or_default()
    };
    let names: BTreeSet<&str> = old.iter().chain(new).map(|text| text.name.as_str()).collect();
    let differ = names.into_iter().filter_map(|name| {
        let (before, after) = (text(old, name), text(new, name));
        let unified = similar::TextDiff::from_lines(&before, &after)
            .unified_diff()
            .context_radius(CONTEXT)
            .header(name, name)
            .to_string();
        (before != after).then(|| FileDiff { name: name.to_owned(), unified })
    });
    differ.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, named: bool, content: u64) -> KeptLine {
        let at = Some(("p.yaml".to_owned(), 3));
        KeptLine { name: name.into(), named, chain: "ingress".into(), verb: "drop".into(), at, content }
    }

    fn kinds(old: &[KeptLine], new: &[KeptLine]) -> Vec<(ChangeKind, String)> {
        rules(old, new).into_iter().map(|change| (change.change, change.name)).collect()
    }

    #[test]
    fn named_rules_change_and_unnamed_ones_come_and_go() {
        let old = [line("default", true, 1), line("ssh", true, 2), line("p:ingress[1]", false, 3)];
        let new =
            [line("default", true, 9), line("ssh", true, 7), line("p:ingress[1]", false, 3), line("web", true, 4)];
        let expected = [
            (ChangeKind::Changed, "default".to_owned()),
            (ChangeKind::Changed, "ssh".to_owned()),
            (ChangeKind::Added, "web".to_owned()),
        ];
        assert_eq!(kinds(&old, &new), expected);
        assert_eq!(kinds(&new, &old)[0], (ChangeKind::Removed, "web".to_owned()));
        assert_eq!(kinds(&old, &old), []);
    }

    #[test]
    fn a_rule_put_in_front_is_one_addition_and_a_swap_one_move() {
        let old = [line("p:ingress[0]", false, 1), line("p:ingress[1]", false, 2), line("p:ingress[2]", false, 3)];
        let front = [
            line("p:ingress[0]", false, 8),
            line("p:ingress[1]", false, 1),
            line("p:ingress[2]", false, 2),
            line("p:ingress[3]", false, 3),
        ];
        assert_eq!(kinds(&old, &front), [(ChangeKind::Added, "p:ingress[0]".to_owned())]);
        let swapped = [line("p:ingress[0]", false, 3), line("p:ingress[1]", false, 1), line("p:ingress[2]", false, 2)];
        assert_eq!(kinds(&old, &swapped), [(ChangeKind::Moved, "p:ingress[0]".to_owned())]);
        // Edited in place: same made-up name, other content.
        let edited = [line("p:ingress[0]", false, 1), line("p:ingress[1]", false, 77), line("p:ingress[2]", false, 3)];
        assert_eq!(kinds(&old, &edited), [(ChangeKind::Changed, "p:ingress[1]".to_owned())]);
    }

    #[test]
    fn texts_are_compared_by_name() {
        let text = |name: &str, text: &str| SourceText { name: name.into(), base: "/".into(), text: text.into() };
        let changed = files(&[text("a", "1\n2\n"), text("b", "same\n")], &[text("a", "1\n3\n"), text("b", "same\n")]);
        assert_eq!(changed.len(), 1);
        assert!(changed[0].unified.contains("-2\n+3\n"), "{}", changed[0].unified);
        assert_eq!(files(&[], &[text("new", "x\n")])[0].name, "new");
    }
}
