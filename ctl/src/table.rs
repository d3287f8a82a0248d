//! Aligned columns.

use std::io::Write;

use anstyle::{AnsiColor, Style};

/// Rows of cells; columns are as wide as their widest cell.
pub struct Table {
    right: &'static [usize],
    rows: Vec<Vec<Cell>>,
}

/// One cell: text without control characters, and its style.
pub struct Cell {
    text: String,
    style: Style,
}

/// A cell in a style.
pub fn styled(text: impl Into<String>, style: Style) -> Cell {
    Cell { text: clean(&text.into()), style }
}

/// Text of other people (a reason, a rule's name) must not steer the terminal it is shown on.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The style of a verdict, a verb or a state: red refuses or is missing, green lets through or enforces, yellow is
/// something in between.
#[must_use]
pub fn word_style(word: &str) -> Style {
    match word {
        "accept" | "allow" | "enforced" => AnsiColor::Green.on_default(),
        "drop" | "reject" | "deny" | "unavailable" | "off" => AnsiColor::Red.on_default(),
        "count" | "audit" | "degraded" | "would-drop" | "would-reject" => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// A cell with a verdict, a verb or a state.
pub fn word(text: &str) -> Cell {
    styled(text, word_style(text))
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        styled(text, Style::new())
    }
}

impl Table {
    /// A table with a header line; the columns `right` are aligned at the right.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N], right: &'static [usize]) -> Self {
        let bold = Style::new().bold();
        Self { right, rows: vec![header.map(|name| styled(name, bold)).into()] }
    }

    /// A table without a header.
    #[must_use]
    pub fn plain() -> Self {
        Self { right: &[], rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Writes it.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |cell: &Cell| cell.text.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty());
            let shown = &row[..last.map_or(0, |last| last + 1)];
            for (column, cell) in shown.iter().enumerate() {
                let padding = " ".repeat(widths[column] - width(cell));
                let style = cell.style;
                let text = &cell.text;
                match (self.right.contains(&column), column + 1 == shown.len()) {
                    (true, _) => write!(out, "{padding}{style}{text}{style:#}")?,
                    (false, false) => write!(out, "{style}{text}{style:#}{padding}")?,
                    (false, true) => write!(out, "{style}{text}{style:#}")?,
                }
                if column + 1 < shown.len() {
                    write!(out, "  ")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        anstream::adapter::strip_bytes(&out).into_vec().into_iter().map(char::from).collect()
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(["NAME", "HITS", "WHERE"], &[1]);
        table.row(["web".into(), "1234567".into(), "p.yaml:3".into()]);
        table.row([word("drop"), "1".into(), "".into()]);
        assert_eq!(text(&table), "NAME     HITS  WHERE\nweb   1234567  p.yaml:3\ndrop        1\n");
    }

    #[test]
    fn a_reason_cannot_steer_the_terminal() {
        let mut table = Table::plain();
        table.row(["\u{1b}[2Jgone\nnext".into()]);
        assert_eq!(clean("\u{1b}[2Jgone\nnext"), "\u{fffd}[2Jgone\u{fffd}next");
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert!(!out.contains(&0x1b));
    }
}
