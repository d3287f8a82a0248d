//! Single values out of nodes, with their errors.

use super::problems::{Complaint, Problems};
use super::source::Span;
use super::tree::{Kind, Node};
use super::values;
use crate::model::Location;

/// A file and line, for messages about a second place.
pub(super) fn place(span: Span, names: &[String]) -> String {
    format!("{}:{}", names.get(span.file as usize).map_or("?", String::as_str), span.line)
}

impl Span {
    /// The place as the model has it.
    pub fn location(self) -> Location {
        Location { file: self.file, line: self.line, column: self.column }
    }
}

/// The text of a single value.
pub(super) fn text<'n>(node: &'n Node<'_>, what: &str, problems: &mut Problems) -> Option<&'n str> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text),
        Kind::Bad => None,
        _ => {
            problems.error(node.span, format!("expected {what}, found {}", node.describe()));
            None
        }
    }
}

/// A single value, parsed.
pub(super) fn parse<T>(
    node: &Node<'_>,
    what: &str,
    parser: impl FnOnce(&str) -> Result<T, Complaint>,
    problems: &mut Problems,
) -> Option<T> {
    let text = text(node, what, problems)?;
    problems.check(node.span, parser(text))
}

/// A boolean, without quotes.
pub(super) fn flag(node: &Node<'_>, problems: &mut Problems) -> Option<bool> {
    if let Kind::Scalar { text, plain: false } = &node.kind
        && values::boolean(text).is_ok()
    {
        problems.error(
            node.span,
            Complaint::new(format!("expected `true` or `false`, found the text \"{text}\"")).help("remove the quotes"),
        );
        return None;
    }
    parse(node, "`true` or `false`", values::boolean, problems)
}
