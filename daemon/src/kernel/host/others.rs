//! Whether another ringfenced, with pins elsewhere, judges this machine's system calls already.
//!
//! Packets are told apart by device and namespace, system calls are not: two daemons would both judge every call, each by
//! its own policy. Programs of others can be listed only with `CAP_SYS_ADMIN`, which the daemon does not keep; their names
//! are in the kernel's list of symbols. (Not where `net.core.bpf_jit_kallsyms` is 0.)

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::fd::AsRawFd as _,
    thread::sleep,
    time::Duration,
};

use super::hooks::Place;
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    sys,
};

/// Bytes that the kernel keeps of a program's name, where it does not have it from the type information.
const NAME: usize = 15;
/// What was detached a moment ago is still listed while the kernel waits for its last users.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

impl Kernel {
    /// An error if somebody else judges at one of these places. To be asked while nothing of ours is attached.
    pub(super) fn refuse_second(&self, places: &[Place]) -> Result<()> {
        for look in 1.. {
            let Some(place) = self.judged_by_another(places)? else { return Ok(()) };
            if look == LOOKS {
                return Err(KernelError::Another { place: place.name });
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    fn judged_by_another(&self, places: &[Place]) -> Result<Option<Place>> {
        let mut occupied = Vec::new();
        for place in places {
            if place.is_security() || self.has_programs(place)? {
                occupied.push(*place);
            }
        }
        if occupied.is_empty() {
            return Ok(None);
        }
        let what = || "cannot read the kernel's list of symbols".to_owned();
        let list = BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms").context(what)?);
        first_dispatcher(list, &occupied).context(what)
    }

    /// Whether any program is attached at this place of our cgroup.
    fn has_programs(&self, place: &Place) -> Result<bool> {
        let Some(cgroup) = &self.host.cgroup else { return Ok(false) };
        let attached = sys::attached(cgroup.as_raw_fd().cast_unsigned(), place.kind as u32);
        Ok(!attached.context(|| format!("cannot ask what is attached to {}", place.name))?.is_empty())
    }
}

/// The first of the places whose dispatcher is listed, as `bpf_prog_TAG_NAME`.
fn first_dispatcher(mut list: impl BufRead, places: &[Place]) -> io::Result<Option<Place>> {
    let mut line = String::new();
    while list.read_line(&mut line)? != 0 {
        let symbol = line.split_ascii_whitespace().nth(2).and_then(|symbol| symbol.strip_prefix("bpf_prog_"));
        if let Some((_, name)) = symbol.and_then(|symbol| symbol.split_once('_')) {
            let is_dispatcher = |place: &&Place| {
                let dispatcher = place.dispatcher();
                name == dispatcher || name.len() == NAME && dispatcher.starts_with(name)
            };
            if let Some(place) = places.iter().find(is_dispatcher) {
                return Ok(Some(*place));
            }
        }
        line.clear();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatcher_is_known_by_its_name_also_a_shortened_one() {
        let places: Vec<Place> = Place::security().collect();
        let found = |name: &str| {
            let list = format!(
                "ffffffff81000000 T _text\nffffffffc0000000 t d_file_open\t[module]\nffffffffc0022058 t bpf_prog_614b434cd8324ecc_{name}\t[bpf]\n"
            );
            first_dispatcher(list.as_bytes(), &places).unwrap().map(|place| place.name)
        };
        assert_eq!(found("d_file_open"), Some("file_open"));
        assert_eq!(found("d_bprm_check_security"), Some("bprm_check_security"));
        assert_eq!(found("d_bprm_check_se"), Some("bprm_check_security"));
        assert_eq!(found("h_file_open"), None);
        assert_eq!(found("dispatch_tc"), None);
    }
}
