//! One column of lines with separators.
//!
//! A record is one line here, also where a quote is left open: a reader that looked for its end in the lines that follow
//! would swallow addresses without anybody noticing.

use super::super::problems::{Complaint, quote};
use super::feed::{Column, Feed};
use super::taken::Taken;

/// Where in the file we are.
pub(super) struct Csv {
    separator: char,
    // Counted from 0; not known yet where the header has to say it.
    index: Option<usize>,
    name: Option<String>,
    header: bool,
}

impl Csv {
    pub fn new(feed: &Feed) -> Self {
        let (index, name) = match &feed.column {
            Some(Column::Name(name)) => (None, Some(name.clone())),
            Some(Column::Number(number)) => (Some(*number as usize - 1), None),
            None => (Some(0), None),
        };
        // A name looks for the header itself.
        let header = feed.header && name.is_none();
        Self { separator: feed.separator.unwrap_or(','), index, name, header }
    }

    pub fn line(&mut self, line: &str, taken: &mut Taken) -> Result<(), String> {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') || text.starts_with(';') && self.separator != ';' {
            return Ok(());
        }
        if let Some(name) = self.name.take() {
            return self.find(&name, line, taken.line());
        }
        if std::mem::take(&mut self.header) {
            return Ok(());
        }
        match field(line, self.separator, self.index.unwrap_or_default()) {
            Ok(field) => taken.take(field.trim()),
            Err(complaint) => {
                taken.refuse(complaint);
                Ok(())
            }
        }
    }

    fn find(&mut self, name: &str, header: &str, line: usize) -> Result<(), String> {
        let names: Vec<String> = (0..)
            .map_while(|index| field(header, self.separator, index).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        self.index = names.iter().position(|known| known == name);
        if self.index.is_some() {
            return Ok(());
        }
        let known: Vec<String> = names.iter().take(20).map(|name| quote(name)).collect();
        Err(format!("the header in line {line} has no column {}, it has {}", quote(name), known.join(", ")))
    }
}

/// A field of a line (RFC 4180), counted from 0.
fn field(line: &str, separator: char, index: usize) -> Result<String, Complaint> {
    let mut rest = line.trim_end_matches(['\r', '\n']);
    for number in 0.. {
        let (field, after) = first(rest, separator)?;
        if number == index {
            return Ok(field);
        }
        let Some(after) = after else {
            let s = if number == 0 { "" } else { "s" };
            return Err(format!("the line has {} column{s}, column {} is read", number + 1, index + 1).into());
        };
        rest = after;
    }
    Ok(String::new())
}

/// The first field of a line, and what follows its separator if it has one.
fn first(line: &str, separator: char) -> Result<(String, Option<&str>), Complaint> {
    let Some(mut rest) = line.trim_start_matches(' ').strip_prefix('"') else {
        return Ok(match line.split_once(separator) {
            Some((field, after)) => (field.to_owned(), Some(after)),
            None => (line.to_owned(), None),
        });
    };
    let mut field = String::new();
    loop {
        let (part, after) =
            rest.split_once('"').ok_or_else(|| Complaint::new("a quote that is opened and not closed"))?;
        field.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            field.push('"');
            rest = more;
            continue;
        }
        let after = after.trim_start_matches(' ');
        return match after.strip_prefix(separator) {
            Some(next) => Ok((field, Some(next))),
            None if after.is_empty() => Ok((field, None)),
            None => Err(Complaint::new("text after a closing quote")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_and_without_quotes() {
        let get = |line: &str, index| field(line, ',', index).map_err(|complaint| complaint.message);
        assert_eq!(get("a,b,c\r\n", 2), Ok("c".into()));
        assert_eq!(get("a,,c", 1), Ok(String::new()));
        assert_eq!(get("\"a,\"\"x\"\"\", \"b\" ,c", 0), Ok("a,\"x\"".into()));
        assert_eq!(get("\"a,\"\"x\"\"\", \"b\" ,c", 1), Ok("b".into()));
        assert_eq!(get("a", 1), Err("the line has 1 column, column 2 is read".into()));
        assert_eq!(get("\"a,b", 0), Err("a quote that is opened and not closed".into()));
        assert_eq!(get("\"a\"b,c", 1), Err("text after a closing quote".into()));
        assert_eq!(field("a\tb", '\t', 1).ok(), Some("b".into()));
    }
}
