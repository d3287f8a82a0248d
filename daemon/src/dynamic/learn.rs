//! What rules add to sets: the programs do it, and the daemon takes it over into what it keeps.
//!
//! The kernel is ahead of the daemon here: whatever answers or changes by sets looks at the rings first.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, MutexGuard};

use ringfence_abi::dynamic::{Element, ElementKey};
use ringfence_abi::limit::Added;
use ringfence_api::Prefix;

use super::contents::Contents;
use super::journal::{Event, Timed};
use super::sets::{Member, Sets};
use super::{Dynamic, keys};
use crate::clock::{Expiry, boot_now};
use crate::daemon::Daemon;
use crate::error::{Result, with_sources};
use crate::kernel::{Kernel, Loaded, NO_LINE, Position, Rings};
use crate::state::generations::KeptLine;

#[cfg(test)]
mod tests;

const SECOND: u64 = 1_000_000_000;
/// A program is at work for less than a millisecond, unless it is interrupted: what gives way is out of the ring already and not
/// yet out of the table of elements.
const PATIENCE: u64 = 2 * SECOND;
/// What was missed is looked for not more often than this: the whole table of elements is listed for it.
const PAUSE: u64 = 30 * SECOND;
/// Lines of the log in a second.
const LINES: u32 = 20;

/// The rings that are looked at.
#[derive(Debug, Default)]
pub struct Learning {
    followed: Vec<Followed>,
    voice: Voice,
}

/// A generation whose rules add.
#[derive(Debug)]
struct Followed {
    slot: u8,
    rings: Arc<Rings>,
    // By counter index.
    reasons: Vec<Arc<str>>,
    sets: Vec<Ring>,
}

/// A set that they add to.
#[derive(Debug)]
struct Ring {
    set: String,
    id: u16,
    position: Position,
    // Oldest first: what the programs may take out again.
    live: VecDeque<Noted>,
    // Not in the table of elements as the ring has it, yet or any more; since when.
    unsure: Vec<(Noted, u64, u64)>,
    // Forgotten by the ring, and still in the table of elements; since when.
    leaving: Vec<(Noted, u64)>,
    // When what was missed was looked for last. Not at once: at a start the kernel may have too much.
    searched: u64,
}

/// An element as a ring has it.
#[derive(Clone, Copy, Debug)]
struct Noted {
    number: u64,
    expires: u64,
    element: Prefix,
}

/// What is different from what the daemon knew.
#[derive(Debug, Default)]
struct News {
    gone: Vec<Prefix>,
    // With the line of the rule.
    come: Vec<(Noted, u64)>,
}

impl Daemon {
    /// Dynamic entries and sets, with what rules have added by now. Where the kernel does not tell, with what is known.
    pub fn known(&self) -> MutexGuard<'_, Dynamic> {
        let mut dynamic = self.dynamic();
        if let Err(error) = self.with_kernel(|kernel| dynamic.learn(kernel)) {
            tracing::error!(error = with_sources(&error), "what rules added to sets could not be read");
        }
        dynamic
    }

    /// Removes a generation from the kernel, after a last look at what its rules added.
    pub fn unload(&self, loaded: Loaded) -> Result<()> {
        self.known().unfollow(loaded.slot);
        self.kernel(|kernel| Ok(kernel.unload(loaded)?))
    }

    /// Looks at what the rules of the generations in the kernel added while no daemon was there.
    pub fn follow_left(&self) -> Result<()> {
        for loaded in self.kernel(|kernel| Ok(kernel.adopt()?))? {
            let Some(rings) = loaded.rings() else { continue };
            let lines = self.store.lines(loaded.number).unwrap_or_default();
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| {
                dynamic.follow(loaded.slot, rings, &lines);
                dynamic.miss(kernel, loaded.slot)?;
                dynamic.learn(Some(kernel))
            })?;
        }
        Ok(())
    }
}

