//! `ringctl deny`, `allow`, `list`, `undo` and `set`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_abi::dynamic::EntryKey;
use ringfence_api::{
    Calls, Direction, Element, EntryList, EntryRequest, EntryVerb, MAX_BATCH, MAX_LISTED_ELEMENTS, Prefix,
    RefusedElement, SetAnswer, SetElements, SetQuery, SetRequest, Target, UndoAnswer, UndoRequest, What,
};
use ringfence_policy::model::DynamicKind;

use super::call_commands::{resolved, resolved_path};
use super::calls::CallEntry;
use super::entries::Entry;
use super::keys::overlap;
use super::session::Session;
use super::sets::{self, Member, Sets};
use crate::clock::{Expiry, wall_now};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::server::caller::Caller;

/// Texts that people give are kept; they are bounded.
const MAX_REASON: usize = 1024;
/// The longest `--for`: a hundred years.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

impl Daemon {
    /// Runs with the kernel's half, or without where `off` is in force.
    pub fn with_kernel<T>(&self, work: impl FnOnce(Option<&Kernel>) -> Result<T>) -> Result<T> {
        let mut work = Some(work);
        match self.kernel(|kernel| work.take().map(|work| work(Some(kernel))).ok_or(Error::Off)?) {
            Err(Error::Off) => work.take().map_or(Err(Error::Off), |work| work(None)),
            result => result,
        }
    }

    /// `deny` and `allow`.
    pub fn add_entry(&self, request: EntryRequest, caller: &Caller) -> Result<ringfence_api::Entry> {
        let expiry = expiry(request.for_seconds)?;
        check_reason(request.reason.as_deref())?;
        let what = match request.what {
            What::Packets(target) => target,
            What::Calls(calls) => {
                let entry = self.add_call(calls, request.verb, expiry, request.reason, request.force, caller)?;
                return Ok(shown_call(&entry, 0));
            }
        };
        if request.verb == EntryVerb::Allow && what.port.is_none() && !request.all_ports {
            return Err(Error::BadInput(format!(
                "allowing {what} without a port opens every port to it; say `--all-ports` if that is meant"
            )));
        }
        let mut dynamic = self.dynamic();
        if !request.force
            && request.verb == EntryVerb::Deny
            && let Some(reason) = objection(what, request.direction, dynamic.sets(), &caller.sessions())
        {
            tracing::warn!(%what, by = caller.name(), reason, "refused a deny");
            return Err(Error::NeedsForce(reason));
        }
        let entry = Entry {
            id: dynamic.entries().next_id(),
            verb: request.verb,
            target: what,
            direction: request.direction,
            expiry,
            reason: request.reason,
            by: caller.name(),
            created: wall_now(),
        };
        self.with_kernel(|kernel| dynamic.add_entry(kernel, entry.clone()))?;
        drop(dynamic);
        self.rearm.notify_one();
        tracing::info!(id = entry.id, verb = entry.verb.word(), what = %entry.target, by = entry.by, "dynamic entry");
        Ok(shown(&entry, 0, 0))
    }

    /// `deny PATH` and `allow PATH`.
    fn add_call(
        &self,
        calls: Calls,
        verb: EntryVerb,
        expiry: Option<Expiry>,
        reason: Option<String>,
        force: bool,
        caller: &Caller,
    ) -> Result<CallEntry> {
        let what = resolved(calls)?;
        // The generations that it is in force in may not change meanwhile, nor one be loaded that does not know of it.
        let _one_at_a_time = self.applying();
        let control = self.control();
        let mut dynamic = self.dynamic();
        let entry = CallEntry {
            id: dynamic.entries().next_id(),
            verb,
            what,
            expiry,
            reason,
            by: caller.name(),
            created: wall_now(),
        };
        if !force && let Some(reason) = self.locks_out(&entry) {
            tracing::warn!(what = %entry.what, by = entry.by, reason, "refused a deny");
            return Err(Error::NeedsForce(reason));
        }
        let loaded = control.loaded();
        if loaded.is_empty() && !self.is_off() {
            return Err(Error::No(
                "no policy is in force, so nothing would be refused: `ringctl apply` first".to_owned(),
            ));
        }
        self.with_kernel(|kernel| dynamic.add_call(kernel, &loaded, entry.clone()))?;
        drop((dynamic, control));
        self.rearm.notify_one();
        tracing::info!(id = entry.id, verb = verb.word(), what = %entry.what, by = entry.by, "dynamic entry");
        Ok(entry)
    }

