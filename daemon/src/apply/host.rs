//! What an apply does for the host half beside the tables: what this kernel cannot enforce is said, what would lock out
//! is refused.

use ringfence_abi::host::op;
use ringfence_api::{Diagnostic, Severity};
use ringfence_policy::compile::CompiledHost;
use ringfence_policy::model::Location;

use super::candidate::Candidate;
use super::switch::note;
use crate::cli::Half;
use crate::daemon::{Control, Daemon};
use crate::error::{Error, Result};
use crate::kernel::{Loaded, MountReport, Obstacle, Support};

/// Operations that programs at a cgroup can refuse where there are no security hooks.
pub const AT_CGROUP: u32 = 1 << op::CONNECT | 1 << op::BIND;

impl Daemon {
    /// `--require host`: the security hooks can be had.
    pub fn require_host(&self) -> Result<()> {
        if !self.arguments.requires(Half::Host) {
            return Ok(());
        }
        let obstacle = self.with_kernel(|kernel| Ok(kernel.and_then(|kernel| kernel.host_support().lsm.clone())))?;
        match obstacle {
            None => Ok(()),
            Some(obstacle) => {
                Err(Error::Required { half: "host", reason: format!("{obstacle}; {}", obstacle.remedy()) })
            }
        }
    }

    /// What of the candidate's host half this kernel cannot enforce. The rest is put in force all the same, unless
    /// `--require host` says otherwise.
    pub fn host_warnings(&self, candidate: &Candidate) -> Result<Vec<Diagnostic>> {
        let host = &candidate.compiled.host;
        let support = self.with_kernel(|kernel| Ok(kernel.map(|kernel| kernel.host_support().clone())))?;
        let Some(support) = support.filter(|_| !host.implicit) else { return Ok(Vec::new()) };
        let warning = |at: Option<Location>, message: String, obstacle: &Obstacle| Diagnostic {
            severity: Severity::Warning,
            file: at.and_then(|at| candidate.policy.files.get(at.file as usize).cloned()).unwrap_or_default(),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            end_column: None,
            source: None,
            message,
            help: Some(obstacle.remedy()),
        };
        let whole = not_enforced(&support, host.consts.ops).map(|(obstacle, left_out)| {
            let message = format!("this kernel will not enforce {left_out}: {obstacle}");
            warning(candidate.policy.host.default_at, message, &obstacle)
        });
        let rules = candidate.left_out.iter().zip(support.lsm.iter().cycle()).map(|(left_out, obstacle)| {
            let message = format!("`{}` is not enforced as written: {}", left_out.rule, left_out.because);
            warning(Some(left_out.at), message, obstacle)
        });
        Ok(whole.into_iter().chain(rules).collect())
    }

    /// Hooks, mounts and subjects for a generation that comes into force next.
    pub fn host_before_flip(&self, control: &Control, next: &Loaded) -> Result<()> {
        let others = control.loaded();
        self.kernel(|kernel| Ok(kernel.host_before_flip(next, &others)?))
    }

    /// The same for those that are in force now, and the entries about paths; hooks that nothing needs go. A problem in
    /// words.
    pub fn host_after_flip(&self, control: &mut Control) -> Option<String> {
        let loaded = control.loaded();
        let result = self.with_kernel(|kernel| {
            let Some(kernel) = kernel else { return Ok(None) };
            kernel.host_after_flip(&loaded)?;
            if !loaded.is_empty() {
                self.dynamic().restore_calls(kernel, &loaded)?;
            }
            Ok(Some(kernel.refresh_mounts()?))
        });
        match result {
            Ok(report) => {
                note_mounts(control, report.unwrap_or_default());
                None
            }
            Err(error) => Some(format!("host half: {}", crate::error::with_sources(&error))),
        }
    }
}

/// Remembers what the programs know of the mounts. Those that did not fit are shown: paths below them are unknown, which
/// every refusal matches.
pub fn note_mounts(control: &mut Control, report: MountReport) {
    const SHOWN: usize = 5;
    let left = &report.left_out;
    let more = if left.len() > SHOWN { format!(" and {} more", left.len() - SHOWN) } else { String::new() };
    let shown = left.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let problem = (!left.is_empty()).then(|| format!("paths on these mounts cannot be told: {shown}{more}"));
    if problem.is_some() != control.problems.contains_key("mounts") || report.changed {
        note(control, "mounts", problem);
    }
    control.mounts = report;
}

/// What stands in the way of enforcing these operations, and which of them it is, in words.
#[must_use]
pub fn not_enforced(support: &Support, ops: u32) -> Option<(Obstacle, String)> {
    let obstacle = support.lsm.clone().filter(|_| ops != 0)?;
    let at_cgroup = support.cgroup.is_none();
    let left = if at_cgroup { ops & !AT_CGROUP } else { ops };
    match (left, at_cgroup && ops & AT_CGROUP != 0) {
        (0, _) => None,
        (_, false) => Some((obstacle, "`host`".to_owned())),
        (left, true) => Some((obstacle, format!("`host`, except connect and bind over IP; left out: {}", words(left)))),
    }
}

/// Operations by name, shortened where there are many.
fn words(ops: u32) -> String {
    const SHOWN: usize = 6;
    let names: Vec<&str> =
        op::NAMES.into_iter().enumerate().filter(|(n, _)| ops >> n & 1 == 1).map(|(_, n)| n).collect();
    match names.len() {
        ..=SHOWN => names.join(", "),
        more => format!("{} and {} more", names[..SHOWN].join(", "), more - SHOWN),
    }
}

/// Whether a compiled host half asks for nothing.
#[must_use]
pub fn is_unused(host: &CompiledHost) -> bool {
    host.implicit && !host.protect_self
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 1 << op::READ;

    fn support(lsm: bool, cgroup: bool) -> Support {
        Support {
            lsm: (!lsm).then_some(Obstacle::NotBuilt),
            cgroup: (!cgroup).then(|| Obstacle::Cgroup { error: "none".into() }),
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_out_is_named_and_nothing_where_all_is_enforced() {
        let left_out = |lsm, cgroup, ops| not_enforced(&support(lsm, cgroup), ops).map(|(_, text)| text);
        assert_eq!(left_out(true, false, READ), None);
        assert_eq!(left_out(false, true, AT_CGROUP), None);
        assert_eq!(left_out(false, true, 0), None);
        assert_eq!(left_out(false, false, AT_CGROUP).unwrap(), "`host`");
        assert_eq!(left_out(false, true, READ).unwrap(), "`host`");
        assert!(left_out(false, true, READ | AT_CGROUP).unwrap().ends_with("left out: read"));
        assert!(left_out(false, true, u32::MAX >> 3).unwrap().contains("more"));
    }
}
