//! How large what is in the kernel is.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use aya::programs::ProgramInfo;

use super::{
    Kernel,
    error::{Context as _, Result},
    generation::Loaded,
    pins, sys,
};

/// A program's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Its name.
    pub name: String,
    /// Bytes of BPF instructions after the verifier removed dead code.
    pub translated: u32,
    /// Bytes of machine code.
    pub jitted: u32,
    /// Instructions the verifier looked at (kernel 5.16).
    pub verified: Option<u32>,
}

/// A map's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSize {
    /// Its name.
    pub name: String,
    /// Bytes of kernel memory it takes.
    pub bytes: u64,
}

impl Kernel {
    /// The programs and maps that outlive generations.
    pub fn sizes(&self) -> Result<(Vec<ProgramSize>, Vec<MapSize>)> {
        let (programs, _) = sizes(&self.pins.root().join("programs"))?;
        let (_, maps) = sizes(&self.pins.root().join("maps"))?;
        Ok((programs, maps))
    }

    /// The programs and maps of one generation.
    pub fn generation_sizes(&self, loaded: &Loaded) -> Result<(Vec<ProgramSize>, Vec<MapSize>)> {
        sizes(&loaded.directory)
    }
}

fn sizes(directory: &Path) -> Result<(Vec<ProgramSize>, Vec<MapSize>)> {
    let (mut programs, mut maps) = (Vec::new(), Vec::new());
    let mut names = pins::names(directory)?;
    names.sort_unstable();
    for name in names {
        let path = directory.join(&name);
        let what = || format!("cannot open {}", path.display());
        let Some(object) = sys::open_pin(&path).context(what)? else { continue };
        match fd_info(&object, "memlock").context(what)? {
            Some(bytes) if fd_info(&object, "map_type").context(what)?.is_some() => maps.push(MapSize { name, bytes }),
            _ => {
                let info = ProgramInfo::from_pin(&path).map_err(std::io::Error::other).context(what)?;
                programs.push(ProgramSize {
                    name,
                    translated: info.size_translated().unwrap_or_default(),
                    jitted: info.size_jitted(),
                    verified: info.verified_instruction_count(),
                });
            }
        }
    }
    Ok((programs, maps))
}

/// A number from `/proc/self/fdinfo`.
pub(super) fn fd_info(object: &OwnedFd, field: &str) -> std::io::Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":")?.trim().parse().ok());
    Ok(value)
}
