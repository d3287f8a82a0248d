//! Brings the kernel's dynamic entries and elements to what is kept: after a reboot it has none, after a restart it may
//! differ where the daemon was killed between two steps.

use std::collections::HashMap;

use ringfence_abi::dynamic::{Element, ElementKey};

use super::{Dynamic, keys};
use crate::error::Result;
use crate::kernel::Kernel;

impl Dynamic {
    /// Adds what is missing and removes what is too much. Where both agree nothing is written, so that counts stay.
    pub fn restore(&mut self, kernel: &Kernel) -> Result<()> {
        let mut wanted = self.entries.kernel();
        let mut surplus = Vec::new();
        for (key, present) in kernel.entries()? {
            match wanted.get(&key) {
                None => surplus.push(key),
                Some(want)
                    if (want.id, want.verdict, want.expires) == (present.id, present.verdict, present.expires) =>
                {
                    wanted.remove(&key);
                }
                Some(_) => {}
            }
        }
        for (key, entry) in &wanted {
            kernel.add_entry(key, entry)?;
        }
        for key in &surplus {
            kernel.remove_entry(key)?;
        }
        self.restore_sets(kernel, false)
    }

    /// The same for the sets that the daemon keeps by itself, once it knows what is in them.
    pub fn restore_own(&mut self, kernel: &Kernel) -> Result<()> {
        self.restore_sets(kernel, true)
    }

    fn restore_sets(&mut self, kernel: &Kernel, own: bool) -> Result<()> {
        let meant = |name: &str| self.sets.is_kept_by_daemon(name) == own;
        let sets: Vec<(String, u16)> =
            self.ids.iter().filter(|(name, _)| meant(name)).map(|(name, id)| (name.to_owned(), id)).collect();
        sets.into_iter().try_for_each(|(name, id)| self.restore_set(kernel, &name, id))
    }

    pub(super) fn restore_set(&mut self, kernel: &Kernel, name: &str, id: u16) -> Result<()> {
        let present = kernel.elements(id)?;
        // After the list, and after the programs that were just then adding: what is listed is noted by then.
        if self.learns() && !present.is_empty() {
            kernel.wait_for_running_programs()?;
        }
        self.learn(Some(kernel))?;
        let mut wanted: HashMap<ElementKey, u64> = self
            .sets
            .elements(name, None)
            .map(|(element, member)| (keys::element(id, element), member.expires()))
            .collect();
        let mut surplus = Vec::new();
        for (key, present) in present {
            match wanted.get(&key) {
                None => surplus.push(key),
                Some(expires) if *expires == present.expires => {
                    wanted.remove(&key);
                }
                Some(_) => {}
            }
        }
        let missing: Vec<_> = wanted.into_iter().map(|(key, expires)| (key, Element { expires })).collect();
        kernel.add_elements(id, &missing)?;
        kernel.remove_elements(id, &surplus)?;
        Ok(())
    }
}
