//! Removing everything Ringfence owns, and nothing else.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::programs::loaded_programs;
use nix::net::if_::if_nameindex;

use super::{
    Kernel,
    cell::NOTHING,
    error::{Context as _, KernelError, Result},
};

/// The kernel frees programs a grace period after their last user is gone.
const PATIENCE: Duration = Duration::from_secs(5);

impl Kernel {
    /// Detaches from all devices and hooks and removes all pins; then looks whether the kernel still has anything of ours.
    /// Every step can be repeated: after an error, `off` of a new [`Kernel`] goes on.
    pub fn off(self) -> Result<()> {
        self.detach_all()?;
        let mut ours = self.host_dispatchers()?;
        self.detach_host()?;
        self.retire_formers(|_| false, false)?;
        // Detached first: an empty cell drops.
        self.maps.cell.write(NOTHING);
        for interface in &if_nameindex().context(|| "cannot list the devices".to_owned())? {
            if self.left_on(interface.index()) {
                let left = format!("a program on {}", interface.name().to_string_lossy());
                return Err(KernelError::Left { left });
            }
        }
        ours.extend(self.dispatchers.ids());
        for loaded in self.adopt()? {
            ours.extend(loaded.program_ids()?);
        }
        self.pins.remove_all()?;
        let root = self.pins.root().to_owned();
        // Closes the descriptors, which keep programs and maps alive.
        drop(self);
        if root.exists() {
            return Err(KernelError::Left { left: root.display().to_string() });
        }
        let begin = Instant::now();
        loop {
            let left: Vec<u32> =
                loaded_programs().filter_map(|info| Some(info.ok()?.id())).filter(|id| ours.contains(id)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(KernelError::Left { left: format!("the programs with the ids {left:?}") });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