impl Dynamic {
    /// Looks at these rings from now on. `lines` are those of the generation, by counter index.
    pub fn follow(&mut self, slot: u8, rings: Arc<Rings>, lines: &[KeptLine]) {
        let ring = |id: u16| {
            let set = self.ids.name(id).unwrap_or_default().to_owned();
            let (live, unsure, leaving) = (VecDeque::new(), Vec::new(), Vec::new());
            Ring { set, id, position: Position::default(), live, unsure, leaving, searched: boot_now() }
        };
        let sets = rings.sets().map(ring).collect();
        let reasons = lines.iter().map(reason).collect();
        self.unfollow(slot);
        self.learning.followed.push(Followed { slot, rings, reasons, sets });
    }

    /// The same of a generation that is not in force yet. Its rings begin with what sets have from rules already, so that it can
    /// give way.
    pub fn follow_new(&mut self, slot: u8, rings: Arc<Rings>, lines: &[KeptLine]) {
        let now = boot_now();
        for (index, id) in rings.sets().enumerate() {
            let contents = self.ids.name(id).and_then(|name| self.sets.contents(name));
            let Some(contents) = contents else { continue };
            let lasts = |member: &Member| member.expiry.is_none_or(|expiry| !expiry.passed(now));
            let old = contents.oldest_by_rules().filter(|(element, member)| element.is_address() && lasts(member));
            let seeds: Vec<_> = old.map(|(element, member)| (keys::element(id, element), member.expires())).collect();
            rings.seed(index, &seeds);
            rings.set_others(index, others(&self.sets, self.ids.name(id).unwrap_or_default(), rings.used(index)));
        }
        self.follow(slot, rings, lines);
    }

    /// Looks at the rings of a generation no more.
    pub fn unfollow(&mut self, slot: u8) {
        self.learning.followed.retain(|followed| followed.slot != slot);
    }

    /// Looks at no ring any more: everything is taken out of the kernel.
    pub fn unfollow_all(&mut self) {
        self.learning.followed.clear();
    }

