//! What the language has and this version cannot enforce yet: checked like everything else, then refused with one
//! message a kind. Loading such a policy without these parts would let through what it forbids.

use super::node::place;
use super::problems::{Complaint, Problems};
use super::source::Span;

/// A part of the language that is not built yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Limit,
    Log,
}

const PARTS: [(Part, &str); 2] = [
    (Part::Limit, "a `limit` of calls is not in this version; packets, bytes and connections can be limited"),
    (Part::Log, "`log` needs events, which this version does not have; rules are counted without it"),
];
// Places named in a message; a policy may have thousands.
const SHOWN: usize = 8;

/// Where such parts were found.
#[derive(Default)]
pub(super) struct Deferred(Vec<(Part, Span)>);

impl Deferred {
    /// Remembers a place.
    pub fn add(&mut self, part: Part, span: Span) {
        self.0.push((part, span));
    }

    /// One error for each kind that was found, with its places.
    pub fn report(mut self, names: &[String], problems: &mut Problems) {
        self.0.sort_unstable();
        self.0.dedup();
        for (part, message) in PARTS {
            let mut spans = self.0.iter().filter(|(found, _)| *found == part).map(|(_, span)| *span);
            let Some(first) = spans.next() else { continue };
            let rest: Vec<Span> = spans.collect();
            let mut complaint = Complaint::new(message);
            if !rest.is_empty() {
                let shown: Vec<String> = rest.iter().take(SHOWN).map(|span| place(*span, names)).collect();
                let more = rest.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                complaint = complaint.help(format!("also at {}{more}", shown.join(", ")));
            }
            problems.error(first, complaint);
        }
    }
}
