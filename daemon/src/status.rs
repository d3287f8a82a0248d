//! `ringctl status` and `rules`.

use std::collections::BTreeMap;

use ringfence_abi::counter;
use ringfence_api::{FailDirection, Half, Halves, Hook, Mode, RuleLine, RulesQuery, SetFile, State, Status};

use crate::apply::change::pending_answer;
use crate::apply::off::{FORBIDDEN, how};
use crate::daemon::{Control, Daemon, EMPTY};
use crate::error::Result;
use crate::interfaces::attachments::Attachment;
use crate::interfaces::select::Ingress;
use crate::kernel::{self, AttachReport, Direction, Kernel};
use crate::state::generations::{Record, SetRecord};

/// In the order of listings.
const CHAINS: [&str; 3] = ["ingress", "egress", "host"];

/// A half without figures.
pub(crate) fn half(state: State, because: Option<String>, hooks: Vec<Hook>) -> Half {
    Half { state, because, hooks, left_out: Vec::new(), figures: BTreeMap::new() }
}

impl Daemon {
    /// State of every hook and interface.
    pub fn status(&self) -> Result<Status> {
        let control = self.control();
        let running = control.running.as_ref().filter(|running| running.number() != EMPTY);
        let audit = control.standing.get().audit;
        let mode = if audit.is_some() || running.is_some_and(|running| running.audits()) {
            Mode::Audit
        } else {
            Mode::Enforce
        };
        let misses = |of: fn(&Kernel) -> kernel::Result<u64>| {
            self.with_kernel(|kernel| Ok(kernel.map(of).transpose()?.unwrap_or_default()))
        };
        let lost = BTreeMap::from([
            ("dispatch-miss".to_owned(), misses(Kernel::dispatch_misses)?),
            ("host-dispatch-miss".to_owned(), misses(Kernel::host_misses)?),
        ]);
        Ok(Status {
            generation: running.map(|running| running.number()),
            policy: running.map(|running| running.record.policy.clone()),
            halves: Halves { network: self.network_half(&control, mode), host: self.host_half(&control, mode)? },
            lost,
            mode,
            mode_until: audit.and_then(|audit| audit.until).map(|until| until.wall / 1000),
            pending: pending_answer(&control),
            problems: control.problems.values().cloned().collect(),
            set_files: running.map(|running| self.shown_set_files(&running.record)).unwrap_or_default(),
            fail_directions: fail_directions(&control)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn shown_set_files(&self, record: &Record) -> Vec<SetFile> {
        let shown = |set: &SetRecord| SetFile {
            set: set.set.clone(),
            file: set.path.display().to_string(),
            format: set.feed.format.word().to_owned(),
            elements: set.elements as u64,
            refused: set.refused as u64,
            because: set.refusal.clone(),
            stale: self.feeds.why_stale(&set.path),
        };
        record.sets.iter().map(shown).collect()
    }

    fn network_half(&self, control: &Control, mode: Mode) -> Half {
        if self.is_off() {
            return half(State::Off, Some(self.why_off()), Vec::new());
        }
        let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
            return half(State::Unused, Some("no policy is in force".to_owned()), Vec::new());
        };
        let mut hooks: Vec<Hook> =
            control.attachments.all.values().flat_map(|attachment| hooks(attachment, mode)).collect();
        hooks.extend(control.attachments.unsupported.iter().map(|unsupported| Hook {
            hook: "ingress".to_owned(),
            interface: Some(unsupported.name.clone()),
            state: State::Unavailable,
            how: None,
            because: Some(format!("its frames (link type {}) cannot be read", unsupported.link_type)),
            remedy: Some("leave it out of `interfaces`".to_owned()),
        }));
        let Some(meaning) = &running.meaning else {
            let because =
                Some("another version of the daemon loaded the policy; interfaces are not followed".to_owned());
            return half(State::Degraded, because, hooks);
        };
        if !meaning.demand.ingress && !meaning.demand.egress {
            return half(State::Unused, Some("the policy has no network rules".to_owned()), hooks);
        }
        if hooks.is_empty() {
            let because = Some("the policy covers no interface that is there now".to_owned());
            return half(State::Degraded, because, hooks);
        }
        let enforced = if mode == Mode::Audit { State::Audit } else { State::Enforced };
        let bad = hooks.iter().find(|hook| matches!(hook.state, State::Unavailable | State::Degraded));
        match bad {
            None => half(enforced, None, hooks),
            Some(bad) => {
                let because = Some(format!(
                    "{} on {}: {}",
                    bad.hook,
                    bad.interface.as_deref().unwrap_or("-"),
                    bad.because.as_deref().unwrap_or("-")
                ));
                half(State::Degraded, because, hooks)
            }
        }
    }

    /// Why nothing is enforced.
    pub(crate) fn why_off(&self) -> String {
        if self.forbidden {
            format!("the kernel's command line says `{FORBIDDEN}`: boot without it")
        } else {
            "`ringctl off`; `ringctl on` puts it in force again".to_owned()
        }
    }

    /// Every line and what it counted.
    pub fn rules(&self, query: RulesQuery) -> Result<Vec<RuleLine>> {
        let control = self.control();
        let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
            return Ok(Vec::new());
        };
        let mut totals = running.total()?;
        // Until it is confirmed or gone, what the previous generation counted is still in the kernel.
        if let Some(pending) = &control.pending {
            let before = pending.previous.total_for(&running.lines)?;
            for (total, before) in totals.iter_mut().zip(before) {
                *total = total.plus(before);
            }
        }
        let lines = running.lines.iter().zip(totals).map(|(line, count)| {
            let (file, number) = line.at.clone().map_or((None, None), |(file, number)| (Some(file), Some(number)));
            RuleLine {
                name: line.name.clone(),
                half: if line.chain == "host" { "host" } else { "network" }.to_owned(),
                chain: line.chain.clone(),
                verb: line.verb.clone(),
                file,
                line: number,
                hits: count.packets,
                packets: if line.chain == "host" { 0 } else { count.packets },
                bytes: count.bytes,
                last_hit: (count.last > 0).then_some(count.last / 1000),
            }
        });
        // Without `host:` its chain has nothing to say, unless a dynamic entry gave it something to count.
        let unused = running.meaning.as_ref().is_some_and(|meaning| meaning.host.implicit);
        let mut lines: Vec<RuleLine> = lines.filter(|line| !unused || line.half != "host" || line.hits > 0).collect();
        in_order_of_judgement(&mut lines);
        if query.reset {
            running.reset(&self.store)?;
            if let Some(pending) = &control.pending {
                pending.previous.reset(&self.store)?;
            }
        }
        Ok(lines)
    }
}

/// Malformed frames, floor, dynamic entries, rules, default; ingress, egress, host. Sorting keeps the rules' own order.
fn in_order_of_judgement(lines: &mut [RuleLine]) {
    let place = |line: &RuleLine| {
        let stage = match line.name.as_str() {
            _ if line.file.is_some() && line.name != "default" => 3,
            name if name.starts_with("malformed/") || name.starts_with("unknown/") => 0,
            "init" | "protected" => 1,
            name if name.starts_with("floor/") => 1,
            "dynamic" => 2,
            "default" => 4,
            _ => 5,
        };
        (CHAINS.iter().position(|chain| *chain == line.chain), stage)
    };
    lines.sort_by_key(place);
}

fn hooks(attachment: &Attachment, mode: Mode) -> Vec<Hook> {
    let name = &attachment.wanted.name;
    let state = if mode == Mode::Audit { State::Audit } else { State::Enforced };
    let missing = |hook: &str| Hook {
        hook: hook.to_owned(),
        interface: Some(name.clone()),
        state: State::Unavailable,
        how: None,
        because: attachment.failure.clone(),
        remedy: Some("it is tried again; the log has the details".to_owned()),
    };
    let wanted =
        [(Direction::Ingress, attachment.wanted.ingress.is_some()), (Direction::Egress, attachment.wanted.egress)];
    let one = |(direction, _): (Direction, bool)| {
        let word: &str = direction.into();
        match attachment.reports.iter().find(|report| report.direction == direction) {
            None => missing(word),
            Some(report) => Hook {
                hook: word.to_owned(),
                interface: Some(name.clone()),
                state,
                how: Some(how(report.how).to_owned()),
                because: because(attachment, report),
                remedy: None,
            },
        }
    };
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(one).collect()
}

/// Why it is not in the fastest way.
fn because(attachment: &Attachment, report: &AttachReport) -> Option<String> {
    let chosen = match (report.direction, attachment.wanted.ingress) {
        (Direction::Ingress, Some(Ingress::Tc(reason))) => Some(reason.text().to_owned()),
        _ => None,
    };
    report.degraded_because.clone().or(chosen)
}

/// Traffic and calls for which the fail direction was taken, by chain.
fn fail_directions(control: &Control) -> Result<Vec<FailDirection>> {
    let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
        return Ok(Vec::new());
    };
    let totals = running.total()?;
    let directions = running.lines.iter().zip(totals).filter_map(|(line, count)| {
        let host = line.chain == "host";
        let gets = match line.name.as_str() {
            "dispatch" | "continuations" | "tables" if host => "deny",
            name if host && name.starts_with("unknown/") => "judged",
            name if name.strip_prefix("malformed/").is_some_and(|n| counter::MALFORMED_NAMES.contains(&n)) => "drop",
            "continuations" | "tables" => "drop",
            "reject/limited" | "reject/failed" => "drop, unanswered",
            "unknown" => "judged",
            _ => return None,
        };
        let (chain, name) = (line.chain.clone(), line.name.clone());
        Some(FailDirection { chain, name, gets: gets.to_owned(), packets: count.packets })
    });
    Ok(directions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(chain: &str, name: &str, file: Option<&str>) -> RuleLine {
        RuleLine {
            name: name.into(),
            half: "network".into(),
            chain: chain.into(),
            verb: "-".into(),
            file: file.map(str::to_owned),
            line: None,
            hits: 0,
            packets: 0,
            bytes: 0,
            last_hit: None,
        }
    }

    #[test]
    fn lines_are_listed_as_they_are_judged() {
        let mut lines = [
            line("ingress", "default", Some("p")),
            line("ingress", "floor/arp", None),
            line("ingress", "malformed/bad-network", None),
            line("ingress", "dynamic", None),
            line("ingress", "tables", None),
            line("egress", "z", Some("p")),
            line("ingress", "ssh", Some("p")),
            line("ingress", "apt", Some("p")),
        ];
        in_order_of_judgement(&mut lines);
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["malformed/bad-network", "floor/arp", "dynamic", "ssh", "apt", "default", "tables", "z"]);
    }
}