    /// When to look again though nobody asks, nanoseconds of boot time.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        (!self.learning.followed.is_empty()).then(|| boot_now() + SECOND)
    }

    /// Whether some generation's rings are looked at.
    pub(super) fn learns(&self) -> bool {
        !self.learning.followed.is_empty()
    }

    /// Takes over what rules added since the last look, and forgets what gave way to it.
    pub fn learn(&mut self, kernel: Option<&Kernel>) -> Result<()> {
        let Some(kernel) = kernel else { return Ok(()) };
        let now = boot_now();
        let mut followed = std::mem::take(&mut self.learning.followed);
        let learned = followed.iter_mut().try_for_each(|generation| self.learn_of(kernel, generation, now));
        self.learning.followed = followed;
        self.learning.voice.breathe(now);
        learned
    }

    fn learn_of(&mut self, kernel: &Kernel, generation: &mut Followed, now: u64) -> Result<()> {
        let Followed { rings, reasons, sets, .. } = generation;
        for (index, ring) in sets.iter_mut().enumerate() {
            // Before the ring, and before the programs that are adding have noted it there: what is listed and not noted
            // then is noted nowhere.
            let search = ring.position.missed && now.saturating_sub(ring.searched) >= PAUSE;
            let listed = if search { kernel.elements(ring.id)? } else { Vec::new() };
            if search {
                kernel.wait_for_running_programs()?;
            }
            let news = ring.news(kernel, rings, index, now)?;
            self.forget(&ring.set, &news.gone);
            self.take_over(kernel, ring, &news.come, reasons)?;
            if search {
                (ring.position.missed, ring.searched) = (false, now);
                self.search(kernel, ring, &listed, now)?;
            }
            if let Some(contents) = self.sets.contents(&ring.set) {
                kernel.count_hosts(ring.id, contents.hosts());
            }
            rings.set_others(index, others(&self.sets, &ring.set, rings.used(index)));
        }
        self.tidy();
        Ok(())
    }

    /// Takes over what the kernel has and no ring says any more: two CPUs that add at once may take one place more than there
    /// are, and then nobody knows of the oldest element.
    fn search(&mut self, kernel: &Kernel, ring: &Ring, listed: &[(ElementKey, Element)], now: u64) -> Result<()> {
        let unsure: HashSet<Prefix> = ring.unsure.iter().map(|(noted, ..)| noted.element).collect();
        let (mut stray, mut expired) = (Vec::new(), Vec::new());
        for (key, present) in listed {
            let Some(element) = keys::prefix(key) else { continue };
            let known = self.sets.member(&ring.set, element).is_some() || unsure.contains(&element);
            if known || kernel.element(key)? != Some(*present) {
                continue;
            }
            let noted = Noted { number: 0, expires: present.expires, element };
            if noted.expires != 0 && noted.expires <= now { expired.push(*key) } else { stray.push((noted, NO_LINE)) }
        }
        kernel.remove_expired(ring.id, &expired, now)?;
        self.take_over(kernel, ring, &stray, &[])
    }

    /// Forgets what the kernel has no more.
    fn forget(&mut self, set: &str, gone: &[Prefix]) {
        let gone = self.sets.remove(set, gone);
        self.log.follow(&[Event::del(set, &gone)]);
    }

    fn take_over(&mut self, kernel: &Kernel, ring: &Ring, come: &[(Noted, u64)], reasons: &[Arc<str>]) -> Result<()> {
        let mut rules: BTreeMap<u64, Vec<Timed>> = BTreeMap::new();
        let mut forbidden = Vec::new();
        for (noted, line) in come {
            let known = self.sets.member(&ring.set, noted.element);
            if known.is_some_and(|member| member.expires() == noted.expires) {
                continue;
            }
            if self.sets.forbids(&ring.set, noted.element) {
                // A rule of a generation that did not say `never` yet.
                forbidden.push(keys::element(ring.id, noted.element));
                continue;
            }
            let expiry = (noted.expires != 0).then(|| Expiry::at(noted.expires));
            rules.entry(*line).or_default().push((noted.element, expiry));
        }
        if !forbidden.is_empty() {
            kernel.remove_elements(ring.id, &forbidden)?;
        }
        // Whose name nobody kept.
        let some: Arc<str> = "a rule".into();
        let reason = |line: u64| usize::try_from(line).ok().and_then(|line| reasons.get(line)).unwrap_or(&some);
        let record = |(line, elements): (&u64, &Vec<_>)| Event::learned(&ring.set, Some(reason(*line)), elements);
        // In force already: a disk that is full does not change that.
        self.log.follow(&rules.iter().flat_map(record).collect::<Vec<_>>());
        for (line, elements) in &rules {
            let reason = reason(*line);
            for (element, expiry) in elements {
                let member = Member { expiry: *expiry, reason: Some(Arc::clone(reason)), by: None };
                self.sets.insert(&ring.set, &[*element], &member);
                self.learning.voice.tell(*element, &ring.set, reason);
            }
        }
        if !rules.is_empty() {
            kernel.elements_changed();
        }
        Ok(())
    }

    /// Forgets what gave way while no daemon was there: a ring no longer says what that was, but what rules added is in the
    /// kernel or is no more.
    fn miss(&mut self, kernel: &Kernel, slot: u8) -> Result<()> {
        let followed = self.learning.followed.iter().filter(|followed| followed.slot == slot);
        let sets: Vec<(String, u16)> =
            followed.flat_map(|followed| &followed.sets).map(|ring| (ring.set.clone(), ring.id)).collect();
        for (set, id) in sets {
            let mut gone = Vec::new();
            for (element, _) in self.sets.contents(&set).into_iter().flat_map(Contents::oldest_by_rules) {
                if kernel.element(&keys::element(id, element))?.is_none() {
                    gone.push(element);
                }
            }
            self.forget(&set, &gone);
        }
        Ok(())
    }
}

