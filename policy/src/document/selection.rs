//! The shapes a field's value may have: `a`, `[a, b]`, `{not: ...}`, `{in: ..., not: ...}`.

use super::problems::{Complaint, Problems};
use super::source::Span;
use super::tree::{Kind, Node};

/// The values to match, `None` for all, and those to leave out.
pub(super) struct Selection<T> {
    pub any_of: Option<T>,
    pub none_of: T,
}

impl<T> Selection<T> {
    /// Reads both lists. The second is read even if the first is wrong, so that all is reported.
    pub fn read<U>(self, mut list: impl FnMut(T) -> Option<U>) -> Option<Selection<U>> {
        let any_of = self.any_of.map(&mut list);
        let none_of = list(self.none_of)?;
        let any_of = match any_of {
            Some(list) => Some(list?),
            None => None,
        };
        Some(Selection { any_of, none_of })
    }
}

/// Reads the shape; values are looked at by the caller.
pub(super) fn selection<'s>(node: &'s Node<'_>, problems: &mut Problems) -> Option<Selection<Vec<(&'s str, Span)>>> {
    let Kind::Map(entries) = &node.kind else {
        return Some(Selection { any_of: Some(items(node, problems)?), none_of: Vec::new() });
    };
    let (mut any_of, mut none_of, mut good) = (None, Vec::new(), true);
    for entry in entries {
        match &*entry.key {
            "in" => {
                any_of = items(&entry.value, problems);
                good &= any_of.is_some();
            }
            "not" => match items(&entry.value, problems) {
                Some(list) => none_of = list,
                None => good = false,
            },
            _ => {
                problems.error(entry.at, Complaint::unknown("key", &entry.key, ["in", "not"]));
                good = false;
            }
        }
    }
    good.then_some(Selection { any_of, none_of })
}

fn items<'s>(node: &'s Node<'_>, problems: &mut Problems) -> Option<Vec<(&'s str, Span)>> {
    let list = match &node.kind {
        Kind::Scalar { text, .. } => return Some(vec![(text, node.span)]),
        Kind::List(list) => list,
        Kind::Bad => return None,
        Kind::Map(_) => {
            problems.error(node.span, "expected a value or a list of values, found a mapping");
            return None;
        }
    };
    let (mut out, mut good) = (Vec::with_capacity(list.len()), true);
    for item in list {
        match &item.kind {
            Kind::Scalar { text, .. } => out.push((&**text, item.span)),
            Kind::Bad => good = false,
            Kind::Map(entries) if entries.iter().any(|entry| entry.key == "not" || entry.key == "in") => {
                let complaint = Complaint::new(
                    "`{not: ...}` inside a list: a list means any of its values, so this would match nearly everything",
                );
                problems.error(item.span, complaint.help("for these without those write `{in: [...], not: [...]}`"));
                good = false;
            }
            _ => {
                problems.error(item.span, format!("expected a value in the list, found {}", item.describe()));
                good = false;
            }
        }
    }
    good.then_some(out)
}
