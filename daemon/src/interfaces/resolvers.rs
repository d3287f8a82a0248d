//! The name servers of resolv.conf, for `$resolvers`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What programs read, and the servers behind systemd-resolved's stub, which are what leaves the machine.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// A resolv.conf is a few lines; more than this is no resolv.conf.
const MAX_BYTES: u64 = 1 << 20;

/// The servers, read again when a file has changed.
#[derive(Debug)]
pub struct Resolvers {
    files: Vec<PathBuf>,
    seen: Vec<Option<(u64, u64, i64, i64)>>,
    servers: BTreeSet<IpAddr>,
}

impl Default for Resolvers {
    fn default() -> Self {
        Self::new(FILES.iter().map(PathBuf::from).collect())
    }
}

impl Resolvers {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { seen: Vec::new(), servers: BTreeSet::new(), files }
    }

    /// The servers. Costs two `stat` where nothing has changed.
    pub fn current(&mut self) -> &BTreeSet<IpAddr> {
        let stamp = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        let seen: Vec<_> = self.files.iter().map(stamp).collect();
        if seen != self.seen {
            self.servers.clear();
            for (path, stamp) in self.files.iter().zip(&seen) {
                if stamp.is_some_and(|(_, length, _, _)| length <= MAX_BYTES)
                    && let Ok(text) = std::fs::read_to_string(path)
                {
                    self.servers.extend(parse(&text));
                }
            }
            self.seen = seen;
        }
        &self.servers
    }
}

fn parse(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let server = (words.next()? == "nameserver").then(|| words.next())??;
        // A link-local server is written with its interface.
        server.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_follow_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut resolvers = Resolvers::new(vec![path.clone()]);
        assert!(resolvers.current().is_empty());
        std::fs::write(&path, "# nameserver 9.9.9.9\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\noptions edns0\n")
            .unwrap();
        let both = BTreeSet::from(["192.0.2.53".parse().unwrap(), "fe80::1".parse().unwrap()]);
        assert_eq!(*resolvers.current(), both);
        std::fs::write(&path, "nameserver nonsense\nnameserver\n").unwrap();
        assert!(resolvers.current().is_empty());
    }
}
