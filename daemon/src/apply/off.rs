//! `ringctl off`, `on` and `mode`.

use std::time::Duration;

use ringfence_api::{GenerationAnswer, Mode, ModeAnswer, ModeRequest, OffAnswer};

use super::candidate::Origin;
use super::switch::{Plan, note};
use crate::clock::Expiry;
use crate::daemon::{Control, Daemon, EMPTY};
use crate::error::{Error, Result};
use crate::interfaces::attachments::Attachments;
use crate::kernel::Kernel;
use crate::server::caller::Caller;
use crate::state::standing::Audit;

/// On the kernel's command line: nothing is enforced, for whoever is locked out.
pub const FORBIDDEN: &str = "ringfence=off";
/// The longest `--for` of `mode`: a year.
const MAX_SECONDS: u64 = 366 * 86_400;

impl Daemon {
    /// Removes everything Ringfence owns in the kernel, and only that. It stays so over restarts.
    pub fn off(&self, caller: &Caller) -> Result<OffAnswer> {
        let _one_at_a_time = self.applying();
        let mut control = self.control();
        if self.is_off() {
            return Err(Error::No("Ringfence is off already".to_owned()));
        }
        let mut removed: Vec<String> = Vec::new();
        for attachment in control.attachments.all.values() {
            for report in &attachment.reports {
                let direction: &str = report.direction.into();
                removed.push(format!("{} {direction} on {}", how(report.how), attachment.wanted.name));
            }
        }
        let hooks = self.kernel(|kernel| Ok(kernel.host_hooks(&control.loaded())?))?;
        let host_hooks = hooks.into_iter().filter(|hook| hook.attached).map(|hook| format!("host hook {}", hook.name));
        if let Some(running) = &control.running
            && running.number() != EMPTY
        {
            running.snapshot(&self.store)?;
        }
        // First on disk: a crash in between must not bring back at the next start what was to go.
        control.standing.change(|standing| standing.off = true)?;
        let mut dynamic = self.known();
        dynamic.unfollow_all();
        dynamic.forget_calls_in_kernel();
        control.running = None;
        control.pending = None;
        control.leftover.clear();
        removed.extend(host_hooks);
        if let Some(kernel) = self.take_kernel() {
            kernel.off()?;
        }
        control.attachments = Attachments::default();
        removed.push(format!("pins below {}", self.arguments.bpffs.display()));
        tracing::warn!(by = caller.name(), "off: nothing is enforced");
        Ok(OffAnswer { removed })
    }

    /// `ringfenced --off`: the same without anybody to answer. What an earlier daemon left is removed, and the next one
    /// starts off.
    pub fn stay_off(&self) -> Result<()> {
        self.control().standing.change(|standing| standing.off = true)?;
        self.take_kernel().map_or(Ok(()), |kernel| Ok(kernel.off()?))
    }

    /// Puts the last confirmed generation in force again.
    pub fn on(&self, caller: &Caller) -> Result<GenerationAnswer> {
        let _one_at_a_time = self.applying();
        if !self.is_off() {
            return Err(Error::No("Ringfence is not off".to_owned()));
        }
        if self.forbidden {
            return Err(Error::No(format!("the kernel's command line says `{FORBIDDEN}`: boot without it")));
        }
        let number = self.last_confirmed()?.ok_or_else(|| Error::No("no generation was ever confirmed".to_owned()))?;
        let candidate = self.candidate(Origin::Kept(number), None)?;
        let kernel = Kernel::open(&self.arguments.bpffs, self.arguments.cgroup.as_deref())?;
        {
            let mut dynamic = self.dynamic();
            dynamic.restore(&kernel)?;
            dynamic.restore_own(&kernel)?;
        }
        self.set_kernel(kernel);
        self.restore_mode()?;
        let record = self.store.record(number)?;
        self.switch(candidate, &Plan { record, new: false, confirm: None })?;
        self.control().standing.change(|standing| standing.off = false)?;
        tracing::info!(generation = number, by = caller.name(), "on");
        Ok(GenerationAnswer { generation: number })
    }

