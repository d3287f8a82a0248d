//! Follows the set files of the generation in force.
//!
//! What the kernel says (inotify, on the directories: files are replaced by renaming another over them) is only a reason to
//! look; what a file is, its inode and times tell. So a change that was not announced (a network file system, a directory
//! that was swapped, too many events) is found by the next look that is due anyway.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::apply::feeds::Refreshed;
use crate::apply::switch::note;
use crate::daemon::Daemon;
use crate::error::{blocking, with_sources};

/// A change is taken when nothing more has happened for so long.
const QUIET: Duration = Duration::from_millis(300);
/// Or after so long: several feeds may change one after the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the files are looked at that nothing was said about.
const LOOKS: Duration = Duration::from_secs(30);
/// The same while one has changed of which nobody said that it is whole.
const SETTLING: Duration = Duration::from_secs(2);
/// Bursts of events that are kept until they are looked at; more stay in the kernel.
const EVENTS: usize = 64;
/// How often it is tried again while a generation waits for its confirmation.
const AGAIN: Duration = Duration::from_secs(1);

/// What can be told of a file without reading it; all zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Self {
        fs::metadata(path).map_or_else(
            |_| Self::default(),
            |file| Self {
                inode: (file.dev(), file.ino()),
                size: file.size(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            },
        )
    }
}

/// The files, as they were when they were last taken or refused.
#[derive(Debug, Default)]
struct Files {
    seen: BTreeMap<PathBuf, Stamp>,
    // As the last look found them: a file of which nobody said that it is whole is taken when two looks agree.
    glimpsed: BTreeMap<PathBuf, Stamp>,
    due: BTreeSet<PathBuf>,
}

impl Files {
    /// Another generation is in force. What is not what it was made from is due, unless it shall not be looked at.
    fn renew(&mut self, copies: &BTreeMap<PathBuf, PathBuf>, kept: bool) {
        self.due.retain(|path| copies.contains_key(path));
        self.seen.clear();
        self.glimpsed.clear();
        for (path, copy) in copies {
            // Before it is read: what changes meanwhile has another stamp then.
            self.seen.insert(path.clone(), Stamp::of(path));
            if !kept && !is_same(path, copy).unwrap_or(false) {
                self.due.insert(path.clone());
            }
        }
    }

    /// Looks at all files, of which some are known to be `whole`.
    fn look(&mut self, whole: &BTreeSet<PathBuf>) {
        for (path, seen) in &mut self.seen {
            let now = Stamp::of(path);
            let steady = self.glimpsed.insert(path.clone(), now) == Some(now);
            if now != *seen && (steady || whole.contains(path)) {
                *seen = now;
                self.due.insert(path.clone());
            }
        }
    }

    /// Whether some file has changed and may be in the middle of it.
    fn are_unsettled(&self) -> bool {
        self.glimpsed.iter().any(|(path, glimpsed)| self.seen.get(path).is_some_and(|seen| seen != glimpsed))
    }
}

/// Whether two files have the same contents. One that is missing is like an empty one: it was optional.
fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    // Without blocking: a FIFO would wait for a writer.
    let open = |path: &Path| match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::ErrorKind::InvalidInput.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (mut a, mut b) = match (open(a)?, open(b)?) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return Ok(true),
        _ => return Ok(false),
    };
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = a.read(&mut one)?;
        if read == 0 {
            return Ok(true);
        }
        if b.read_exact(&mut other[..read]).is_err() || one[..read] != other[..read] {
            return Ok(false);
        }
    }
}

/// The kernel's notices about the directories that the files are in.
#[derive(Debug)]
struct Notices {
    inotify: Arc<Inotify>,
    events: mpsc::Receiver<nix::Result<Vec<InotifyEvent>>>,
    // The names that matter in each directory, and which files they stand for.
    names: HashMap<WatchDescriptor, Names>,
}

type Names = BTreeMap<OsString, BTreeSet<PathBuf>>;

