use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use clap::{Args, Subcommand};
use ringfence_api::{MAX_BATCH, Prefix, SetAnswer, SetQuery, SetRequest, Timed};

use super::Listing;
use super::list::elements;
use crate::context::Context;
use crate::{Exit, Failure, units};

/// Change or list a dynamic set
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl set add jail 203.0.113.5 2001:db8::/48 --for 1h
  ringctl set add blocklist - < drop.txt    one element a line, `#` and `;` begin a comment
  echo '203.0.113.5 timeout 1h' | ringctl set add jail -    a timeout of its own; the others have --for
  ringctl set del jail - < over.txt
  ringctl set list jail")]
pub struct Set {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add elements, or renew their timeout
    Add {
        /// Name of the set, with or without its `$`
        name: String,
        /// Addresses and prefixes; `-` reads them from standard input, one a line as `ADDRESS [timeout DURATION]`
        #[arg(required = true, value_name = "ELEMENT|-")]
        elements: Vec<String>,
        /// How long, such as 90s, 10m or 7d; the set's `timeout` unless said. For those without a timeout of their own
        #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
        for_seconds: Option<u64>,
        /// Why, for the listing
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Delete elements
    Del {
        /// Name of the set, with or without its `$`
        name: String,
        /// Addresses and prefixes; `-` reads them from standard input
        #[arg(required = true, value_name = "ELEMENT|-")]
        elements: Vec<String>,
    },
    /// List the elements
    List {
        /// Name of the set, with or without its `$`
        name: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Delete all elements
    Flush {
        /// Name of the set, with or without its `$`
        name: String,
    },
}

impl Set {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        match self.action {
            Action::Add { name, elements, for_seconds, reason } => {
                let elements = read(&elements)?;
                let request = |batch: &[Line]| {
                    let (elements, timed) = by_timeout(batch);
                    SetRequest::Add { elements, timed, for_seconds, reason: reason.clone() }
                };
                change(&name, "added", elements.chunks(MAX_BATCH).map(request), context)
            }
            Action::Del { name, elements } => {
                let elements = read(&elements)?;
                if let Some((element, _)) = elements.iter().find(|(_, timeout)| timeout.is_some()) {
                    return Err(Failure::BadInput(format!("{element} has a timeout, which says nothing in `set del`")));
                }
                let request = |batch: &[Line]| SetRequest::Del { elements: by_timeout(batch).0 };
                change(&name, "deleted", elements.chunks(MAX_BATCH).map(request), context)
            }
            Action::Flush { name } => change(&name, "deleted", std::iter::once(SetRequest::Flush), context),
            Action::List { name, listing } => list(&name, listing, context),
        }
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('$').unwrap_or(name)
}

/// Sends the batches one after the other and sums their answers up.
fn change(
    name: &str,
    verb: &str,
    requests: impl Iterator<Item = SetRequest>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let mut sum = SetAnswer::default();
    for request in requests {
        let answer = context.ask(context.client.change_set(bare(name), &request))?;
        sum.done += answer.done;
        sum.missing += answer.missing;
        sum.refused.extend(answer.refused);
    }
    writeln!(context, "{verb} {}", sum.done)?;
    if sum.missing == 0 && sum.refused.is_empty() {
        return Ok(Exit::Done);
    }
    context.flush()?;
    let mut says: Vec<String> =
        sum.refused.iter().map(|refused| format!("{} was not added: {}", refused.address, refused.because)).collect();
    if sum.missing > 0 {
        says.push(format!("{} were not in the set", sum.missing));
    }
    Err(Failure::No(says.join("\n")))
}

/// An element and its own timeout in seconds.
type Line = (Prefix, Option<u64>);

/// Mistakes of a list that are shown.
const MAX_MISTAKES: usize = 20;

/// Every element is parsed before the first is sent, so that a mistake in the last line changes nothing.
fn read(arguments: &[String]) -> Result<Vec<Line>, Failure> {
    if arguments == ["-"] {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| Failure::BadInput(format!("cannot read standard input: {error}")))?;
        return parse_lines(&text);
    }
    let parse = |text: &String| Ok((text.parse().map_err(|error| Failure::BadInput(format!("{error}")))?, None));
    arguments.iter().map(parse).collect()
}

/// One element a line; `#` and `;` begin a comment, as in the common block lists.
fn parse_lines(text: &str) -> Result<Vec<Line>, Failure> {
    let (mut elements, mut mistakes, mut more) = (Vec::new(), Vec::new(), 0);
    for (index, line) in text.lines().enumerate() {
        let element = line.split(['#', ';']).next().unwrap_or_default().trim();
        match parse_line(element) {
            _ if element.is_empty() => {}
            Ok(element) => elements.push(element),
            Err(error) if mistakes.len() < MAX_MISTAKES => {
                mistakes.push(format!("standard input, line {}: {error}", index + 1));
            }
            Err(_) => more += 1,
        }
    }
    if more > 0 {
        mistakes.push(format!("and {more} more lines with mistakes"));
    }
    if mistakes.is_empty() { Ok(elements) } else { Err(Failure::BadInput(mistakes.join("\n"))) }
}

/// `ADDRESS` or `ADDRESS timeout DURATION`.
fn parse_line(line: &str) -> Result<Line, String> {
    let Some((element, rest)) = line.split_once(char::is_whitespace) else {
        return Ok((line.parse().map_err(|error| format!("{error}"))?, None));
    };
    let element = element.parse().map_err(|error| format!("{error}"))?;
    match rest.trim().strip_prefix("timeout").filter(|rest| rest.starts_with(char::is_whitespace)) {
        Some(duration) => Ok((element, Some(units::parse_duration(duration.trim())?))),
        None => Err(format!("expected `timeout DURATION` after the element, found `{}`", rest.trim().escape_debug())),
    }
}

/// The elements without a timeout, and the others by theirs. Of an element that is in both ways the last one counts.
fn by_timeout(batch: &[Line]) -> (Vec<Prefix>, Vec<Timed>) {
    let mut last: BTreeMap<Prefix, Option<u64>> = BTreeMap::new();
    let timed = batch.iter().any(|(_, timeout)| timeout.is_some());
    if !timed {
        return (batch.iter().map(|(element, _)| *element).collect(), Vec::new());
    }
    last.extend(batch.iter().copied());
    let mut groups: BTreeMap<Option<u64>, Vec<Prefix>> = BTreeMap::new();
    for (element, timeout) in last {
        groups.entry(timeout).or_default().push(element);
    }
    let plain = groups.remove(&None).unwrap_or_default();
    let timed = |(timeout, elements): (Option<u64>, _)| Some(Timed { for_seconds: timeout?, elements });
    (plain, groups.into_iter().filter_map(timed).collect())
}

fn list(name: &str, listing: Listing, context: &mut Context) -> Result<Exit, Failure> {
    let name = bare(name);
    let mut set = context.ask(context.client.set(name, SetQuery::default()))?;
    while let Some(after) = set.next {
        let more = context.ask(context.client.set(name, SetQuery { after: Some(after) }))?;
        set.elements.extend(more.elements);
        set.next = more.next;
    }
    if listing.json {
        context.json(&set)?;
        return Ok(Exit::Done);
    }
    let timeout = set.timeout_seconds.map_or_else(|| "none".to_owned(), units::duration);
    writeln!(context, "{} of {} elements, timeout {timeout}", set.size, set.capacity)?;
    if !set.elements.is_empty() {
        elements(&set.elements, units::now()).write(context)?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, Option<u64>)> {
        parse_lines(text).unwrap().iter().map(|(element, timeout)| (element.to_string(), *timeout)).collect()
    }

    #[test]
    fn lists_may_have_comments_and_timeouts() {
        let text =
            "# drop list\n192.0.2.1\n\n  2001:db8::/32 ; spam\r\n10.0.0.0/8# all\n192.0.2.9 \ttimeout  1h30m # x\n";
        let expected = [("192.0.2.1", None), ("2001:db8::/32", None), ("10.0.0.0/8", None), ("192.0.2.9", Some(5400))];
        assert_eq!(shown(text), expected.map(|(element, timeout)| (element.to_owned(), timeout)));
    }

    #[test]
    fn every_mistake_names_its_line() {
        let text =
            "192.0.2.1\nnonsense\n192.0.2.2 timeout\n192.0.2.3 timeout 5x\n192.0.2.4 for 5m\n192.0.2.5 timeout 0s\n";
        let error = parse_lines(text).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines[0].starts_with("standard input, line 2: `nonsense`"), "{error}");
        for (line, fragment) in [
            (1, "line 3: expected `timeout DURATION`"),
            (2, "line 4: expected a duration"),
            (3, "line 5: expected `timeout"),
            (4, "line 6: out of range"),
        ] {
            assert!(lines[line].contains(fragment), "no {fragment:?}:\n{error}");
        }
        let many = "x\n".repeat(50);
        assert!(parse_lines(&many).unwrap_err().to_string().ends_with("and 30 more lines with mistakes"));
    }

    #[test]
    fn timeouts_go_in_groups_and_the_last_line_counts() {
        let lines =
            parse_lines("192.0.2.1\n192.0.2.2 timeout 60s\n192.0.2.3 timeout 1m\n192.0.2.2\n192.0.2.4 timeout 2m\n");
        let (plain, timed) = by_timeout(&lines.unwrap());
        let text = |list: &[Prefix]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text(&plain), "192.0.2.1 192.0.2.2");
        let timed: Vec<_> = timed.iter().map(|timed| (timed.for_seconds, text(&timed.elements))).collect();
        assert_eq!(timed, [(60, "192.0.2.3".to_owned()), (120, "192.0.2.4".to_owned())]);
    }
}
