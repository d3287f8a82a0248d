//! Executables of processes that ran before the programs kept them up.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
};

use ringfence_abi::{
    host::{
        EXE_FOREIGN, EXE_PATH, EXE_UNKNOWN, ExePath, KEEPS_SUBJECTS, Mount, MountKey, SUBJECT_ANCESTORS_LOST,
        SUBJECT_KNOWN, SUBJECT_TAINTED, Subject,
    },
    names,
};

use super::{
    generation::HostPart,
    mountinfo::{self, Line},
};
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    generation::Loaded,
    maps, sys,
    table::Table,
};

/// Scans at most: each but the last finds processes that began during the one before.
const MAX_SCANS: u32 = 32;
const DELETED: &[u8] = b" (deleted)";

/// What a scan saw of a process.
struct Process {
    parent: u32,
    // Clock ticks since boot; tells two processes with one number apart.
    started: u64,
    link: Vec<u8>,
    exe: u32,
}

/// Processes by which rules about executables go wrong, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoubtfulProcesses {
    /// Their executable cannot be told: every deny by it matches, no allow does.
    pub unknown: u64,
    /// They run foreign code, or are traced: no allow by their executable matches.
    pub tainted: u64,
}

/// How the mounts of each namespace lie, for the names of files in it.
struct Mounts {
    host: HashMap<MountKey, Mount>,
    namespaces: HashMap<u64, Vec<Line>>,
}

impl Kernel {
    /// Enters all processes that are not in the storage yet, or not with the executable they have now. `fresh`: what is
    /// in there is from a time since when nobody has kept it up.
    pub(super) fn scan_subjects(&self, part: &HostPart, fresh: bool) -> Result<()> {
        let subjects = self.subjects()?;
        let arena = part.read_arena()?;
        let mut mounts = Mounts::of(1)?;
        let mut done: HashMap<u32, (u64, Vec<u8>)> = HashMap::new();
        for _ in 0..MAX_SCANS {
            let processes = self.processes(&mut mounts)?;
            let mut news = false;
            for (pid, process) in &processes {
                let known =
                    done.get(pid).is_some_and(|(started, link)| (*started, link) == (process.started, &process.link));
                if known {
                    continue;
                }
                news = true;
                done.insert(*pid, (process.started, process.link.clone()));
                let tainted = || is_tainted(*pid, process, part, &arena, &mut mounts);
                enter(&subjects, *pid, process, &processes, fresh, tainted)?;
            }
            if !news {
                return Ok(());
            }
        }
        Err(KernelError::Full { what: "the list of processes to enter", limit: MAX_SCANS })
    }

    /// Processes of which the programs cannot tell the executable, or by which it permits nothing, at this moment. `None`
    /// while nothing asks for executables.
    pub fn doubtful_processes(&self, loaded: &[&Loaded]) -> Result<Option<DoubtfulProcesses>> {
        if self.host.support.lsm.is_some() || !self.needs(loaded)?.keeps(KEEPS_SUBJECTS) {
            return Ok(None);
        }
        let subjects = self.subjects()?;
        let mut found = DoubtfulProcesses::default();
        for pid in numbers()? {
            // A thread of the kernel has no executable; who cannot be opened has ended.
            let (Ok(_), Ok(pidfd)) = (fs::read_link(format!("/proc/{pid}/exe")), sys::pidfd(pid)) else { continue };
            let key = pidfd.as_raw_fd().cast_unsigned();
            let what = || format!("cannot look at process {pid}");
            let subject = match subjects.get(&key) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
                result => result.context(what)?.unwrap_or_default(),
            };
            if subject.flags & SUBJECT_KNOWN == 0 || subject.exe == EXE_UNKNOWN {
                found.unknown += 1;
            } else if subject.flags & SUBJECT_TAINTED != 0 {
                found.tainted += 1;
            }
        }
        Ok(Some(found))
    }

    fn subjects(&self) -> Result<Table<u32, Subject>> {
        let path = self.pins.map(names::SUBJECTS);
        let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
        maps::table(map.ok_or(KernelError::Foreign { path })?)
    }

    /// The id of an executable; [`EXE_UNKNOWN`] for one whose path is too long, or when there is no room.
    pub(super) fn executable(&self, path: &ExePath) -> Result<u32> {
        let what = || "cannot give an executable its number".to_owned();
        let maps = &self.host.maps;
        if let Some(id) = maps.exes.get(path).context(what)? {
            return Ok(id);
        }
        let id = maps.state.next_exe();
        let Some(id) = u32::try_from(id).ok().filter(|id| (*id as usize) < ringfence_abi::host::EXES) else {
            return Ok(EXE_UNKNOWN);
        };
        // A program may have given it one meanwhile.
        let (key, value) = (sys::bytes(path), sys::bytes(&id));
        match sys::update(maps.exes.as_fd(), key, value, sys::NO_EXIST) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(maps.exes.get(path).context(what)?.unwrap_or(EXE_UNKNOWN))
            }
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(EXE_UNKNOWN),
            result => result.map(|()| id).context(what),
        }
    }

    fn processes(&self, mounts: &mut Mounts) -> Result<HashMap<u32, Process>> {
        let mut processes = HashMap::new();
        for pid in numbers()? {
            // What cannot be read has ended, or is a thread of the kernel.
            let Some((parent, started)) = stat(pid) else { continue };
            let Ok(link) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
            let link = link.into_os_string().into_encoded_bytes();
            let exe = match mounts.name(pid, &link) {
                Some(path) => self.executable(&path)?,
                None => EXE_UNKNOWN,
            };
            processes.insert(pid, Process { parent, started, link, exe });
        }
        Ok(processes)
    }
}

