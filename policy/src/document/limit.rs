//! `limit:` beside a rule.

use ringfence_abi::connection::MAX_CAPACITY;

use super::node::parse;
use super::problems::{Complaint, Problems};
use super::tree::{Entry, Kind, Node};
use super::values;
use crate::model::{Limit, Per, Quantity, Rate, Verdict};

const KEYS: [&str; 5] = ["rate", "over", "connections", "burst", "per"];
const PER: [&str; 3] = ["source", "destination", "rule"];
/// Bits of an IPv6 address that name one customer's network.
const NETWORK: u8 = 64;

/// Reads a limit; `None`: something in it is wrong, and reported.
pub(super) fn read(node: &Node<'_>, verdict: Verdict, word: &str, problems: &mut Problems) -> Option<Limit> {
    let Kind::Map(entries) = &node.kind else {
        if !matches!(node.kind, Kind::Bad) {
            problems.error(
                node.span,
                format!("expected `{{rate: 10/minute, burst: 20, per: source}}`, found {}", node.describe()),
            );
        }
        return None;
    };
    let before = problems.errors();
    let (mut rate, mut connections, mut burst, mut per, mut kinds) = (None, None, None, Per::Rule, 0);
    for Entry { key, at, value } in entries {
        match &**key {
            "rate" | "over" => {
                kinds += 1;
                rate = parse(value, "a rate", values::rate, problems).map(|rate| (rate, key == "over"));
                if key == "rate" && verdict.refuses() {
                    let complaint = Complaint::new(format!(
                        "`rate` on `{word}` refuses what stays under the limit and lets the flood through"
                    ));
                    problems.error(*at, complaint.help("to refuse what is above the limit, write `over:`"));
                }
            }
            "connections" => {
                kinds += 1;
                connections = parse(value, "a number, at least 1", most, problems);
            }
            "burst" => burst = parse(value, "a number, at least 1", whole, problems).map(|burst| (burst, *at)),
            "per" => {
                per = parse(value, "`source`, `destination` or `rule`", sender, problems).unwrap_or(per);
            }
            _ => problems.error(*at, Complaint::unknown("key of `limit`", key, KEYS)),
        }
    }
    if kinds != 1 {
        problems.error(node.span, "a limit has one of `rate`, `over` and `connections`");
    }
    if let (Some(_), Some((_, at))) = (connections, burst) {
        problems.error(at, "`burst` beside `connections`: what is open is counted, not what begins");
    }
    if problems.errors() > before {
        return None;
    }
    if let Some(most) = connections {
        return Some(Limit { of: Quantity::Connections(most), over: verdict.refuses(), per });
    }
    let (rate, over): (Rate, bool) = rate?;
    let burst = burst.map_or_else(|| rate.usual_burst(), |(burst, _)| burst);
    Some(Limit { of: Quantity::Rate { rate, burst }, over, per })
}

fn most(text: &str) -> Result<u32, Complaint> {
    match values::number(text, MAX_CAPACITY)? {
        0 => Err("a limit of no connections: a rule without it says the same".into()),
        most => Ok(most),
    }
}

fn whole(text: &str) -> Result<u64, Complaint> {
    match values::number(text, 1 << 30)? {
        0 => Err("a burst of nothing lets nothing come".into()),
        burst => Ok(burst.into()),
    }
}

/// `source`, `destination/24`, `rule`. A length up to 32 is one of IPv4, and IPv6 is then told apart by networks of 64 bits; a
/// longer one is of IPv6, and IPv4 is told apart by whole addresses.
fn sender(text: &str) -> Result<Per, Complaint> {
    let (word, length) = text.split_once('/').map_or((text, None), |(word, length)| (word, Some(length)));
    let lengths = match length {
        None => (32, 128),
        Some(_) if word == "rule" => return Err("`per: rule` has no prefix length".into()),
        Some(length) => match values::number(length, 128)? as u8 {
            0 => return Err("`per: rule` is one limit for all".into()),
            v4 @ 1..=32 => (v4, NETWORK),
            v6 => (32, v6),
        },
    };
    match word {
        "source" => Ok(Per::Source(lengths.0, lengths.1)),
        "destination" => Ok(Per::Destination(lengths.0, lengths.1)),
        "rule" => Ok(Per::Rule),
        _ => Err(Complaint::unknown("value of `per`", text, PER)),
    }
}
