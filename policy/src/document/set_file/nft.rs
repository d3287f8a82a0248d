//! Elements as `nft list set`, `nft list ruleset` and nft scripts have them: lists in braces.

use std::collections::BTreeSet;

use super::super::problems::{Complaint, quote};
use super::taken::Taken;

// The longest word that means something is an IPv6 range.
const MAX_WORD: usize = 128;
// `add element bridge TABLE SET` has five; of a longer statement the first and the last word matter.
const MAX_STATEMENT: usize = 8;
// `ADDRESS timeout T expires T comment "..." counter packets N bytes N`.
const MAX_ELEMENT: usize = 16;
const MAX_DEPTH: usize = 32;

enum Block {
    /// A table, a chain, a set inside a rule: nothing in it is read but the sets below.
    Other,
    /// A set or a map, by its name.
    Set(String),
    /// The list of elements; whether they are of the set that is read.
    Elements(bool),
}

/// What the next byte belongs to.
#[derive(Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Text,
    Comment,
    Quotes,
}

/// A reader of one file, fed byte by byte: its lists may be one line of many megabytes.
#[derive(Default)]
pub(super) struct Nft {
    name: Option<String>,
    seen: BTreeSet<String>,
    blocks: Vec<Block>,
    word: Vec<u8>,
    has_word: bool,
    inside: Inside,
    // Words of the statement outside of lists; of the element inside.
    words: Vec<String>,
    // Where the element began.
    begun: usize,
    after_equals: bool,
}

impl Nft {
    pub fn new(name: Option<String>) -> Self {
        Self { name, ..Self::default() }
    }

    /// Takes a line, or a piece of one.
    pub fn piece(&mut self, piece: &[u8], taken: &mut Taken) -> Result<(), String> {
        piece.iter().try_for_each(|byte| self.byte(*byte, taken))
    }

    fn byte(&mut self, byte: u8, taken: &mut Taken) -> Result<(), String> {
        match self.inside {
            Inside::Comment if byte != b'\n' => return Ok(()),
            Inside::Quotes => {
                // A text ends with its line at the latest: what follows must not be swallowed.
                if matches!(byte, b'"' | b'\n') {
                    self.inside = Inside::Text;
                }
                return Ok(());
            }
            Inside::Text | Inside::Comment => self.inside = Inside::Text,
        }
        match byte {
            b'"' => {
                self.add(b'"');
                self.inside = Inside::Quotes;
            }
            b'#' => {
                self.end_word(taken);
                self.inside = Inside::Comment;
            }
            b'{' => {
                self.end_word(taken);
                self.open(taken)?;
            }
            b'}' => {
                self.end_word(taken);
                self.end_element(taken)?;
                if self.blocks.pop().is_none() {
                    return Err(format!("line {}: a `}}` that closes nothing", taken.line()));
                }
                self.words.clear();
            }
            b',' if self.in_list() => {
                self.end_word(taken);
                self.end_element(taken)?;
            }
            b'=' => {
                self.end_word(taken);
                self.after_equals = true;
            }
            b'\n' | b';' => {
                self.end_word(taken);
                if !self.in_list() {
                    self.statement(taken)?;
                }
            }
            b' ' | b'\t' | b'\r' => self.end_word(taken),
            other => self.add(other),
        }
        Ok(())
    }

    fn in_list(&self) -> bool {
        matches!(self.blocks.last(), Some(Block::Elements(_)))
    }

    fn add(&mut self, byte: u8) {
        self.has_word = true;
        if self.word.len() < MAX_WORD {
            self.word.push(byte);
        }
    }

    fn end_word(&mut self, taken: &Taken) {
        if !std::mem::take(&mut self.has_word) {
            return;
        }
        let word = String::from_utf8_lossy(&self.word).into_owned();
        self.word.clear();
        self.after_equals = false;
        if self.words.is_empty() {
            self.begun = taken.line();
        }
        if self.words.len() == if self.in_list() { MAX_ELEMENT } else { MAX_STATEMENT } {
            self.words.pop();
        }
        self.words.push(word);
    }

