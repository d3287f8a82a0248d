//! Rules to positions: `type: [raw, packet]` is a socket type or a family, two conjunctions and so two positions.

use ringfence_abi::chain::MAX_POSITIONS;

use super::super::CompileError;
use crate::{model::HostRule, ranges::Ranges};

/// `AF_PACKET`.
const PACKET: u32 = 17;
/// Families and types are bytes.
const LARGEST: u32 = 255;

/// One bit of the rows.
#[derive(Clone, Debug)]
pub(super) struct Position {
    /// Index of its rule.
    pub(super) rule: usize,
    pub(super) family: Option<Ranges>,
    pub(super) kind: Option<Ranges>,
}

/// The positions of the rules, in their order.
pub(super) fn expand(rules: &[HostRule]) -> Result<Vec<Position>, CompileError> {
    let mut positions = Vec::with_capacity(rules.len());
    for (rule, content) in rules.iter().enumerate() {
        let mut ways = vec![Position { rule, family: content.matches.family.clone(), kind: None }];
        for condition in &content.matches.kind {
            let packet = Ranges::new(vec![(PACKET, PACKET)]);
            for way in &mut ways {
                restrict(&mut way.kind, &condition.none_of.types.complement(LARGEST));
                if condition.none_of.packet {
                    restrict(&mut way.family, &packet.complement(LARGEST));
                }
            }
            let Some(any_of) = &condition.any_of else { continue };
            let mut chosen = Vec::new();
            for way in ways {
                if !any_of.types.is_empty() {
                    let mut way = way.clone();
                    restrict(&mut way.kind, &any_of.types);
                    chosen.push(way);
                }
                if any_of.packet {
                    let mut way = way;
                    restrict(&mut way.family, &packet);
                    chosen.push(way);
                }
            }
            ways = chosen;
        }
        positions.extend(ways);
    }
    if positions.len() > MAX_POSITIONS {
        return Err(CompileError::TooManyPositions { chain: "host", positions: positions.len(), limit: MAX_POSITIONS });
    }
    Ok(positions)
}

fn restrict(had: &mut Option<Ranges>, to: &Ranges) {
    *had = Some(had.as_ref().map_or_else(|| to.clone(), |had| had.intersection(to)));
}
