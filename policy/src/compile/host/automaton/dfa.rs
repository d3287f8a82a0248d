//! The subset construction (Rabin and Scott 1959), with a bound.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    TooLarge,
    nfa::{ANYWHERE, Label, Loop, Nfa},
    sets::Sets,
};
use crate::glob::Bytes;

/// Bytes that the rows of all states may take.
const MAX_ROWS: usize = 64 << 20;
/// Members that the subsets may have together.
const MAX_MEMBERS: usize = 2 << 20;

/// The state that accepts nothing and stays.
pub(super) const DEAD: u32 = 0;

/// What a state means where a component ends: numbers of sets of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Info {
    pub(super) tree: u32,
    pub(super) exact: u32,
    pub(super) reach: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// Where a byte leads that no edge names, `/` excepted.
    pub(super) other: u32,
    /// Where `/` leads.
    pub(super) slash: u32,
    edges: (u32, u32),
    pub(super) info: Info,
}

/// The deterministic automaton.
pub(super) struct Dfa {
    /// The column of each byte; `/` has one of its own.
    pub(super) columns: [u8; 256],
    pub(super) width: u32,
    pub(super) slash: u8,
    pub(super) states: Vec<State>,
    edges: Vec<(u8, u32)>,
    pub(super) starts: [u32; 3],
}

impl Dfa {
    /// The columns that lead elsewhere than [`State::other`].
    pub(super) fn edges(&self, state: &State) -> &[(u8, u32)] {
        &self.edges[state.edges.0 as usize..state.edges.1 as usize]
    }

    /// Where a state leads, one after the other.
    pub(super) fn target(&self, state: u32, index: usize) -> Option<u32> {
        let state = &self.states[state as usize];
        match index {
            0 => Some(state.slash),
            1 => Some(state.other),
            _ => self.edges(state).get(index - 2).map(|(_, target)| *target),
        }
    }

    /// Builds it. `below`: as in [`super::Automaton::new`].
    pub(super) fn new(nfa: &Nfa, sets: &mut Sets, below: Option<&HashSet<u32>>) -> Result<Self, TooLarge> {
        let (columns, width) = columns(nfa);
        let slash = columns[usize::from(b'/')];
        let mut builder = Builder {
            nfa,
            columns_of: nfa.sets.iter().map(|set| columns_in(set, &columns)).collect(),
            columns: &columns,
            slash,
            limit: MAX_ROWS / (4 * (width as usize + 1)),
            single: vec![DEAD; nfa.nodes.len()],
            several: HashMap::new(),
            members: vec![Rc::default()],
            total: 0,
        };
        let mut starts = [DEAD; 3];
        for (start, nodes) in starts.iter_mut().zip(&nfa.starts) {
            *start = builder.state(nodes)?;
        }
        let mut states = vec![State::default()];
        let mut edges = Vec::new();
        while states.len() < builder.members.len() {
            states.push(builder.step(states.len(), &mut edges)?);
        }
        for (number, state) in states.iter_mut().enumerate().skip(1) {
            state.info = builder.info(number, state.slash, sets, below);
            if sets.too_large() {
                return Err(builder.too_large());
            }
        }
        Ok(Self { columns, width, slash, states, edges, starts })
    }
}

struct Builder<'a> {
    nfa: &'a Nfa,
    columns_of: Vec<Vec<u8>>,
    columns: &'a [u8; 256],
    slash: u8,
    limit: usize,
    /// States of one node, which nearly all are.
    single: Vec<u32>,
    several: HashMap<Rc<[u32]>, u32>,
    /// The nodes of each state.
    members: Vec<Rc<[u32]>>,
    total: usize,
}