    /// `list`.
    pub fn list(&self) -> Result<EntryList> {
        let dynamic = self.known();
        let counted = self.with_kernel(counted)?;
        let calls = self.with_kernel(counted_calls)?;
        let packets = dynamic.entries().iter().map(|entry| {
            let own = dynamic.entries().owned_keys(entry.id);
            let hits = own.iter().filter_map(|key| counted.get(key)).filter(|(id, _, _)| *id == entry.id);
            let (packets, bytes) = hits.fold((0, 0), |sum, (_, packets, bytes)| (sum.0 + packets, sum.1 + bytes));
            shown(entry, packets, bytes)
        });
        let calls =
            dynamic.calls().iter().map(|entry| shown_call(entry, calls.get(&entry.id).copied().unwrap_or_default()));
        let mut list = EntryList { entries: packets.chain(calls).collect(), ..EntryList::default() };
        list.entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.id));
        for name in dynamic.sets().filled() {
            let room = MAX_LISTED_ELEMENTS - list.elements.len();
            list.elements.extend(dynamic.sets().elements(name, None).take(room).map(|(e, m)| element(name, e, m)));
            list.elements_left_out += dynamic.sets().len(name).saturating_sub(room) as u64;
        }
        Ok(list)
    }

    /// `undo`.
    pub fn undo(&self, request: &UndoRequest, caller: &Caller) -> Result<UndoAnswer> {
        let mut dynamic = self.known();
        let ids: Vec<u64> = match request {
            UndoRequest::Id(id) => vec![*id],
            UndoRequest::What(what) => {
                dynamic.entries().iter().filter(|entry| entry.target == *what).map(|entry| entry.id).collect()
            }
            UndoRequest::Path(path) => {
                // As it was typed: where links led then may be elsewhere now.
                let real = resolved_path(path)?;
                let about = |entry: &&CallEntry| entry.what.path == real || entry.what.path == *path;
                dynamic.calls().iter().filter(about).map(|entry| entry.id).collect()
            }
        };
        let mut answer = UndoAnswer::default();
        for id in ids {
            if let Some(entry) = self.with_kernel(|kernel| dynamic.remove_entry(kernel, id))? {
                answer.entries.push(shown(&entry, 0, 0));
            } else if let Some(entry) = self.with_kernel(|kernel| dynamic.remove_call(kernel, id))? {
                answer.entries.push(shown_call(&entry, 0));
            }
        }
        if let UndoRequest::What(Target { address, port: None }) = *request {
            let sets = dynamic.sets();
            let names: Vec<String> =
                sets.filled().filter(|name| !sets.is_kept_by_daemon(name)).map(str::to_owned).collect();
            for name in names {
                let member = dynamic.sets().elements(&name, None).find(|(e, _)| *e == address).map(|(_, m)| m.clone());
                if let Some(member) = member {
                    self.with_kernel(|kernel| dynamic.remove_elements(kernel, &name, &[address]))?;
                    answer.elements.push(element(&name, address, &member));
                }
            }
        }
        if answer.entries.is_empty() && answer.elements.is_empty() {
            return Err(Error::No(match request {
                UndoRequest::Id(id) => format!("there is no dynamic entry {id}"),
                UndoRequest::What(what) => format!("there is no dynamic entry or set element {what}"),
                UndoRequest::Path(path) => format!("there is no dynamic entry about {}", path.escape_debug()),
            }));
        }
        tracing::info!(entries = answer.entries.len(), elements = answer.elements.len(), by = caller.name(), "undone");
        Ok(answer)
    }

    /// `set add`, `del`, `flush`.
    pub fn change_set(&self, name: &str, request: SetRequest, caller: &Caller) -> Result<SetAnswer> {
        let mut dynamic = self.known();
        let timeout = match dynamic.sets().changeable(name)?.kind {
            DynamicKind::Declared { timeout, .. } => timeout,
            _ => None,
        };
        let bounded = |elements: usize| {
            if elements > MAX_BATCH {
                Err(Error::BadInput(format!("more than {MAX_BATCH} elements in one request")))
            } else {
                Ok(())
            }
        };
        let mut answer = SetAnswer::default();
        match request {
            SetRequest::Add { elements, timed, for_seconds, reason } => {
                bounded(elements.len() + timed.iter().map(|timed| timed.elements.len()).sum::<usize>())?;
                check_reason(reason.as_deref())?;
                let mut groups = vec![(expiry(for_seconds.or(timeout))?, elements)];
                for timed in timed {
                    groups.push((expiry(Some(timed.for_seconds))?, timed.elements));
                }
                let wanted: Vec<Prefix> = groups.iter().flat_map(|(_, elements)| elements).copied().collect();
                let plan = dynamic.sets().plan(name, &wanted)?;
                let (reason, by) = (reason.map(Arc::from), Some(Arc::from(caller.name())));
                let member = |expiry| Member { expiry, reason: reason.clone(), by: by.clone() };
                let groups: Vec<_> =
                    sets::allowed(groups, &plan.added).into_iter().map(|(expiry, e)| (member(expiry), e)).collect();
                self.with_kernel(|kernel| dynamic.add_elements(kernel, name, &plan.evicted, &groups))?;
                answer.done = plan.added.len() as u64;
                answer.refused =
                    plan.refused.into_iter().map(|(address, because)| RefusedElement { address, because }).collect();
            }
            SetRequest::Del { elements } => {
                bounded(elements.len())?;
                let removed = self.with_kernel(|kernel| dynamic.remove_elements(kernel, name, &elements))?;
                answer.done = removed.len() as u64;
                answer.missing = (elements.len() - removed.len()) as u64;
            }
            SetRequest::Flush => answer.done = self.with_kernel(|kernel| dynamic.flush(kernel, name))? as u64,
        }
        drop(dynamic);
        self.rearm.notify_one();
        tracing::info!(set = name, done = answer.done, by = caller.name(), "set changed");
        Ok(answer)
    }

    /// `set list`.
    pub fn set(&self, name: &str, query: SetQuery) -> Result<SetElements> {
        let dynamic = self.known();
        let sets = dynamic.sets();
        let unknown = || super::sets::SetError::Unknown(name.to_owned());
        let set = sets.declared().find(|set| set.name == name).ok_or_else(unknown)?;
        let (capacity, timeout_seconds) = match &set.kind {
            DynamicKind::Declared { capacity, timeout, .. } => (u64::from(*capacity), *timeout),
            _ => (u64::from(crate::kernel::MAX_ELEMENTS), None),
        };
        let mut elements: Vec<Element> =
            sets.elements(name, query.after).take(MAX_BATCH + 1).map(|(e, m)| element(name, e, m)).collect();
        let more = elements.len() > MAX_BATCH;
        elements.truncate(MAX_BATCH);
        let next = elements.last().filter(|_| more).map(|last| last.address);
        Ok(SetElements {
            name: name.to_owned(),
            capacity,
            size: sets.len(name) as u64,
            timeout_seconds,
            elements,
            next,
        })
    }
}

