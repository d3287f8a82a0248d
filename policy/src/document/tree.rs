//! YAML to a small tree with the place of every key and value. What YAML has and the language has not (null, tags,
//! anchors, aliases, merge keys, `{}`, `[]`, duplicate keys, several documents) ends here, each with its own message.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::problems::{Complaint, Problems, quote};
use super::source::{Lines, Span};
use super::yaml_error;

/// How deep lists and mappings may lie in each other. The language itself needs nine levels.
const MAX_DEPTH: usize = 32;
/// Keys and values of a policy, in all its files.
pub(super) const MAX_NODES: usize = 2_000_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub kind: Kind<'t>,
    pub span: Span,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind<'t> {
    /// The source text, and whether it stood there without quotes.
    Scalar { text: Cow<'t, str>, plain: bool },
    /// Never empty.
    List(Vec<Node<'t>>),
    /// Never empty, no key twice.
    Map(Vec<Entry<'t>>),
    /// Already reported; whoever meets it says no more.
    Bad,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    pub key: Cow<'t, str>,
    pub at: Span,
    pub value: Node<'t>,
}

impl<'t> Node<'t> {
    /// The value for a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node<'t>> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// `a list`, for messages that say what was found.
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Bad => "an invalid value",
        }
    }
}

// A list or mapping whose end has not been read. `pending` is the key that waits for its value.
enum Frame<'t> {
    List { items: Vec<Node<'t>>, span: Span },
    Map { entries: Vec<Entry<'t>>, pending: Pending<'t>, span: Span, broken: bool },
}

enum Pending<'t> {
    /// The next scalar is a key.
    None,
    Key(Cow<'t, str>, Span),
    /// The key was refused: its value goes nowhere.
    Refused,
}

pub(super) struct Reader<'t, 'p> {
    text: &'t str,
    lines: &'p Lines,
    file: u32,
    problems: &'p mut Problems,
    nodes: &'p mut usize,
    stack: Vec<Frame<'t>>,
    root: Option<Node<'t>>,
    documents: usize,
}

/// Reads one file. `None`: it is not YAML, or has no content; that has been reported.
pub(super) fn read<'t>(
    text: &'t str,
    lines: &Lines,
    file: u32,
    nodes: &mut usize,
    problems: &mut Problems,
) -> Option<Node<'t>> {
    let reader = Reader { text, lines, file, problems, nodes, stack: Vec::new(), root: None, documents: 0 };
    // The parser takes a NUL for the end of the text.
    if let Some(at) = text.find('\0') {
        let line = text[..at].bytes().filter(|&byte| byte == b'\n').count() as u32 + 1;
        reader.problems.error(
            Span { file, line, column: 1, end: 2 },
            "the file holds a NUL byte: it is not a policy but binary data",
        );
        return None;
    }
    reader.run()
}

