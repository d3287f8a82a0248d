//! Text that is not YAML: what the parser says, and the missing quote that is nearly always behind it.

use saphyr_parser::ScanError;

use super::problems::Complaint;
use super::source::{Lines, Span};
use super::tree;

/// The place and the complaint for a parser's error.
pub(super) fn explain(error: &ScanError, text: &str, lines: &Lines, file: u32) -> (Span, Complaint) {
    let mark = error.marker();
    let (line, column) = (mark.line() as u32, mark.col() as u32 + 1);
    let span = Span { file, line, column, end: column + 1 };
    let shown = lines.get(text, line).unwrap_or_default();
    let at = shown.chars().nth(mark.col());
    if error.info() == "recursion limit exceeded" {
        return (span, tree::too_deep());
    }
    let complaint = Complaint::new(format!("this is not YAML: {}", error.info()));
    let complaint = match help(error.info(), at, shown, line, text, lines) {
        Some(help) => complaint.help(help),
        None => complaint,
    };
    (span, complaint)
}

fn help(info: &str, at: Option<char>, shown: &str, line: u32, text: &str, lines: &Lines) -> Option<String> {
    if let Some(first @ ('*' | '&' | '!' | '@' | '`' | '%')) = at {
        return Some(format!("a value that begins with `{first}` needs quotes"));
    }
    if info.contains("anchor or alias") {
        return Some("a value that begins with `*` or `&` needs quotes".into());
    }
    if info.contains("mapping values are not allowed") {
        return Some(
            "a value that has `: ` in it, or ends in `:`, needs quotes; or the line is indented too far".into(),
        );
    }
    if at == Some('\t') || shown.starts_with('\t') {
        return Some("indent with spaces, YAML takes no tabs".into());
    }
    // A comment that swallowed a closing bracket or quote is noticed some lines later.
    let swallowed = (line.saturating_sub(8)..=line).filter_map(|line| lines.get(text, line)).any(|line| {
        line.split_once(" #").is_some_and(|(before, comment)| open(before) && comment.contains([']', '}', '"', '\'']))
    });
    if swallowed {
        return Some("what follows ` #` is a comment; a value that has a `#` needs quotes".into());
    }
    (at == Some(':'))
        .then(|| "a value that has a `: ` in it, or ends in `:`, needs quotes; is a bracket not closed?".into())
}

// Whether a piece of a line leaves a bracket or a quote open.
fn open(text: &str) -> bool {
    let count = |c: char| text.matches(c).count();
    count('[') > count(']') || count('{') > count('}') || count('"') % 2 == 1 || count('\'') % 2 == 1
}
