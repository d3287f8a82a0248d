//! The step from another version of Ringfence: what that one left enforcing goes when ours enforces in its place.

use super::switch::note;
use crate::daemon::{Control, Daemon};
use crate::error::with_sources;
use crate::kernel::Kernel;

impl Daemon {
    /// Lets other versions' programs go where ours judge now; where they cannot be attached, theirs stay, and that is a
    /// problem to be shown. To be done again whenever something was attached.
    pub fn retire_formers(&self, control: &mut Control) {
        let former = || self.with_kernel(|kernel| Ok(kernel.map(Kernel::formers).unwrap_or_default()));
        if former().is_ok_and(|former| former.is_empty()) {
            return;
        }
        // Without a generation that this daemon understands nothing of ours is known to judge.
        let judges = control.running.as_ref().is_some_and(|running| running.meaning.is_some());
        let retired = if judges {
            let failed = |ifindex: u32| {
                control.attachments.all.get(&ifindex).is_some_and(|attachment| attachment.failure.is_some())
            };
            let hooks = control.problems.contains_key("host");
            self.kernel(|kernel| Ok(kernel.retire_formers(failed, hooks)?))
        } else {
            Ok(())
        };
        let left = former().unwrap_or_default().join(", ");
        let reason = retired.err().map_or_else(String::new, |error| format!(": {}", with_sources(&error)));
        let problem = (!left.is_empty()).then(|| {
            format!("programs of another version of Ringfence, pinned in {left}, still judge beside or in place of ours{reason}")
        });
        note(control, "upgrade", problem);
    }
}