impl Notices {
    fn new() -> io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
        let (sender, events) = mpsc::channel(EVENTS);
        let reader = Arc::clone(&inotify);
        // Reading blocks, so it has a thread of its own, which ends when nobody wants to hear of it.
        let read = move || {
            let mut goes_on = true;
            while goes_on {
                let events = match reader.read_events() {
                    Err(Errno::EINTR) => continue,
                    events => events,
                };
                let read = events.is_ok();
                goes_on = sender.blocking_send(events).is_ok() && read;
            }
        };
        thread::Builder::new().name("set-files".to_owned()).spawn(read)?;
        Ok(Self { inotify, events, names: HashMap::new() })
    }

    /// Watches the directories of these files, and of what they are links to. What was wrong, of the first one.
    fn watch(&mut self, files: impl Iterator<Item = PathBuf>) -> Option<String> {
        // Written and closed, renamed to and away, deleted. Not each write, nor when it is made: it is not whole then.
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut wanted: BTreeMap<PathBuf, Names> = BTreeMap::new();
        for file in files {
            for path in fs::canonicalize(&file).ok().into_iter().chain([file.clone()]) {
                if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
                    let names = wanted.entry(directory.to_owned()).or_default();
                    names.entry(name.to_owned()).or_default().insert(file.clone());
                }
            }
        }
        let (mut names, mut problem): (HashMap<_, Names>, _) = (HashMap::new(), None);
        for (directory, files) in wanted {
            match self.inotify.add_watch(&directory, mask) {
                // One directory may have several names.
                Ok(watch) => {
                    let known = names.entry(watch).or_default();
                    for (name, files) in files {
                        known.entry(name).or_default().extend(files);
                    }
                }
                Err(errno) => {
                    problem.get_or_insert_with(|| format!("{}: {}", directory.display(), errno.desc()));
                }
            }
        }
        for old in self.names.keys().filter(|old| !names.contains_key(old)) {
            // The kernel may have dropped it by itself.
            let _ = self.inotify.rm_watch(*old);
        }
        self.names = names;
        problem
    }

    /// Waits until something happens to one of the files, or to a directory. The files that are whole now.
    async fn next(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        loop {
            let events = self.events.recv().await.ok_or(io::ErrorKind::BrokenPipe)??;
            let mut matter = events.iter().filter(|event| self.matters(event)).peekable();
            if matter.peek().is_some() {
                return Ok(matter.filter_map(|event| self.whole(event)).flatten().cloned().collect());
            }
        }
    }

    fn matters(&self, event: &InotifyEvent) -> bool {
        match (&event.name, self.names.get(&event.wd)) {
            (Some(name), Some(names)) => names.contains_key(name),
            // The directory itself, or more events than the kernel keeps. `IN_IGNORED` is the answer to `rm_watch`.
            _ => !event.mask.contains(AddWatchFlags::IN_IGNORED),
        }
    }

    fn whole(&self, event: &InotifyEvent) -> Option<&BTreeSet<PathBuf>> {
        let whole = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        self.names.get(&event.wd)?.get(event.name.as_ref()?).filter(|_| event.mask.intersects(whole))
    }
}

/// Follows the set files for as long as the daemon runs.
pub async fn follow(daemon: Arc<Daemon>) {
    let mut notices = match Notices::new() {
        Ok(notices) => Some(notices),
        Err(error) => {
            tell(&daemon, Some(error.to_string()));
            None
        }
    };
    let mut files = Files::default();
    let (mut renew, nothing) = (true, BTreeSet::new());
    loop {
        if std::mem::take(&mut renew) {
            files = renewed(&daemon, files).await;
        }
        if let Some(notices) = &mut notices {
            tell(&daemon, notices.watch(files.seen.keys().cloned()));
        }
        if !files.due.is_empty() {
            if !refreshed(&daemon, &mut files).await {
                sleep(AGAIN).await;
            }
            continue;
        }
        let pause = if files.are_unsettled() { SETTLING } else { LOOKS };
        tokio::select! {
            () = daemon.feeds.changed.notified() => renew = true,
            whole = announced(notices.as_mut()) => match whole {
                Ok(whole) => files.look(&whole),
                Err(error) => {
                    tell(&daemon, Some(error.to_string()));
                    notices = None;
                }
            },
            () = sleep(pause) => files.look(&nothing),
        }
    }
}

/// Waits for a notice, and then until nothing more comes. The files that are whole.
async fn announced(notices: Option<&mut Notices>) -> io::Result<BTreeSet<PathBuf>> {
    let Some(notices) = notices else { return std::future::pending().await };
    let mut whole = notices.next().await?;
    let end = Instant::now() + PATIENCE;
    while let Ok(next) = timeout_at((Instant::now() + QUIET).min(end), notices.next()).await {
        whole.extend(next?);
    }
    Ok(whole)
}

