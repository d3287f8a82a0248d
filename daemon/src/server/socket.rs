//! The Unix socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::unistd::{Gid, chown};

use super::peer::readers;
use crate::error::{Error, Result};

/// Listens at `path`, for root and the group `ringfence` if there is one. A socket that nobody listens at any more is
/// replaced.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        fs::create_dir_all(directory).map_err(Error::system(format!("cannot make {}", directory.display())))?;
        // Members of the group must get to the socket.
        let open = fs::set_permissions(directory, Permissions::from_mode(0o755));
        open.map_err(Error::system(format!("cannot open {}", directory.display())))?;
    }
    if UnixStream::connect(path).is_ok() {
        let error = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        return Err(Error::System { what: format!("another daemon listens at {shown}"), error });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::system(format!("cannot replace {shown}"))(error));
        }
        _ => {}
    }
    // The process's umask makes it root's alone until the group is set.
    let listener = UnixListener::bind(path).map_err(Error::system(format!("cannot listen at {shown}")))?;
    let failed = || format!("cannot set the permissions of {shown}");
    if let Some(group) = readers() {
        chown(path, None, Some(Gid::from_raw(group))).map_err(|error| Error::system(failed())(error.into()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(Error::system(failed()))?;
    listener.set_nonblocking(true).map_err(Error::system(failed()))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/ringfenced.sock");
        let first = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(listen(&path).unwrap_err().to_string().contains("another daemon"));
        drop(first);
        listen(&path).unwrap();
    }
}
