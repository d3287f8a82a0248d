//! `ringctl status` and `rules`.

use std::collections::BTreeMap;
use std::fs;

use ringfence_abi::counter;
use ringfence_api::{FailDirection, Half, Halves, Hook, Mode, RuleLine, RulesQuery, State, Status};

use crate::apply::change::pending_answer;
use crate::apply::off::how;
use crate::daemon::{Control, Daemon, EMPTY};
use crate::error::Result;
use crate::interfaces::attachments::Attachment;
use crate::interfaces::select::Ingress;
use crate::kernel::{AttachReport, Direction};

/// Why the host half does nothing.
pub const HOST_UNAVAILABLE: &str = "arrives with the host half";

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
        let misses = if self.is_off() { 0 } else { self.kernel(|kernel| Ok(kernel.dispatch_misses()?))? };
        Ok(Status {
            generation: running.map(|running| running.number()),
            policy: running.map(|running| running.record.policy.clone()),
            halves: Halves { network: self.network_half(&control, mode), host: host_half() },
            lost: BTreeMap::from([("dispatch-miss".to_owned(), misses)]),
            mode,
            mode_until: audit.and_then(|audit| audit.until).map(|until| until.wall / 1000),
            pending: pending_answer(&control),
            problems: control.problems.values().cloned().collect(),
            fail_directions: fail_directions(&control)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn network_half(&self, control: &Control, mode: Mode) -> Half {
        if self.is_off() {
            let because = Some("`ringctl off`; `ringctl on` puts it in force again".to_owned());
            return Half { state: State::Off, because, hooks: Vec::new() };
        }
        let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
            return Half { state: State::Unused, because: Some("no policy is in force".to_owned()), hooks: Vec::new() };
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
            return Half { state: State::Degraded, because, hooks };
        };
        if !meaning.demand.ingress && !meaning.demand.egress {
            return Half { state: State::Unused, because: Some("the policy has no network rules".to_owned()), hooks };
        }
        if hooks.is_empty() {
            let because = Some("the policy covers no interface that is there now".to_owned());
            return Half { state: State::Degraded, because, hooks };
        }
        let enforced = if mode == Mode::Audit { State::Audit } else { State::Enforced };
        let bad = hooks.iter().find(|hook| matches!(hook.state, State::Unavailable | State::Degraded));
        match bad {
            None => Half { state: enforced, because: None, hooks },
            Some(bad) => {
                let because = Some(format!(
                    "{} on {}: {}",
                    bad.hook,
                    bad.interface.as_deref().unwrap_or("-"),
                    bad.because.as_deref().unwrap_or("-")
                ));
                Half { state: State::Degraded, because, hooks }
            }
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
                half: "network".to_owned(),
                chain: line.chain.clone(),
                verb: line.verb.clone(),
                file,
                line: number,
                hits: count.packets,
                packets: count.packets,
                bytes: count.bytes,
                last_hit: (count.last > 0).then_some(count.last / 1000),
            }
        });
        let mut lines: Vec<RuleLine> = lines.collect();
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

/// Malformed frames, floor, dynamic entries, rules, default; ingress first. Sorting keeps the rules' own order.
fn in_order_of_judgement(lines: &mut [RuleLine]) {
    let place = |line: &RuleLine| {
        let stage = match line.name.as_str() {
            _ if line.file.is_some() && line.name != "default" => 3,
            name if name.starts_with("malformed/") => 0,
            name if name.starts_with("floor/") => 1,
            "dynamic" => 2,
            "default" => 4,
            _ => 5,
        };
        (line.chain != "ingress", stage)
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

/// The host half is not there yet; whether this kernel could run it is worth knowing already.
fn host_half() -> Half {
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let could = if lsm.trim().split(',').any(|name| name == "bpf") {
        "this kernel has BPF LSM active"
    } else {
        "this kernel has no active BPF LSM (`lsm=...,bpf` on its command line)"
    };
    Half { state: State::Unused, because: Some(format!("unavailable: {HOST_UNAVAILABLE}; {could}")), hooks: Vec::new() }
}

/// Traffic for which the fail direction was taken, by chain.
fn fail_directions(control: &Control) -> Result<Vec<FailDirection>> {
    let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
        return Ok(Vec::new());
    };
    let totals = running.total()?;
    let directions = running.lines.iter().zip(totals).filter_map(|(line, count)| {
        let gets = match line.name.as_str() {
            name if name.strip_prefix("malformed/").is_some_and(|n| counter::MALFORMED_NAMES.contains(&n)) => "drop",
            "continuations" | "tables" => "drop",
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