    /// The generation to come back to: the one in force if it was confirmed, otherwise the newest that was.
    pub fn last_confirmed(&self) -> Result<Option<u64>> {
        let standing = self.control().standing.get().clone();
        let records = self.store.records()?;
        let confirmed = |number: u64| records.iter().any(|record| record.generation == number && record.confirmed);
        let known = [standing.running, standing.previous].into_iter().flatten().find(|&number| confirmed(number));
        Ok(known.or_else(|| records.iter().find(|record| record.confirmed).map(|record| record.generation)))
    }

    /// Enforce, or only count.
    pub fn set_mode(&self, request: ModeRequest, caller: &Caller) -> Result<ModeAnswer> {
        let until = match request.for_seconds {
            None => None,
            Some(seconds) if (1..=MAX_SECONDS).contains(&seconds) => Some(Expiry::after(Duration::from_secs(seconds))),
            Some(_) => return Err(Error::BadInput(format!("a mode is set for 1 to {MAX_SECONDS} seconds"))),
        };
        let mut control = self.control();
        let audits = control.running.as_ref().is_some_and(|running| running.audits());
        if request.mode == Mode::Enforce && audits {
            return Err(Error::No("the policy itself says `mode: audit`".to_owned()));
        }
        let audit = match request.mode {
            Mode::Audit => Some(Audit { until }),
            // `enforce --for` would mean an audit that comes back by itself.
            Mode::Enforce if until.is_some() => {
                return Err(Error::BadInput("`--for` goes with `mode audit`".to_owned()));
            }
            Mode::Enforce => None,
        };
        self.change_mode(&mut control, audit)?;
        tracing::warn!(mode = request.mode.word(), by = caller.name(), "mode");
        drop(control);
        self.rearm.notify_one();
        Ok(ModeAnswer { mode: request.mode, until: until.map(|until| until.wall / 1000) })
    }

    fn change_mode(&self, control: &mut Control, audit: Option<Audit>) -> Result<()> {
        // Towards enforcing the kernel goes first, towards auditing the disk: a crash in between enforces.
        if audit.is_some() {
            control.standing.change(|standing| standing.audit = audit)?;
        }
        // While `off` is in force, `on` will read what the disk says.
        self.with_kernel(|kernel| {
            if let Some(kernel) = kernel {
                kernel.set_audit(audit.is_some());
            }
            Ok(())
        })?;
        if audit.is_none() {
            control.standing.change(|standing| standing.audit = None)?;
        }
        Ok(())
    }

    /// Ends an audit whose time is over.
    pub fn expire_mode(&self, control: &mut Control, boot_now: u64) -> Result<()> {
        let over = |audit: &Audit| audit.until.is_some_and(|until| until.passed(boot_now));
        if control.standing.get().audit.as_ref().is_some_and(over) {
            tracing::warn!("mode audit is over: enforcing");
            let changed = self.change_mode(control, None);
            note(control, "mode", changed.as_ref().err().map(ToString::to_string));
            changed?;
        }
        Ok(())
    }
}

/// Whether the kernel was booted with [`FORBIDDEN`].
#[must_use]
pub fn forbidden_at_boot() -> bool {
    std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| forbids(&line))
}

/// What comes after `--` is for PID 1, but who writes it there means it, too.
fn forbids(command_line: &str) -> bool {
    command_line.split_ascii_whitespace().any(|word| word.trim_matches('"') == FORBIDDEN)
}

/// The word for a way of being attached.
#[must_use]
pub fn how(attached: crate::kernel::Attached) -> &'static str {
    use crate::kernel::Attached;
    match attached {
        Attached::NativeXdp => "xdp-native",
        Attached::Tcx => "tcx",
        Attached::Clsact => "clsact",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_on_the_command_line_forbids() {
        assert!(forbids("BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro ringfence=off quiet\n"));
        assert!(forbids("\"ringfence=off\""));
        assert!(!forbids("ringfence=offline xringfence=off ringfence=on quiet"));
        assert!(!forbids(""));
    }
}
