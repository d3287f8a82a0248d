use clap::Args;
use ringfence_api::{RuleLine, RulesQuery};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, word};
use crate::{Exit, Failure, units};

/// List every rule with what it counted
///
/// In order of judgement: the floor, every rule with its place in the policy, each chain's default.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl rules
  ringctl rules --json | jq '.[] | select(.verb == \"drop\" and .hits > 0) | .name'
  ringctl rules --reset    print the counters, then set them to zero")]
pub struct Rules {
    /// Set all counters to zero after reading them
    #[arg(long)]
    reset: bool,
    /// Also print the built-in lines that counted nothing (malformed packets and the like)
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
}

impl Rules {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let rules = context.ask(context.client.rules(RulesQuery { reset: self.reset }))?;
        if self.listing.json {
            context.json(&rules)?;
            return Ok(Exit::Done);
        }
        table(rules.iter().filter(|rule| self.all || is_listed(rule)), units::now()).write(context)?;
        Ok(Exit::Done)
    }
}

/// Rules, the floor and the default always; the other built-in lines once they have something to say.
fn is_listed(rule: &RuleLine) -> bool {
    rule.file.is_some() || rule.hits > 0 || rule.name == "default" || rule.name.starts_with("floor/")
}

fn table<'r>(rules: impl Iterator<Item = &'r RuleLine>, now: u64) -> Table {
    let mut table = Table::new(["CHAIN", "VERB", "RULE", "WHERE", "HITS", "PACKETS", "BYTES", "LAST HIT"], &[4, 5, 6]);
    for rule in rules {
        let place = match (&rule.file, rule.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            _ => "built in".to_owned(),
        };
        table.row([
            rule.chain.as_str().into(),
            word(&rule.verb),
            rule.name.as_str().into(),
            place.into(),
            units::count(rule.hits).into(),
            units::count(rule.packets).into(),
            units::count(rule.bytes).into(),
            units::ago(rule.last_hit, now).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_built_in_lines_are_left_out_and_nothing_else() {
        let line = |name: &str, file: Option<&str>, hits| RuleLine {
            name: name.into(),
            half: "network".into(),
            chain: "ingress".into(),
            verb: "drop".into(),
            file: file.map(Into::into),
            line: file.map(|_| 3),
            hits,
            packets: hits,
            bytes: 0,
            last_hit: None,
        };
        assert!(is_listed(&line("web", Some("p.yaml"), 0)));
        assert!(is_listed(&line("floor/arp", None, 0)) && is_listed(&line("default", None, 0)));
        assert!(is_listed(&line("malformed/vlan-depth", None, 1)));
        assert!(!is_listed(&line("malformed/vlan-depth", None, 0)) && !is_listed(&line("tables", None, 0)));
    }
}
