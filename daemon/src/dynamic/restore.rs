//! Brings the kernel's dynamic entries and elements to what is kept: after a reboot it has none, after a restart it may
//! differ where the daemon was killed between two steps.

use std::collections::HashMap;

use ringfence_abi::dynamic::{Element, ElementKey};

use super::{Dynamic, keys};
use crate::error::Result;
use crate::kernel::Kernel;

impl Dynamic {
    /// Adds what is missing and removes what is too much. Where both agree nothing is written, so that counts stay.
    pub fn restore(&self, kernel: &Kernel) -> Result<()> {
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
        let kept = self.ids.iter().filter(|(name, _)| !self.sets.is_kept_by_daemon(name));
        kept.into_iter().try_for_each(|(name, id)| self.restore_set(kernel, name, id))
    }

    /// The same for the sets that the daemon keeps by itself, once it knows what is in them.
    pub fn restore_own(&self, kernel: &Kernel) -> Result<()> {
        let own = self.ids.iter().filter(|(name, _)| self.sets.is_kept_by_daemon(name));
        own.into_iter().try_for_each(|(name, id)| self.restore_set(kernel, name, id))
    }

    pub(super) fn restore_set(&self, kernel: &Kernel, name: &str, id: u16) -> Result<()> {
        let mut wanted: HashMap<ElementKey, u64> = self
            .sets
            .elements(name, None)
            .map(|(element, member)| (keys::element(id, element), member.expiry.map_or(0, |expiry| expiry.boot)))
            .collect();
        let mut surplus = Vec::new();
        for (key, present) in kernel.elements(id)? {
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