async fn renewed(daemon: &Arc<Daemon>, mut files: Files) -> Files {
    let worker = Arc::clone(daemon);
    let work = move || {
        files.renew(&worker.set_files()?, worker.feeds.are_kept());
        Ok(files)
    };
    blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(error = with_sources(&error), "the set files could not be found out");
        Files::default()
    })
}

/// Takes what is due; `false`: not now.
async fn refreshed(daemon: &Arc<Daemon>, files: &mut Files) -> bool {
    let (worker, due) = (Arc::clone(daemon), files.due.clone());
    match blocking(move || worker.refresh_sets(&due)).await {
        Ok(Refreshed::Later) => return false,
        Ok(Refreshed::Done) => {}
        Err(error) => tracing::error!(error = with_sources(&error), "the set files could not be read again"),
    }
    files.due.clear();
    true
}

fn tell(daemon: &Daemon, problem: Option<String>) {
    let problem = problem.map(|why| format!("changes of set files are found every {} s only: {why}", LOOKS.as_secs()));
    // Not on each round: it is logged.
    let mut control = daemon.control();
    if control.problems.get("set-watch") != problem.as_ref() {
        note(&mut control, "set-watch", problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(files: &mut Files) -> usize {
        std::mem::take(&mut files.due).len()
    }

    #[test]
    fn a_file_is_due_when_it_is_another_one_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("feed"), directory.path().join("copy"));
        fs::write(&path, "10.0.0.1\n").unwrap();
        fs::write(&copy, "10.0.0.1\n").unwrap();
        let copies = BTreeMap::from([(path.clone(), copy)]);
        let (whole, nothing) = (BTreeSet::from([path.clone()]), BTreeSet::new());
        let mut files = Files::default();
        files.renew(&copies, false);
        assert_eq!(due(&mut files), 0);
        files.look(&whole);
        assert_eq!(due(&mut files), 0);
        // Replaced by renaming, as feeds are.
        fs::write(directory.path().join("new"), "10.0.0.2\n").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        files.look(&whole);
        assert_eq!(due(&mut files), 1);
        files.look(&whole);
        assert_eq!(due(&mut files), 0);
        // Without a notice only what is the same twice: it may be being written.
        fs::remove_file(&path).unwrap();
        files.look(&nothing);
        assert_eq!((due(&mut files), files.are_unsettled()), (0, true));
        files.look(&nothing);
        assert_eq!((due(&mut files), files.are_unsettled()), (1, false));
        // With another generation it is compared with the copy; not where that came back as it was.
        files.renew(&copies, true);
        assert_eq!(due(&mut files), 0);
        files.renew(&copies, false);
        assert_eq!(due(&mut files), 1);
        files.renew(&BTreeMap::new(), false);
        files.look(&whole);
        assert_eq!(due(&mut files), 0);
    }

    #[test]
    fn notices_are_about_the_files_and_what_they_link_to() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            fs::create_dir(at("real")).unwrap();
            fs::write(at("real/feed"), "").unwrap();
            std::os::unix::fs::symlink("real/feed", at("link")).unwrap();
            let mut notices = Notices::new().unwrap();
            assert_eq!(notices.watch([at("link")].into_iter()), None);
            let whole = BTreeSet::from([at("link")]);
            let heard = async |notices: &mut Notices| {
                tokio::time::timeout(Duration::from_secs(1), notices.next()).await.ok().map(io::Result::unwrap)
            };
            fs::write(at(".link.swp"), "an editor's file").unwrap();
            fs::write(at("real/other"), "").unwrap();
            assert_eq!(heard(&mut notices).await, None);
            fs::write(at("real/feed"), "10.0.0.1\n").unwrap();
            assert_eq!(heard(&mut notices).await, Some(whole.clone()));
            fs::write(at("new"), "10.0.0.2\n").unwrap();
            fs::rename(at("new"), at("link")).unwrap();
            assert_eq!(heard(&mut notices).await, Some(whole.clone()));
            let missing = notices.watch([at("gone/feed")].into_iter());
            assert!(missing.is_some_and(|why| why.contains("gone")));
        });
    }
}
