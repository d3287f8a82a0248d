//! What is wrong with a policy: a message, its place, the line, and what to write instead.

use std::fmt::{self, Write as _};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is not loaded.
    Error,
    /// It is, but probably does not do what was meant.
    Warning,
}

/// One thing to say about a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named to the loader.
    pub file: String,
    /// Where in the file; `None` when it is about the file as a whole (it is missing, it is not text).
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is wrong and what was expected, one line.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

/// A place within one line of a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Column after the last.
    pub end_column: u32,
    /// The text of the line; empty when the line is too long to be shown.
    pub source: String,
}

/// Everything that is wrong with a policy. Nothing was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Errors and warnings, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more errors there are than `diagnostics` holds.
    pub omitted: usize,
}

impl Report {
    /// The report as a person reads it, with the lines and marks; `colour` adds terminal escapes.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut text = render(&self.diagnostics, colour);
        if self.omitted > 0 {
            let _ = writeln!(text, "\n... and {} more errors", self.omitted);
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Renders diagnostics (a report's, or the warnings of a policy that was loaded).
#[must_use]
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[diagnostic.group()]));
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

impl Diagnostic {
    fn group(&self) -> Group<'_> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let group = match &self.place {
            None => title.element(Origin::path(self.file.as_str())),
            Some(place) if place.source.is_empty() => title
                .element(Origin::path(self.file.as_str()).line(place.line as usize).char_column(place.column as usize)),
            Some(place) => title.element(
                Snippet::source(place.source.as_str())
                    .path(self.file.as_str())
                    .line_start(place.line as usize)
                    .annotation(AnnotationKind::Primary.span(place.bytes())),
            ),
        };
        match &self.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

impl Place {
    // The marked columns as bytes of `source`; at least one character where there is one.
    fn bytes(&self) -> std::ops::Range<usize> {
        let at = |column: u32| {
            self.source.char_indices().nth(column.saturating_sub(1) as usize).map_or(self.source.len(), |(i, _)| i)
        };
        at(self.column)..at(self.end_column.max(self.column + 1))
    }
}
