//! Collects what is wrong, so that a policy reports all its errors at once.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::source::{Lines, SourceText, Span};
use crate::diagnostic::{Diagnostic, Place, Report, Severity};

// More errors than anybody reads; it bounds what a hostile policy can make us keep.
const MAX_ERRORS: usize = 1000;
const MAX_WARNINGS: usize = 1000;
// Names among which a nearest one is looked for.
const MAX_NAMES: usize = 1000;

/// Why a value is refused, and what to write instead. What the value parsers return: they know no places.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub message: String,
    pub help: Option<String>,
    // What was found and the known words: the nearest is looked for only if the complaint is kept.
    pub near: Option<(String, Vec<&'static str>)>,
}

impl Complaint {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, near: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Suggests the nearest of the known words, unless there is a better help.
    pub fn near(mut self, found: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        self.near = Some((found.to_owned(), known.into_iter().collect()));
        self
    }

    /// A word that is none of the known ones.
    pub fn unknown(what: &str, found: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        Self::new(format!("unknown {what} {}", quote(found))).near(found, known)
    }

    fn into_parts(self) -> (String, Option<String>) {
        let near = self.near;
        (self.message, self.help.or_else(|| near.and_then(|(found, known)| nearest(&found, known))))
    }
}

impl From<String> for Complaint {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Complaint {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

#[derive(PartialEq, Eq, Hash)]
enum At {
    File(String),
    // A line of a file that is not policy text, with its contents.
    Line { file: String, line: u32, text: String },
    Span(Span),
}

#[derive(PartialEq, Eq, Hash)]
struct Problem {
    severity: Severity,
    at: At,
    message: String,
    help: Option<String>,
}

/// The problems found so far.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    errors: usize,
    warnings: usize,
    // A group's rules are checked again for each use.
    seen: HashSet<(Span, String)>,
}

impl Problems {
    /// Adds an error about a place.
    pub fn error(&mut self, span: Span, complaint: impl Into<Complaint>) {
        self.push(Severity::Error, span, complaint.into());
    }

    /// Adds a warning about a place.
    pub fn warning(&mut self, span: Span, complaint: impl Into<Complaint>) {
        self.push(Severity::Warning, span, complaint.into());
    }

    /// Adds an error about a file as a whole.
    pub fn file_error(&mut self, file: &str, message: impl Into<String>) {
        self.add(Severity::Error, At::File(file.to_owned()), Complaint::new(message));
    }

    /// Adds an error about a line of a set file.
    pub fn file_line_error(&mut self, file: &str, line: u32, text: &str, complaint: Complaint) {
        let at = At::Line { file: file.to_owned(), line, text: text.chars().take(200).collect() };
        self.add(Severity::Error, at, complaint);
    }

    /// Adds a warning about a line of a set file.
    pub fn file_line_warning(&mut self, file: &str, line: u32, text: &str, complaint: Complaint) {
        let at = At::Line { file: file.to_owned(), line, text: text.chars().take(200).collect() };
        self.add(Severity::Warning, at, complaint);
    }

    /// Adds a warning about a file as a whole.
    pub fn file_warning(&mut self, file: &str, message: impl Into<String>) {
        self.add(Severity::Warning, At::File(file.to_owned()), Complaint::new(message));
    }

    /// Reports the error of a value parser, or passes its value on.
    pub fn check<T>(&mut self, span: Span, result: Result<T, Complaint>) -> Option<T> {
        result.map_err(|complaint| self.error(span, complaint)).ok()
    }

    /// What the values mean, if all of them mean something; every other one is reported.
    pub fn check_all<T>(
        &mut self,
        values: Vec<(&str, Span)>,
        parse: impl Fn(&str) -> Result<T, Complaint>,
    ) -> Option<Vec<T>> {
        let parsed: Vec<Option<T>> = values.into_iter().map(|(text, span)| self.check(span, parse(text))).collect();
        parsed.into_iter().collect()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The name a policy declares that is nearest to one it does not.
    pub fn nearest<'a>(&self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
        // Bounds the work for a policy of thousands of names and as many mistakes.
        (self.errors < MAX_ERRORS).then(|| nearest(found, known.into_iter().take(MAX_NAMES))).flatten()
    }

    fn push(&mut self, severity: Severity, span: Span, complaint: Complaint) {
        if self.seen.len() < MAX_ERRORS + MAX_WARNINGS && !self.seen.insert((span, complaint.message.clone())) {
            return;
        }
        self.add(severity, At::Span(span), complaint);
    }

    fn add(&mut self, severity: Severity, at: At, complaint: Complaint) {
        let (count, limit) = match severity {
            Severity::Error => (&mut self.errors, MAX_ERRORS),
            Severity::Warning => (&mut self.warnings, MAX_WARNINGS),
        };
        *count += 1;
        if *count <= limit {
            let (message, help) = complaint.into_parts();
            self.list.push(Problem { severity, at, message, help });
        }
    }

    /// Everything found, with the lines it is about, in the order of files and lines.
    pub fn into_report(self, sources: &[SourceText], lines: &[Lines]) -> Report {
        let omitted = self.errors.saturating_sub(MAX_ERRORS);
        let mut list = self.list;
        // What concerns a whole file (it cannot be read) explains what follows, so it comes first.
        list.sort_by_key(|problem| match &problem.at {
            At::File(_) | At::Line { .. } => None,
            At::Span(span) => Some(*span),
        });
        let diagnostics = list
            .into_iter()
            .map(|problem| {
                let (file, place) = match problem.at {
                    At::File(file) => (file, None),
                    At::Line { file, line, text } => {
                        let end_column = text.chars().count().max(1) as u32 + 1;
                        (file, Some(Place { line, column: 1, end_column, source: text }))
                    }
                    At::Span(span) => {
                        let index = span.file as usize;
                        let source = &sources[index];
                        (source.name.clone(), Some(place(span, &source.text, &lines[index])))
                    }
                };
                Diagnostic { severity: problem.severity, file, place, message: problem.message, help: problem.help }
            })
            .collect();
        Report { diagnostics, omitted }
    }
}

fn place(span: Span, text: &str, lines: &Lines) -> Place {
    let source = lines.get(text, span.line).unwrap_or_default().to_owned();
    Place { line: span.line, column: span.column, end_column: span.end.max(span.column + 1), source }
}

/// A piece of the policy's text for a message: short, on one line, in backticks.
pub(super) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    // `escape_debug` is for Rust literals; quotes need no escape here.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// `did you mean` the known word nearest to what was written, else the list of them if it is short.
fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let best = (found.len() <= 64)
        .then(|| {
            known
                .iter()
                .map(|word| (strsim::damerau_levenshtein(found, word), Reverse(shared(found, word)), *word))
                .min()
        })
        .flatten()
        .filter(|(distance, _, word)| *distance <= (word.len().max(found.len()) / 3).max(1) && *distance < word.len())
        .map(|(.., word)| word)
        .or_else(|| known.iter().copied().find(|word| found.len() > 2 && word.starts_with(found)));
    match best {
        Some(word) => Some(format!("did you mean `{word}`?")),
        None if known.is_empty() => None,
        None if known.len() <= 24 => Some(format!("known: {}", known.join(", "))),
        None => None,
    }
}

// Of words equally near, the one that begins alike is meant.
fn shared(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}