    fn open(&mut self, taken: &Taken) -> Result<(), String> {
        let line = taken.line();
        if self.blocks.len() == MAX_DEPTH {
            return Err(format!("line {line}: more than {MAX_DEPTH} blocks in each other"));
        }
        if self.in_list() {
            return Err(format!("line {line}: a `{{` in a list of elements"));
        }
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let own = self.blocks.iter().rev().find_map(|block| match block {
            Block::Set(name) => Some(name.as_str()),
            _ => None,
        });
        let equals = std::mem::take(&mut self.after_equals);
        let last = words.last().copied().unwrap_or_default();
        let list_of = match *words.as_slice() {
            ["elements"] if equals => Some(own.unwrap_or_default()),
            ["define" | "redefine", name] if equals => Some(name),
            ["element", ..] | ["add" | "create", "element", ..] => Some(last),
            _ => None,
        };
        let block = match (list_of, words.as_slice()) {
            (Some(name), _) => {
                let name = name.to_owned();
                Block::Elements(self.is_wanted(&name))
            }
            (None, ["set" | "map", ..] | ["add" | "create", "set" | "map", ..]) => {
                if self.name.as_deref() == Some(last) {
                    // It is there, though it may have no list.
                    self.seen.insert(last.to_owned());
                }
                Block::Set(last.to_owned())
            }
            _ => Block::Other,
        };
        self.blocks.push(block);
        self.words.clear();
        Ok(())
    }

    fn is_wanted(&mut self, set: &str) -> bool {
        // Bounded: a hostile file may have thousands of sets.
        if self.seen.len() < 20 && !self.seen.contains(set) {
            self.seen.insert(set.to_owned());
        }
        self.name.as_deref().is_none_or(|name| name == set)
    }

    /// A statement has ended: only the type of a set matters.
    fn statement(&mut self, taken: &Taken) -> Result<(), String> {
        self.after_equals = false;
        let words = std::mem::take(&mut self.words);
        let (Some(Block::Set(set)), Some(("type", kind))) =
            (self.blocks.last(), words.split_first().map(|(first, rest)| (first.as_str(), rest)))
        else {
            return Ok(());
        };
        let wanted = self.name.as_ref().is_none_or(|name| name == set);
        if wanted && !matches!(kind, [one] if one == "ipv4_addr" || one == "ipv6_addr") {
            let help =
                if self.name.is_none() { "; if another set of the file is meant, say so by `name:`" } else { "" };
            return Err(format!(
                "line {}: the set {} is of type {}, whose elements are not addresses alone; `ipv4_addr` and `ipv6_addr` \
                 can be read{help}",
                taken.line(),
                quote(set),
                quote(&kind.join(" "))
            ));
        }
        Ok(())
    }

    fn end_element(&mut self, taken: &mut Taken) -> Result<(), String> {
        let Some(Block::Elements(wanted)) = self.blocks.last() else { return Ok(()) };
        let words = std::mem::take(&mut self.words);
        let Some((element, options)) = words.split_first().filter(|_| *wanted) else { return Ok(()) };
        let line = std::mem::replace(&mut self.begun, taken.line());
        match options_of(options) {
            Ok(timeout) => {
                taken.timeouts += usize::from(timeout);
                taken.take_at(line, element, element)
            }
            Err(complaint) => {
                taken.refuse_at(line, &words.join(" "), complaint);
                Ok(())
            }
        }
    }

    pub fn end(&self) -> Result<(), String> {
        if !self.blocks.is_empty() {
            return Err("a `{` is not closed: the file is cut off".to_owned());
        }
        chosen(self.name.as_deref(), &self.seen)
    }
}

/// Whether the options of an element have a timeout.
fn options_of(options: &[String]) -> Result<bool, Complaint> {
    let mut timeout = false;
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        match option {
            "timeout" | "expires" => {
                timeout = true;
                options.next();
            }
            "comment" | "packets" | "bytes" => drop(options.next()),
            "counter" => {}
            "." => return Err(Complaint::new("an element of several values, expected an address alone")),
            ":" => return Err(Complaint::new("an element of a map, expected an address alone")),
            other => return Err(Complaint::new(format!("unknown option {}", quote(other)))),
        }
    }
    Ok(timeout)
}

/// Whether it is clear which set of the file is meant.
pub(super) fn chosen(name: Option<&str>, seen: &BTreeSet<String>) -> Result<(), String> {
    let list = || seen.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) if !seen.contains(name) && seen.is_empty() => Err(format!("there is no set {} in it", quote(name))),
        Some(name) if !seen.contains(name) && seen.len() < 20 => {
            Err(format!("there is no set {} in it; it has {}", quote(name), list()))
        }
        None if seen.len() > 1 => Err(format!("it has several sets ({}): say by `name:` which is meant", list())),
        _ => Ok(()),
    }
}