impl<'t> Reader<'t, '_> {
    fn run(mut self) -> Option<Node<'t>> {
        let mut parser = Parser::new_from_str(self.text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, at)) => {
                    let span = self.span(&at);
                    if !self.event(event, span) {
                        return None;
                    }
                }
                Err(error) => {
                    let (span, complaint) = yaml_error::explain(&error, self.text, self.lines, self.file);
                    self.problems.error(span, complaint);
                    return None;
                }
            }
        }
        if self.root.is_none() {
            let start = Span { file: self.file, line: 1, column: 1, end: 2 };
            self.problems.error(start, Complaint::new("the file is empty").help("a policy begins with `ringfence: 1`"));
        }
        self.root
    }

    fn span(&self, at: &saphyr_parser::Span) -> Span {
        let (line, column) = (at.start.line() as u32, at.start.col() as u32 + 1);
        let end = if at.end.line() == at.start.line() { at.end.col() as u32 + 1 } else { column + 1 };
        Span { file: self.file, line, column, end }
    }

    // False: reading on makes no sense.
    fn event(&mut self, event: Event<'t>, span: Span) -> bool {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let complaint = Complaint::new("a second YAML document; a policy file holds one");
                    self.problems.error(span, complaint.help("put it into a file of its own"));
                    return false;
                }
            }
            Event::Alias(_) => {
                let complaint = Complaint::new("an alias (`*name`), which policies do not have");
                self.problems.error(span, complaint.help("if the value begins with `*`, write it in quotes"));
                return self.value(Node { kind: Kind::Bad, span });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let decorated = self.refuse_decoration(anchor, tag.as_deref(), span);
                return self.scalar(text, style, decorated, span);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_decoration(anchor, tag.as_deref(), span);
                self.stack.push(Frame::List { items: Vec::new(), span });
                return self.depth(span);
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_decoration(anchor, tag.as_deref(), span);
                self.stack.push(Frame::Map { entries: Vec::new(), pending: Pending::None, span, broken: false });
                return self.depth(span);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(),
        }
        true
    }

    fn depth(&mut self, span: Span) -> bool {
        let fits = self.stack.len() <= MAX_DEPTH;
        if !fits {
            self.problems.error(span, too_deep());
        }
        fits
    }

    fn refuse_decoration(&mut self, anchor: usize, tag: Option<&saphyr_parser::Tag>, span: Span) -> bool {
        if let Some(tag) = tag {
            let written =
                if tag.handle == "!" { format!("!{}", tag.suffix) } else { format!("!{}{}", tag.handle, tag.suffix) };
            let complaint =
                Complaint::new(format!("YAML reads {} as a tag, which policies do not have", quote(&written)));
            let help = "a value that begins with `!` needs quotes; to negate, write `{not: ...}`";
            self.problems.error(span, complaint.help(help));
        }
        if anchor != 0 {
            let complaint = Complaint::new("an anchor (`&name`), which policies do not have");
            self.problems.error(
                span,
                complaint.help("a value that begins with `&` needs quotes; for a value used twice make a set"),
            );
        }
        tag.is_some() || anchor != 0
    }

    fn scalar(&mut self, text: Cow<'t, str>, style: ScalarStyle, decorated: bool, span: Span) -> bool {
        let plain = style == ScalarStyle::Plain;
        let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        if let Some(Frame::Map { pending: pending @ Pending::None, broken, .. }) = self.stack.last_mut() {
            *pending = if decorated || null || text == "<<" {
                *broken = true;
                if !decorated {
                    self.problems.error(span, bad_key(&text));
                }
                Pending::Refused
            } else {
                Pending::Key(text, span)
            };
            return true;
        }
        if decorated {
            return self.value(Node { kind: Kind::Bad, span });
        }
        if null {
            self.null(&text, span);
            return self.value(Node { kind: Kind::Bad, span });
        }
        self.value(Node { kind: Kind::Scalar { text, plain }, span })
    }

    // A missing value: say which key it is missing for.
    fn null(&mut self, text: &str, span: Span) {
        let (message, at) = match self.stack.last() {
            Some(Frame::Map { pending: Pending::Key(key, at), .. }) => {
                if let Some(complaint) = self.not_a_pair(key, *at) {
                    self.problems.error(*at, complaint);
                    // It is no field: nobody shall look for its name.
                    if let Some(Frame::Map { pending, broken, .. }) = self.stack.last_mut() {
                        (*pending, *broken) = (Pending::Refused, true);
                    }
                    return;
                }
                (format!("{} has no value", quote(key)), if text.is_empty() { *at } else { span })
            }
            Some(Frame::Map { .. }) => return,
            Some(Frame::List { .. }) => ("an item of the list has no value".to_owned(), span),
            None => ("the file has no content".to_owned(), span),
        };
        let complaint = Complaint::new(message);
        let comment = self.lines.get(self.text, span.line).is_some_and(|line| line.contains(" #"));
        let complaint = if !text.is_empty() {
            complaint.help(format!("`{text}` is YAML's null; in quotes it is text"))
        } else if comment {
            complaint.help("what follows ` #` is a comment; a value that has a `#` needs quotes")
        } else {
            complaint.help("give it a value, or leave it out")
        };
        self.problems.error(at, complaint);
    }

    // A key without a colon (a comma ended the value before), or a value whose last character is one (it became a key).
    fn not_a_pair(&self, key: &str, at: Span) -> Option<Complaint> {
        let line = self.lines.get(self.text, at.line)?;
        let mut after = line.chars().skip(at.end as usize - 1);
        if after.next() != Some(':') {
            return Some(
                Complaint::new(format!(
                    "{} stands inside `{{}}` without a value: a comma ends the value before it",
                    quote(key)
                ))
                .help("several values are a list, `[a, b]`; one that has a comma needs quotes"),
            );
        }
        let [.., Frame::List { .. }, Frame::Map { span, .. }] = self.stack.as_slice() else { return None };
        // In `[...]` such a mapping begins at its key, with no brace of its own; after `- ` it is an ordinary one.
        let before: String = line.chars().take(at.column as usize - 1).collect();
        let in_brackets = match before.trim_end().chars().next_back() {
            None => after.any(|c| c == ',' || c == ']'),
            last => matches!(last, Some('[' | ',')),
        };
        (in_brackets && *span == Span { end: span.end, ..at } && span.end == span.column).then(|| {
            Complaint::new(format!("YAML reads the `:` at the end of {} as a key's", quote(&format!("{key}:"))))
                .help("a value that ends in `:` needs quotes")
        })
    }

    fn end(&mut self) -> bool {
        let node = match self.stack.pop() {
            Some(Frame::List { items, span }) if items.is_empty() => {
                self.problems.error(span, Complaint::new("an empty list").help("leave the key out, or list something"));
                Node { kind: Kind::Bad, span }
            }
            Some(Frame::List { items, span }) => Node { kind: Kind::List(items), span },
            Some(Frame::Map { entries, span, broken, .. }) if entries.is_empty() => {
                if !broken {
                    let complaint = Complaint::new("an empty mapping");
                    self.problems.error(span, complaint.help("to match everything, write `any`"));
                }
                Node { kind: Kind::Bad, span }
            }
            Some(Frame::Map { entries, span, .. }) => Node { kind: Kind::Map(self.without_duplicates(entries)), span },
            None => return true,
        };
        self.value(node)
    }

    fn without_duplicates(&mut self, mut entries: Vec<Entry<'t>>) -> Vec<Entry<'t>> {
        let mut first: HashMap<Cow<'t, str>, u32> = HashMap::with_capacity(entries.len());
        entries.retain(|entry| match first.get(&entry.key) {
            None => {
                first.insert(entry.key.clone(), entry.at.line);
                true
            }
            Some(line) => {
                self.problems.error(entry.at, format!("{} is given twice, first in line {line}", quote(&entry.key)));
                false
            }
        });
        entries
    }

    // Puts a finished value where it belongs.
    fn value(&mut self, node: Node<'t>) -> bool {
        *self.nodes += 1;
        if *self.nodes > MAX_NODES {
            self.problems.error(
                node.span,
                format!("the policy has more than {MAX_NODES} values; large lists belong into files (`{{file: ...}}`)"),
            );
            return false;
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, pending, broken, .. }) => match std::mem::replace(pending, Pending::None) {
                Pending::None => {
                    self.problems.error(node.span, format!("{} as a key; keys are words", node.describe()));
                    *broken = true;
                    *pending = Pending::Refused;
                }
                Pending::Refused => {}
                Pending::Key(key, at) => entries.push(Entry { key, at, value: node }),
            },
        }
        true
    }
}

/// The parser has a bound of its own, which a text of brackets meets before ours.
pub(super) fn too_deep() -> Complaint {
    Complaint::new(format!("lists and mappings lie more than {MAX_DEPTH} levels deep"))
}

fn bad_key(text: &str) -> Complaint {
    if text == "<<" {
        Complaint::new("a merge key (`<<`), which policies do not have")
            .help("for rules used twice make a group, for values a set")
    } else {
        Complaint::new("a value without a key")
    }
}
