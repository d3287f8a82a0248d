//! What is Ringfence's own in the kernel, for policies that say `protect_self`.

use std::{
    collections::HashSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use ringfence_abi::host::{KEEPS_SELF, OWN_LINK, OWN_MAP, OWN_PROGRAM, OwnObject};

use super::{Needs, subjects::exe_path};
use crate::kernel::{
    Kernel,
    error::{Context as _, Result},
    info::fd_info,
    sys,
};

impl Kernel {
    /// Brings the list of our own objects, and of who may reach them, up to date.
    pub(super) fn enter_own(&self, needs: Needs) -> Result<()> {
        let what = || "cannot enter what is Ringfence's own".to_owned();
        let mut own = HashSet::new();
        if needs.keeps(KEEPS_SELF) {
            self.set_keepers()?;
            find(self.pins.root(), &mut own)?;
        }
        let map = &self.host.maps.own;
        let mut gone = Vec::new();
        map.for_each(|object, _| {
            if !own.remove(&object) {
                gone.push(object);
            }
        })
        .context(what)?;
        for object in own {
            map.set(&object, &0).context(what)?;
        }
        for object in gone {
            map.remove(&object).context(what)?;
        }
        Ok(())
    }

    /// The daemon, and `ringctl` beside it or where packages put it.
    fn set_keepers(&self) -> Result<()> {
        let daemon = fs::read_link("/proc/self/exe").context(|| "cannot tell the daemon's own path".to_owned())?;
        let mut keepers = [0; 4];
        let installed = ["/usr/bin/ringctl", "/usr/local/bin/ringctl"].map(PathBuf::from);
        let paths = [daemon.clone(), daemon.with_file_name("ringctl")].into_iter().chain(installed);
        for (keeper, path) in keepers.iter_mut().zip(paths) {
            if let Some(path) = exe_path(path.as_os_str().as_bytes()) {
                *keeper = self.executable(&path)?;
            }
        }
        self.host.maps.state.set_keepers(keepers);
        Ok(())
    }
}

/// Everything that is pinned below a directory.
fn find(directory: &Path, own: &mut HashSet<OwnObject>) -> Result<()> {
    let what = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(directory).context(what)? {
        let path = entry.context(what)?.path();
        if path.is_dir() {
            find(&path, own)?;
            continue;
        }
        let what = || format!("cannot look at {}", path.display());
        let Some(object) = sys::open_pin(&path).context(what)? else { continue };
        // A link shows its program, too.
        for (kind, field) in [(OWN_LINK, "link_id"), (OWN_MAP, "map_id"), (OWN_PROGRAM, "prog_id")] {
            if let Some(id) = fd_info(&object, field).context(what)? {
                own.insert(OwnObject { kind, id: id as u32 });
            }
        }
    }
    Ok(())
}
