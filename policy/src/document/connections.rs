//! `connections:` of the network half: how many are remembered, and for how long.

use ringfence_abi::connection::{MAX_CAPACITY, MIN_CAPACITY, TIMEOUT_NAMES};

use super::node::parse;
use super::outline::once;
use super::problems::{Complaint, Problems};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values;
use crate::model::Connections;

/// Longest timeout: 30 days.
const LONGEST: u64 = 30 * 86_400;

/// What the files say; each value may stand in one of them.
#[derive(Default)]
pub(super) struct Written {
    capacity: Option<(u32, Span)>,
    timeouts: [Option<(u64, Span)>; TIMEOUT_NAMES.len()],
}

impl Written {
    /// Reads one file's mapping.
    pub fn read(&mut self, node: &Node<'_>, names: &[String], problems: &mut Problems) {
        for Entry { key, at, value } in entries(node, "`capacity` and `timeouts`", problems) {
            match &**key {
                "capacity" => {
                    let capacity = parse(value, "a number of connections", capacity, problems).map(|n| (n, *at));
                    once("the capacity of `connections`", capacity, &mut self.capacity, names, problems);
                }
                "timeouts" => self.timeouts(value, names, problems),
                _ => {
                    problems.error(*at, Complaint::unknown("key of `connections`", key, ["capacity", "timeouts"]));
                }
            }
        }
    }

    fn timeouts(&mut self, node: &Node<'_>, names: &[String], problems: &mut Problems) {
        for Entry { key, at, value } in entries(node, "states with how long each is remembered", problems) {
            let Some(index) = TIMEOUT_NAMES.iter().position(|name| name == key) else {
                problems.error(*at, Complaint::unknown("state of a connection", key, TIMEOUT_NAMES));
                continue;
            };
            let seconds = parse(value, "a duration such as `90s`", timeout, problems).map(|seconds| (seconds, *at));
            once(&format!("the timeout `{key}`"), seconds, &mut self.timeouts[index], names, problems);
        }
    }

    /// All of it, with what nobody said.
    pub fn connections(&self) -> Connections {
        let mut all = Connections::default();
        all.capacity = self.capacity.map_or(all.capacity, |(capacity, _)| capacity);
        for (seconds, written) in all.timeouts.iter_mut().zip(&self.timeouts) {
            *seconds = written.map_or(*seconds, |(written, _)| written);
        }
        all
    }
}

fn entries<'n, 't>(node: &'n Node<'t>, what: &str, problems: &mut Problems) -> &'n [Entry<'t>] {
    match &node.kind {
        Kind::Map(entries) => return entries,
        Kind::Bad => {}
        _ => problems.error(node.span, format!("expected a mapping with {what}, found {}", node.describe())),
    }
    &[]
}

fn capacity(text: &str) -> Result<u32, Complaint> {
    let capacity = values::number(text, MAX_CAPACITY)?;
    if capacity < MIN_CAPACITY {
        return Err(format!("expected {MIN_CAPACITY} to {MAX_CAPACITY} connections, found {capacity}").into());
    }
    Ok(capacity)
}

fn timeout(text: &str) -> Result<u64, Complaint> {
    let seconds = values::duration(text)?;
    if seconds > LONGEST {
        return Err("a timeout is 30 days at most".into());
    }
    Ok(seconds)
}