impl Ring {
    fn news(&mut self, kernel: &Kernel, rings: &Rings, index: usize, now: u64) -> Result<News> {
        let id = self.id;
        let added = rings.look(index, &mut self.position);
        self.unsure.extend(added.iter().filter_map(|added| Some((noted(added, id)?, added.line, now))));
        let tail = rings.tail(index);
        while let Some(oldest) = self.live.pop_front_if(|oldest| oldest.number <= tail) {
            self.leaving.push((oldest, now));
        }
        let mut news = News::default();
        self.leave(kernel, &mut news, now)?;
        self.make_sure(kernel, &mut news, now)?;
        Ok(news)
    }

    /// What the ring forgot and is not in the kernel any more is gone. What is there otherwise than the ring had it was
    /// added anew.
    fn leave(&mut self, kernel: &Kernel, news: &mut News, now: u64) -> Result<()> {
        let mut still = Vec::new();
        for (noted, since) in &self.leaving {
            match kernel.element(&self.key(noted))? {
                None => news.gone.push(noted.element),
                Some(present) if present.expires == noted.expires && now - since < PATIENCE => {
                    still.push((*noted, *since));
                }
                Some(_) => {}
            }
        }
        self.leaving = still;
        Ok(())
    }

    /// What the ring has and the kernel has as well has come. Otherwise it is about to come, or was deleted.
    fn make_sure(&mut self, kernel: &Kernel, news: &mut News, now: u64) -> Result<()> {
        let mut still = Vec::new();
        for (noted, line, since) in &self.unsure {
            let present = kernel.element(&self.key(noted))?;
            if present.is_some_and(|present| present.expires == noted.expires) {
                news.come.push((*noted, *line));
            } else if now - since < PATIENCE {
                still.push((*noted, *line, *since));
            }
        }
        self.unsure = still;
        self.live.extend(news.come.iter().map(|(noted, _)| *noted));
        Ok(())
    }

    fn key(&self, noted: &Noted) -> ElementKey {
        keys::element(self.id, noted.element)
    }
}

/// `None`: no program of ours wrote that.
fn noted(added: &Added, set: u16) -> Option<Noted> {
    let element = keys::prefix(&added.key).filter(|element| element.is_address() && added.key.set == set)?;
    Some(Noted { number: added.number, expires: added.expires, element })
}

/// Elements of a set that take no place of its ring. A place may be in use for one that is gone; then fewer are in the set
/// than the programs think, until they look at that place.
fn others(sets: &Sets, set: &str, used: u64) -> u64 {
    let by_rules = sets.contents(set).map_or(0, |contents| contents.by_rules() as u64);
    (sets.len(set) as u64).saturating_sub(by_rules.min(used))
}

/// Why an element is in a set: `rule NAME, FILE:LINE`.
fn reason(line: &KeptLine) -> Arc<str> {
    let rule = format!("rule {}", line.name);
    line.at.as_ref().map_or(rule.clone(), |(file, number)| format!("{rule}, {file}:{number}")).into()
}

/// Tells the log what comes, a bounded number of lines a second.
#[derive(Debug, Default)]
struct Voice {
    second: u64,
    told: u32,
    untold: u64,
}

impl Voice {
    fn tell(&mut self, source: Prefix, set: &str, rule: &str) {
        if self.told < LINES {
            self.told += 1;
            tracing::info!(%source, set, rule, "a rule added");
        } else {
            self.untold += 1;
        }
    }

    /// In a new second there are lines again.
    fn breathe(&mut self, now: u64) {
        if now / SECOND == self.second {
            return;
        }
        if self.untold > 0 {
            tracing::info!(elements = self.untold, "rules added more");
        }
        *self = Self { second: now / SECOND, told: 0, untold: 0 };
    }
}
