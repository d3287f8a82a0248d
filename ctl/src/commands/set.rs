use std::io::{Read as _, Write as _};

use clap::{Args, Subcommand};
use ringfence_api::{MAX_BATCH, Prefix, SetAnswer, SetQuery, SetRequest};

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
        /// Addresses and prefixes; `-` reads them from standard input
        #[arg(required = true, value_name = "ELEMENT|-")]
        elements: Vec<String>,
        /// How long, such as 90s, 10m or 7d; the set's `timeout` unless said
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
                let request = |elements| SetRequest::Add { elements, for_seconds, reason: reason.clone() };
                change(&name, "added", batches(&elements)?.map(request), context)
            }
            Action::Del { name, elements } => {
                let request = |elements| SetRequest::Del { elements };
                change(&name, "deleted", batches(&elements)?.map(request), context)
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

/// Every element is parsed before the first is sent, so that a mistake in the last line changes nothing.
fn batches(arguments: &[String]) -> Result<impl Iterator<Item = Vec<Prefix>>, Failure> {
    let elements = if arguments == ["-"] {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::BadInput(format!("cannot read standard input: {error}")))?;
        parse_lines(&text)?
    } else {
        arguments
            .iter()
            .map(|text| text.parse().map_err(|error| Failure::BadInput(format!("{error}"))))
            .collect::<Result<_, _>>()?
    };
    let batches: Vec<Vec<Prefix>> = elements.chunks(MAX_BATCH).map(<[Prefix]>::to_vec).collect();
    Ok(batches.into_iter())
}

/// One element a line; `#` and `;` begin a comment, as in the common block lists.
fn parse_lines(text: &str) -> Result<Vec<Prefix>, Failure> {
    let mut elements = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let element = line.split(['#', ';']).next().unwrap_or_default().trim();
        if !element.is_empty() {
            let mistake = |error| Failure::BadInput(format!("standard input, line {}: {error}", index + 1));
            elements.push(element.parse().map_err(mistake)?);
        }
    }
    Ok(elements)
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

    #[test]
    fn lists_may_have_comments_and_a_mistake_names_its_line() {
        let text = "# drop list\n192.0.2.1\n\n  2001:db8::/32 ; spam\r\n10.0.0.0/8# all\n";
        let elements: Vec<String> = parse_lines(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(elements, ["192.0.2.1", "2001:db8::/32", "10.0.0.0/8"]);
        let error = parse_lines("192.0.2.1\nnonsense\n").unwrap_err().to_string();
        assert!(error.starts_with("standard input, line 2: `nonsense`"), "{error}");
    }

    #[test]
    fn large_lists_go_in_batches() {
        let elements: Vec<String> =
            (0..=MAX_BATCH).map(|i| std::net::Ipv4Addr::from(u32::try_from(i).unwrap()).to_string()).collect();
        let sizes: Vec<usize> = batches(&elements).unwrap().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [MAX_BATCH, 1]);
    }
}
