//! Quick words: for each class of path and of operation, the line that decides whatever else is known of a call, if there
//! is one. Most opens meet no rule that reads more, or one that reads no more than these two.

use ringfence_abi::{
    counter::DEFAULT,
    host::line::BUILTINS,
    host::{QUICK, QUICK_VERDICT, field},
};

use super::super::{chain::Entry, field::Field};
use crate::model::Verdict;

const _: () = assert!(BUILTINS as usize + ringfence_abi::chain::MAX_RULES < 1 << QUICK_VERDICT, "a line fits its bits");

/// The words, row by row, and how many a row has; 0 where none would say anything. `positions` are rule numbers.
pub(super) fn words(fields: &[Field], rules: &[Entry<'_>], positions: &[usize], default: Verdict) -> (Vec<u32>, u32) {
    let find = |number| fields.iter().find(|field| field.number == number);
    let others: Vec<&Field> = fields.iter().filter(|field| ![field::PATH, field::OP].contains(&field.number)).collect();
    let meanings: Vec<u32> = positions
        .iter()
        .enumerate()
        .map(|(position, &number)| {
            let rule = &rules[number];
            let reads_more = others.iter().any(|field| field.readers[position / 64] >> (position % 64) & 1 == 1);
            if reads_more || rule.continues() { 0 } else { word(BUILTINS + number as u32, rule.verdict) }
        })
        .collect();
    let size = positions.len().div_ceil(64).max(1);
    let wild = |field: Option<&Field>| -> Vec<u64> {
        (0..size).map(|at| field.map_or(u64::MAX, |field| !field.readers[at])).collect()
    };
    // What each class of operation accepts, and the first of these positions that accepts every path.
    let (anywhere, any_op) = (wild(find(field::PATH)), wild(find(field::OP)));
    let columns: Vec<(Vec<u64>, usize)> = rows(find(field::OP))
        .into_iter()
        .map(|row| {
            let mut accepted = any_op.clone();
            for (at, word) in row {
                accepted[at] |= word;
            }
            let first = first(anywhere.iter().copied().enumerate(), &accepted).unwrap_or(usize::MAX);
            (accepted, first)
        })
        .collect();
    let mut words = Vec::new();
    for row in rows(find(field::PATH)) {
        words.extend(columns.iter().map(|(accepted, anywhere)| {
            let here = first(row.iter().copied(), accepted).unwrap_or(usize::MAX);
            // Beyond the last position (in a bitmap's spare bits, or nowhere) no rule is left.
            meanings.get(here.min(*anywhere)).copied().unwrap_or_else(|| word(DEFAULT, default))
        }));
    }
    if words.iter().all(|word| *word == 0) { (Vec::new(), 0) } else { (words, columns.len() as u32) }
}

fn word(line: u32, verdict: Verdict) -> u32 {
    QUICK | u32::from(verdict.code()) << QUICK_VERDICT | line
}

/// The words of each class; one class without any for a field that no rule reads.
fn rows(field: Option<&Field>) -> Vec<Vec<(usize, u64)>> {
    field.map_or_else(|| vec![Vec::new()], |field| field.rows.sparse().collect())
}

/// The first position in both.
fn first(row: impl Iterator<Item = (usize, u64)>, accepted: &[u64]) -> Option<usize> {
    let mut common = row.map(|(at, word)| (at, word & accepted[at]));
    common.find(|(_, word)| *word != 0).map(|(at, word)| at * 64 + word.trailing_zeros() as usize)
}