/// The numbers of all processes.
fn numbers() -> Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc").context(|| "cannot list the processes".to_owned())?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether a process runs code from a file that is not trusted and not its executable, or is traced.
fn is_tainted(pid: u32, process: &Process, part: &HostPart, arena: &[u8], mounts: &mut Mounts) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let traced = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_some_and(|id| id.trim() != "0");
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut foreign = mapped_files(&maps).filter(|file| **file != process.link);
    traced || foreign.any(|file| mounts.name(pid, file).is_none_or(|path| !part.trusts(arena, &path)))
}

/// Writes what is known of a process, unless the programs know it already.
fn enter(
    subjects: &Table<u32, Subject>,
    pid: u32,
    process: &Process,
    all: &HashMap<u32, Process>,
    fresh: bool,
    tainted: impl FnOnce() -> bool,
) -> Result<()> {
    let what = || format!("cannot enter process {pid}");
    // One that has ended, or is another one by now, needs no entry.
    let Ok(pidfd) = sys::pidfd(pid) else { return Ok(()) };
    if stat(pid).is_none_or(|(_, started)| started != process.started) {
        return Ok(());
    }
    let key = pidfd.as_raw_fd().cast_unsigned();
    let old = subjects.get(&key).context(what)?;
    if !fresh && old.is_some_and(|old| old.flags & SUBJECT_KNOWN != 0 && old.exe == process.exe) {
        return Ok(());
    }
    let mut subject = Subject { exe: process.exe, flags: SUBJECT_KNOWN, ..Subject::default() };
    if tainted() {
        subject.flags |= SUBJECT_TAINTED;
    }
    add_ancestors(&mut subject, process, all);
    match subjects.set(&key, &subject) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.context(what),
    }
}

fn add_ancestors(subject: &mut Subject, process: &Process, all: &HashMap<u32, Process>) {
    let mut next = process.parent;
    // Numbers may be given anew between two reads; no line of ancestors is longer than there are processes.
    for _ in 0..=all.len() {
        let Some(ancestor) = all.get(&next) else { break };
        let known = subject.ancestors.iter().take(subject.count as usize).any(|exe| *exe == ancestor.exe);
        if !known && ancestor.exe != EXE_UNKNOWN {
            match subject.ancestors.get_mut(subject.count as usize) {
                Some(place) => {
                    *place = ancestor.exe;
                    subject.count += 1;
                }
                None => subject.flags |= SUBJECT_ANCESTORS_LOST,
            }
        }
        if ancestor.exe == EXE_UNKNOWN {
            subject.flags |= SUBJECT_ANCESTORS_LOST;
        }
        next = ancestor.parent;
    }
}

impl Mounts {
    /// With the mounts of this process's namespace as the host's.
    fn of(host: u32) -> Result<Self> {
        let text = fs::read(format!("/proc/{host}/mountinfo")).context(|| "cannot read the mount table".to_owned())?;
        let lines = mountinfo::parse(&text);
        let (table, _) = mountinfo::table(&lines);
        let namespace =
            fs::metadata(format!("/proc/{host}/ns/mnt")).context(|| "cannot look at the mount namespace".to_owned())?;
        Ok(Self { host: table, namespaces: HashMap::from([(namespace.ino(), lines)]) })
    }

    /// The name under which the programs know a file that a process shows by this path. `None`: it cannot be told.
    fn name(&mut self, pid: u32, path: &[u8]) -> Option<ExePath> {
        let path = as_it_was(pid, path)?;
        let namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino();
        let lines = match self.namespaces.entry(namespace) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                // What a process in a chroot is shown lacks the way to it.
                let whole = fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root.as_os_str() == "/");
                let text = whole.then(|| fs::read(format!("/proc/{pid}/mountinfo")).ok())??;
                entry.insert(mountinfo::parse(&text))
            }
        };
        let (device, within) = mountinfo::place(lines, &path)?;
        let known = mountinfo::host_path(&self.host, device, &within);
        exe_path(&known.unwrap_or_else(|| [&[EXE_FOREIGN], &within[..]].concat()))
    }
}

