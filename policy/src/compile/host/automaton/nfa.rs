//! Patterns to a nondeterministic automaton: a trie of their tokens, so that what begins alike is one. Of 10,000 ordinary
//! patterns nearly all of it is deterministic as it stands.

use std::collections::{BTreeMap, HashMap};

use crate::{
    glob::{Bytes, GlobError, Scope, Token, patterns},
    model::PathGlob,
};

/// The node in which patterns that begin with `**/` begin.
pub(super) const ANYWHERE: usize = 1;
/// No node.
const NONE: u32 = u32::MAX;

/// The way into a node from its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// By this byte.
    Byte(u8),
    /// By a byte of this set, a number in [`Nfa::sets`].
    Set(u16),
    /// By nothing.
    Free,
    /// By nothing; and by `/` into `mate`, from which by nothing.
    Deep,
    /// By nothing.
    Slices,
}

/// What a node stays in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loop {
    No,
    /// For bytes of a name.
    Name,
    /// For any byte.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) label: Label,
    pub(super) stay: Loop,
    pub(super) first_child: u32,
    pub(super) next_sibling: u32,
    /// `Deep` and `Slices`: the node that `/` leads to. Nodes outside the tree: the one they lead to by nothing.
    pub(super) mate: u32,
    /// Where its descendants begin and end among the ends, in the order of the tree.
    pub(super) ends: (u32, u32),
    /// It is outside the tree: [`Node::mate`] follows by nothing.
    pub(super) outside: bool,
}

/// A pattern's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The condition it is of.
    pub(super) condition: u32,
    /// Which of the condition's globs it came from, for messages.
    pub(super) glob: u32,
    pub(super) tree: bool,
}

/// The automaton.
pub(super) struct Nfa {
    pub(super) nodes: Vec<Node>,
    pub(super) sets: Vec<Bytes>,
    /// Ends at each node that has some.
    pub(super) ends_at: HashMap<u32, Vec<End>>,
    /// All ends in the order of the tree.
    pub(super) ends: Vec<End>,
    /// Nodes in which host paths, foreign paths and abstract names begin.
    pub(super) starts: [Vec<u32>; 3],
}

impl Nfa {
    /// `lists`: for each condition the patterns any of which makes it hold.
    pub(super) fn new(lists: &[Vec<PathGlob>], bad: &mut Option<(PathGlob, GlobError)>) -> Self {
        let root = |label| Node {
            label,
            stay: Loop::No,
            first_child: NONE,
            next_sibling: NONE,
            mate: NONE,
            ends: (0, 0),
            outside: false,
        };
        let mut nfa = Self {
            nodes: vec![root(Label::Free); 3],
            sets: Vec::new(),
            ends_at: HashMap::new(),
            ends: Vec::new(),
            starts: [vec![0, 1], vec![1], vec![2]],
        };
        let mut set_numbers = BTreeMap::new();
        let all =
            lists.iter().zip(0..).flat_map(|(list, condition)| list.iter().zip(0..).map(move |glob| (condition, glob)));
        for (condition, (glob, number)) in all {
            let patterns = patterns(glob).unwrap_or_else(|error| {
                *bad = Some((glob.clone(), error));
                Vec::new()
            });
            for pattern in patterns {
                let mut node = match pattern.scope {
                    Scope::Host => 0,
                    Scope::Anywhere => 1,
                    Scope::Abstract => 2,
                };
                for token in &pattern.tokens {
                    node = nfa.follow(node, *token, &mut set_numbers);
                }
                let end = End { condition, glob: number, tree: pattern.tree };
                nfa.ends_at.entry(node).or_default().push(end);
            }
        }
        nfa.order();
        nfa
    }

    /// The child by a token, made if there is none.
    fn follow(&mut self, parent: u32, token: Token, set_numbers: &mut BTreeMap<Bytes, u16>) -> u32 {
        let label = match token {
            Token::Byte(byte) => Label::Byte(byte),
            Token::Set(set) => {
                let next = self.sets.len() as u16;
                let number = *set_numbers.entry(set).or_insert(next);
                if number == next {
                    self.sets.push(set);
                }
                Label::Set(number)
            }
            Token::Star => Label::Free,
            Token::Deep => Label::Deep,
            Token::Slices => Label::Slices,
        };
        if let Some(child) = self.children(parent).find(|child| self.nodes[*child as usize].label == label) {
            return child;
        }
        let child = self.add(label);
        self.nodes[child as usize].next_sibling = self.nodes[parent as usize].first_child;
        self.nodes[parent as usize].first_child = child;
        match token {
            Token::Star => self.nodes[child as usize].stay = Loop::Name,
            Token::Deep => {
                let inside = self.outside(child, Loop::Any);
                self.nodes[child as usize].mate = inside;
            }
            Token::Slices => {
                // `/`, a name, `.slice`, and back.
                let name = self.outside(NONE, Loop::Name);
                let mut node = name;
                for byte in *b".slice" {
                    node = self.follow(node, Token::Byte(byte), set_numbers);
                }
                self.nodes[node as usize].mate = child;
                self.nodes[node as usize].outside = true;
                self.nodes[name as usize].outside = false;
                self.nodes[child as usize].mate = name;
            }
            Token::Byte(_) | Token::Set(_) => {}
        }
        child
    }

    fn add(&mut self, label: Label) -> u32 {
        let node = Node {
            label,
            stay: Loop::No,
            first_child: NONE,
            next_sibling: NONE,
            mate: NONE,
            ends: (0, 0),
            outside: false,
        };
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn outside(&mut self, mate: u32, stay: Loop) -> u32 {
        let number = self.add(Label::Free);
        let node = &mut self.nodes[number as usize];
        (node.mate, node.stay, node.outside) = (mate, stay, true);
        number
    }

    /// A node's children, the youngest first.
    pub(super) fn children(&self, parent: u32) -> impl Iterator<Item = u32> {
        let first = self.nodes[parent as usize].first_child;
        std::iter::successors((first != NONE).then_some(first), |child| {
            let next = self.nodes[*child as usize].next_sibling;
            (next != NONE).then_some(next)
        })
    }

    /// Adds a node and all that follow it by nothing.
    pub(super) fn close(&self, node: u32, into: &mut Vec<u32>) {
        into.push(node);
        let Node { outside, mate, .. } = self.nodes[node as usize];
        if outside {
            self.close(mate, into);
        }
        for child in self.children(node) {
            if matches!(self.nodes[child as usize].label, Label::Free | Label::Deep | Label::Slices) {
                self.close(child, into);
            }
        }
    }

    /// Lays the ends out in the order of the tree, so that those below a node lie side by side.
    fn order(&mut self) {
        let mut stack: Vec<(u32, bool)> = vec![(2, false), (1, false), (0, false)];
        while let Some((node, left)) = stack.pop() {
            let at = self.ends.len() as u32;
            if left {
                self.nodes[node as usize].ends.1 = at;
                continue;
            }
            self.nodes[node as usize].ends.0 = at;
            self.ends.extend(self.ends_at.get(&node).into_iter().flatten());
            stack.push((node, true));
            let children: Vec<u32> = self.children(node).collect();
            stack.extend(children.into_iter().map(|child| (child, false)));
        }
        for node in 0..self.nodes.len() {
            let Node { label, mate, .. } = self.nodes[node];
            if label == Label::Deep {
                self.nodes[mate as usize].ends = self.nodes[node].ends;
            }
        }
    }
}