impl Builder<'_> {
    /// The state of these nodes and all that follow by nothing.
    fn state(&mut self, nodes: &[u32]) -> Result<u32, TooLarge> {
        let mut closed = Vec::with_capacity(nodes.len());
        for node in nodes {
            self.nfa.close(*node, &mut closed);
        }
        closed.sort_unstable();
        closed.dedup();
        let next = self.members.len() as u32;
        let number = match closed.as_slice() {
            [] => return Ok(DEAD),
            [one] => {
                let known = &mut self.single[*one as usize];
                if *known == DEAD {
                    *known = next;
                }
                *known
            }
            several => self.several.get(several).copied().unwrap_or(next),
        };
        if number == next {
            self.total += closed.len();
            if self.members.len() >= self.limit || self.total > MAX_MEMBERS {
                return Err(self.too_large());
            }
            let closed: Rc<[u32]> = closed.into();
            if closed.len() > 1 {
                self.several.insert(Rc::clone(&closed), next);
            }
            self.members.push(closed);
        }
        Ok(number)
    }

    fn step(&mut self, number: usize, edges: &mut Vec<(u8, u32)>) -> Result<State, TooLarge> {
        let members = Rc::clone(&self.members[number]);
        let mut moves: Vec<(u8, u32)> = Vec::new();
        let (mut names, mut any) = (Vec::new(), Vec::new());
        for &member in &*members {
            let node = &self.nfa.nodes[member as usize];
            match node.stay {
                Loop::No => {}
                Loop::Name => names.push(member),
                Loop::Any => any.push(member),
            }
            if matches!(node.label, Label::Deep | Label::Slices) {
                moves.push((self.slash, node.mate));
            }
            for child in self.nfa.children(member) {
                match self.nfa.nodes[child as usize].label {
                    Label::Byte(byte) => moves.push((self.columns[usize::from(byte)], child)),
                    Label::Set(set) => {
                        moves.extend(self.columns_of[usize::from(set)].iter().map(|column| (*column, child)));
                    }
                    Label::Free | Label::Deep | Label::Slices => {}
                }
            }
        }
        moves.sort_unstable();
        names.extend_from_slice(&any);
        let begin = edges.len() as u32;
        let mut state = State { other: self.state(&names)?, slash: self.state(&any)?, ..State::default() };
        for group in moves.chunk_by(|a, b| a.0 == b.0) {
            let column = group[0].0;
            let mut nodes: Vec<u32> = group.iter().map(|(_, node)| *node).collect();
            nodes.extend_from_slice(if column == self.slash { &any } else { &names });
            let target = self.state(&nodes)?;
            if column == self.slash {
                state.slash = target;
            } else {
                edges.push((column, target));
            }
        }
        state.edges = (begin, edges.len() as u32);
        Ok(state)
    }

    fn info(&self, number: usize, slash: u32, sets: &mut Sets, below: Option<&HashSet<u32>>) -> Info {
        let (mut tree, mut exact) = (Vec::new(), Vec::new());
        for member in &*self.members[number] {
            for end in self.nfa.ends_at.get(member).into_iter().flatten() {
                if end.tree { &mut tree } else { &mut exact }.push(end.condition);
            }
        }
        let mut reach = Vec::new();
        if let Some(excluded) = below {
            // What is excluded here alone may still be refused below.
            reach.extend(exact.iter().filter(|condition| excluded.contains(condition)));
            // What a pattern for every place names keeps its protection wherever it is moved, and could lie below any
            // directory at all: it protects none from being moved or mounted over.
            let anywhere = self.nfa.nodes[ANYWHERE].ends;
            for member in &*self.members[slash as usize] {
                let (begin, end) = self.nfa.nodes[*member as usize].ends;
                if anywhere.0 <= begin && end <= anywhere.1 {
                    continue;
                }
                reach.extend(self.nfa.ends[begin as usize..end as usize].iter().map(|end| end.condition));
            }
        }
        Info { tree: sets.intern(tree), exact: sets.intern(exact), reach: sets.intern(reach) }
    }

    /// The patterns behind the loops that the most states are in.
    fn too_large(&self) -> TooLarge {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for member in self.members.iter().flat_map(|members| &**members) {
            let node = &self.nfa.nodes[*member as usize];
            if node.stay != Loop::No && node.ends.0 < node.ends.1 {
                *counts.entry(*member).or_default() += 1;
            }
        }
        let mut counts: Vec<(usize, u32)> = counts.into_iter().map(|(member, count)| (count, member)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mut worst = Vec::new();
        for (_, member) in counts {
            let (begin, end) = self.nfa.nodes[member as usize].ends;
            for end in &self.nfa.ends[begin as usize..end as usize] {
                if !worst.contains(&(end.condition, end.glob)) && worst.len() < 3 {
                    worst.push((end.condition, end.glob));
                }
            }
        }
        // Without a loop it is their number alone.
        if worst.is_empty() {
            worst.extend(self.nfa.ends.last().map(|end| (end.condition, end.glob)));
        }
        TooLarge { worst }
    }
}

/// Bytes that no pattern tells apart share a column.
fn columns(nfa: &Nfa) -> ([u8; 256], u32) {
    let mut literal = [false; 256];
    literal[usize::from(b'/')] = true;
    for node in &nfa.nodes {
        if let Label::Byte(byte) = node.label {
            literal[usize::from(byte)] = true;
        }
    }
    let mut numbers: HashMap<(u16, Vec<bool>), u8> = HashMap::new();
    let mut columns = [0; 256];
    for byte in 0..=255_u8 {
        let own = if literal[usize::from(byte)] { u16::from(byte) } else { 256 };
        let member = nfa.sets.iter().map(|set| set.contains(byte)).collect();
        let next = numbers.len() as u8;
        columns[usize::from(byte)] = *numbers.entry((own, member)).or_insert(next);
    }
    (columns, numbers.len() as u32)
}

fn columns_in(set: &Bytes, columns: &[u8; 256]) -> Vec<u8> {
    let mut inside: Vec<u8> =
        (0..=255).filter(|byte| set.contains(*byte)).map(|byte| columns[usize::from(byte)]).collect();
    inside.sort_unstable();
    inside.dedup();
    inside
}