/// Hits of the kernel's entries: id, packets, bytes.
fn counted(kernel: Option<&Kernel>) -> Result<HashMap<EntryKey, (u64, u64, u64)>> {
    let Some(kernel) = kernel else { return Ok(HashMap::new()) };
    Ok(kernel.entries()?.into_iter().map(|(key, entry)| (key, (entry.id, entry.packets, entry.bytes))).collect())
}

/// Hits of the kernel's entries about paths, by id.
fn counted_calls(kernel: Option<&Kernel>) -> Result<HashMap<u64, u64>> {
    let Some(kernel) = kernel else { return Ok(HashMap::new()) };
    Ok(kernel.path_entries()?.into_iter().map(|(_, entry)| (entry.id, entry.hits)).collect())
}

fn expiry(seconds: Option<u64>) -> Result<Option<Expiry>> {
    match seconds {
        None => Ok(None),
        Some(0) => Err(Error::BadInput("a duration of 0 seconds is over at once".to_owned())),
        Some(seconds) if seconds > MAX_SECONDS => Err(Error::BadInput("a duration over 100 years".to_owned())),
        Some(seconds) => Ok(Some(Expiry::after(Duration::from_secs(seconds)))),
    }
}

fn check_reason(reason: Option<&str>) -> Result<()> {
    match reason {
        Some(reason) if reason.len() > MAX_REASON => {
            Err(Error::BadInput(format!("the reason has more than {MAX_REASON} bytes")))
        }
        Some(reason) if reason.chars().any(char::is_control) => {
            Err(Error::BadInput("the reason has control characters".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Why a deny should be thought over.
fn objection(what: Target, direction: Direction, sets: &Sets, sessions: &[Session]) -> Option<String> {
    let cut = sessions.iter().find(|session| {
        let (arriving, leaving) = (session.local.port(), session.peer.port());
        what.address.contains(session.peer.ip())
            && (direction != Direction::Out && what.port.is_none_or(|port| port == arriving)
                || direction != Direction::In && what.port.is_none_or(|port| port == leaving))
    });
    if let Some(session) = cut {
        return Some(format!("it would cut your own session from {}", session.peer));
    }
    let loopback: [Prefix; 2] = [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()]
        .map(|address: std::net::IpAddr| Prefix::from(address));
    if loopback.iter().any(|address| overlap(*address, what.address)) {
        return Some(format!("{} holds a loopback address", what.address));
    }
    sets.never(what.address).map(|set| format!("{} holds an address that set `{set}` names in `never`", what.address))
}

fn shown(entry: &Entry, packets: u64, bytes: u64) -> ringfence_api::Entry {
    ringfence_api::Entry {
        id: entry.id,
        verb: entry.verb,
        what: entry.target.into(),
        direction: Some(entry.direction),
        expires: entry.expiry.map(|expiry| expiry.wall / 1000),
        created: entry.created / 1000,
        reason: entry.reason.clone(),
        by: entry.by.clone(),
        hits: packets,
        packets,
        bytes,
    }
}

fn shown_call(entry: &CallEntry, hits: u64) -> ringfence_api::Entry {
    ringfence_api::Entry {
        id: entry.id,
        verb: entry.verb,
        what: What::Calls(entry.what.clone()),
        direction: None,
        expires: entry.expiry.map(|expiry| expiry.wall / 1000),
        created: entry.created / 1000,
        reason: entry.reason.clone(),
        by: entry.by.clone(),
        hits,
        packets: 0,
        bytes: 0,
    }
}

fn element(set: &str, address: Prefix, member: &Member) -> Element {
    Element {
        set: set.to_owned(),
        address,
        expires: member.expiry.map(|expiry| expiry.wall / 1000),
        reason: member.reason.as_deref().map(str::to_owned),
        by: member.by.as_deref().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, port: Option<u16>) -> Target {
        Target { address: address.parse().unwrap(), port }
    }

    #[test]
    fn a_deny_that_cuts_the_callers_session_is_told_from_one_that_does_not() {
        let session = Session { local: "192.0.2.1:22".parse().unwrap(), peer: "203.0.113.5:50000".parse().unwrap() };
        let objects = |what, direction| objection(what, direction, &Sets::default(), &[session]).is_some();
        assert!(objects(target("203.0.113.5", None), Direction::In));
        assert!(objects(target("203.0.113.0/24", Some(22)), Direction::In));
        assert!(!objects(target("203.0.113.5", Some(80)), Direction::In));
        assert!(objects(target("203.0.113.5", None), Direction::Out));
        assert!(!objects(target("203.0.113.5", Some(22)), Direction::Out), "leaving packets go to port 50000");
        assert!(objects(target("203.0.113.5", Some(50_000)), Direction::Both));
        assert!(!objects(target("203.0.113.6", None), Direction::Both));
    }

    #[test]
    fn loopback_is_not_denied_by_accident() {
        let objects = |what| objection(target(what, None), Direction::In, &Sets::default(), &[]).is_some();
        assert!(objects("127.0.0.1") && objects("0.0.0.0/0") && objects("::/0") && objects("::1"));
        assert!(!objects("203.0.113.5") && !objects("2001:db8::/32"));
    }

    #[test]
    fn durations_and_reasons_are_bounded() {
        assert!(expiry(Some(0)).is_err() && expiry(Some(u64::MAX)).is_err());
        assert!(expiry(Some(60)).unwrap().is_some() && expiry(None).unwrap().is_none());
        assert!(check_reason(Some("line\nbreak")).is_err() && check_reason(Some(&"x".repeat(2000))).is_err());
        assert!(check_reason(Some("scanned port 22")).is_ok());
    }
}