/// A path without what the kernel adds to that of a removed file, which had this name when it was started.
fn as_it_was(pid: u32, path: &[u8]) -> Option<Vec<u8>> {
    let Some(before) = path.strip_suffix(DELETED) else { return Some(path.to_owned()) };
    if before.starts_with(b"/memfd:") {
        return None;
    }
    let inside = [format!("/proc/{pid}/root").as_bytes(), path].concat();
    let really_named_so = fs::symlink_metadata(OsStr::from_bytes(&inside)).is_ok();
    Some(if really_named_so { path } else { before }.to_owned())
}

/// A key of `EXES`; `None`: too long.
pub fn exe_path(path: &[u8]) -> Option<ExePath> {
    let mut bytes = [0; EXE_PATH];
    bytes.get_mut(..path.len())?.copy_from_slice(path);
    Some(ExePath { bytes })
}

/// Parent, and when it was started.
fn stat(pid: u32) -> Option<(u32, u64)> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second column may hold anything, parentheses and spaces included.
fn parse_stat(line: &[u8]) -> Option<(u32, u64)> {
    let after = line.iter().rposition(|byte| *byte == b')')? + 1;
    let mut columns = std::str::from_utf8(&line[after..]).ok()?.split_ascii_whitespace();
    let parent = columns.nth(1)?.parse().ok()?;
    Some((parent, columns.nth(17)?.parse().ok()?))
}

/// Files that are mapped executable, from `/proc/PID/maps`.
fn mapped_files(maps: &[u8]) -> impl Iterator<Item = &[u8]> {
    maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut columns = line.splitn(2, |byte| *byte == b' ').nth(1)?.splitn(5, |byte| *byte == b' ');
        let executable = columns.next()?.get(2) == Some(&b'x');
        // Offset, device, inode; then the path, behind blanks.
        let path = columns.nth(3)?.trim_ascii_start();
        (executable && path.first() == Some(&b'/')).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use ringfence_abi::host::MAX_ANCESTORS;

    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let tail = "S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2";
        assert_eq!(parse_stat(format!("42 (a) b (x) {tail}").as_bytes()), Some((7, 12345)));
        assert_eq!(parse_stat(b"42 (sh"), None);
    }

    #[test]
    fn only_files_that_are_mapped_executable_count() {
        let maps = b"55d0-55d1 r--p 00000000 fe:00 1234                       /usr/bin/cat
55d1-55d6 r-xp 00002000 fe:00 1234                       /usr/bin/cat
7f00-7f01 r-xp 00000000 fe:00 77                         /tmp/evil lib.so (deleted)
7f01-7f02 rwxp 00000000 00:00 0
7ffc-7ffd r-xp 00000000 00:00 0                          [vdso]
";
        let files: Vec<&[u8]> = mapped_files(maps).collect();
        assert_eq!(files, [&b"/usr/bin/cat"[..], b"/tmp/evil lib.so (deleted)"]);
    }

    #[test]
    fn this_process_is_known_by_its_host_path() {
        let mut mounts = Mounts::of(std::process::id()).unwrap();
        let link = fs::read_link("/proc/self/exe").unwrap();
        let named = mounts.name(std::process::id(), link.as_os_str().as_bytes()).unwrap();
        assert_eq!(named, exe_path(link.as_os_str().as_bytes()).unwrap());
    }

    #[test]
    fn a_removed_executable_keeps_its_name_and_memory_has_none() {
        let pid = std::process::id();
        let mut mounts = Mounts::of(pid).unwrap();
        assert_eq!(mounts.name(pid, b"/usr/bin/gone (deleted)"), exe_path(b"/usr/bin/gone"));
        assert_eq!(mounts.name(pid, b"/memfd:x (deleted)"), None);
        assert_eq!(exe_path(&[b'a'; EXE_PATH + 1]), None);
    }

    #[test]
    fn ancestors_are_each_there_once_and_more_than_fit_are_lost() {
        let process = |parent, exe| Process { parent, started: 0, link: Vec::new(), exe };
        let line = |count: u32| (1..=count).map(|pid| (pid, process(pid - 1, pid))).collect::<HashMap<_, _>>();
        let of = |all: &HashMap<u32, Process>, parent| {
            let mut subject = Subject::default();
            add_ancestors(&mut subject, &process(parent, 99), all);
            subject
        };
        let mut three = line(3);
        three.insert(4, process(3, 2));
        let subject = of(&three, 4);
        assert_eq!((subject.count, &subject.ancestors[..3], subject.flags), (3, &[2, 3, 1][..], 0));
        let subject = of(&line(20), 20);
        assert_eq!((subject.count, subject.flags), (MAX_ANCESTORS as u32, SUBJECT_ANCESTORS_LOST));
        // Two that claim to be each other's parent.
        let circle = HashMap::from([(1, process(2, 1)), (2, process(1, 2))]);
        assert_eq!(of(&circle, 1).count, 2);
    }
}
