//! Attaching the dispatchers of the host half, and detaching them. Each link is pinned as `hooks/NAME` and ends with
//! its pin.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::{Btf, Ebpf};

use super::{
    generation::{kernel_btf, object_of},
    hooks::Place,
    maps::pinned,
};
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    pins, sys,
};

/// The opened objects of the dispatchers, kept over one round of attaching.
#[derive(Default)]
struct Objects {
    security: Option<Ebpf>,
    cgroup: Option<Ebpf>,
    btf: Option<Btf>,
}

impl Kernel {
    /// Attaches at these places where nothing is attached yet.
    pub(super) fn attach_places(&self, places: impl Iterator<Item = Place>) -> Result<()> {
        let mut missing = Vec::new();
        for place in places {
            if !self.is_attached(&place)? {
                missing.push(place);
            }
        }
        // Another version of ours is no second daemon: it goes when ours is attached.
        if !missing.is_empty() && self.host_dispatchers()?.is_empty() && !self.formers.judge_calls()? {
            self.refuse_second(&missing)?;
        }
        let mut objects = Objects::default();
        missing.iter().try_for_each(|place| self.attach_place(place, &mut objects))
    }

    /// Whether a dispatcher is attached there.
    pub(super) fn is_attached(&self, place: &Place) -> Result<bool> {
        Ok(self.pinned_link(place)?.is_some())
    }

    /// Detaches.
    pub(super) fn detach_place(&self, place: &Place) -> Result<()> {
        let Some(link) = self.pinned_link(place)? else { return Ok(()) };
        if !place.is_security() {
            // At once, also if somebody looks at the link just now; the kernel cannot do that at security hooks.
            match sys::link_detach(link.as_fd()) {
                Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                    return Err(error).context(|| format!("cannot detach {}", place.name));
                }
                _ => {}
            }
        }
        pins::remove(&self.pins.hook(place.name))
    }

    /// Detaches from all places.
    pub(in crate::kernel) fn detach_host(&self) -> Result<()> {
        Place::security().chain(Place::cgroup()).try_for_each(|place| self.detach_place(&place))
    }

    /// Ids of the attached dispatchers.
    pub(in crate::kernel) fn host_dispatchers(&self) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for place in Place::security().chain(Place::cgroup()) {
            if let Some(link) = self.pinned_link(&place)? {
                let info = sys::link_info(link.as_fd()).context(|| format!("cannot look at {}", place.name))?;
                ids.push(info.program);
            }
        }
        Ok(ids)
    }

    fn pinned_link(&self, place: &Place) -> Result<Option<OwnedFd>> {
        let path = self.pins.hook(place.name);
        sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))
    }

    fn attach_place(&self, place: &Place, objects: &mut Objects) -> Result<()> {
        let object = object_of(place);
        let (dispatcher, what) = (place.dispatcher(), || format!("cannot attach to {}", place.name));
        let (program, target) = if place.is_security() {
            let dispatch = &crate::kernel::objects::LSM_DISPATCH;
            let ebpf = match &mut objects.security {
                Some(ebpf) => ebpf,
                none => none.insert(self.open_dispatchers(dispatch)?),
            };
            (dispatch.load_security(ebpf, &dispatcher, place.name, kernel_btf(&mut objects.btf)?)?, 0)
        } else {
            let cgroup = self.host.cgroup.as_ref().ok_or_else(|| {
                KernelError::Host(self.host.support.cgroup.clone().unwrap_or(super::Obstacle::NotBuilt))
            })?;
            let ebpf = match &mut objects.cgroup {
                Some(ebpf) => ebpf,
                none => none.insert(self.open_dispatchers(object)?),
            };
            (object.load(ebpf, &dispatcher)?, cgroup.as_raw_fd().cast_unsigned())
        };
        let link = sys::link_create(program.as_fd(), target, place.kind as u32, 0).context(what)?;
        // Not pinned, the link ends here.
        sys::pin(link.as_fd(), &self.pins.hook(place.name)).context(what)
    }

    fn open_dispatchers(&self, object: &crate::kernel::objects::Object) -> Result<Ebpf> {
        let shared = pinned(&self.pins);
        let all: Vec<_> = shared.iter().map(|(name, path)| (*name, path.as_path())).collect();
        object.open(&self.pins, &all, &[])
    }
}
