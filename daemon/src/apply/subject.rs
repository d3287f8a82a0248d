//! A call as it is asked about, completed from a live process.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ringfence_abi::host::op;
use ringfence_api::AccessRequest;
use ringfence_policy::model::{Access, ObjectPath};

use super::access::operation;
use crate::error::{Error, Result};

/// Of whom nothing is said: what no pattern but `/**` names.
const ANY: &str = "/";
/// `unset` as the kernel has it.
const NO_LOGIN: u32 = u32::MAX;
/// A process tree is not this deep unless it is made to be.
const MAX_ANCESTORS: usize = 64;

/// What `/proc` says of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Subject {
    exe: Option<String>,
    ancestors: Vec<String>,
    euid: u32,
    fsuid: u32,
    gids: Vec<u32>,
    auid: u32,
    cgroup: Option<String>,
    container: bool,
}

/// The whole of a call: what was said, else what the process has, else what a usual call has.
pub fn complete(request: AccessRequest) -> Result<Access> {
    let said = request.access;
    let number = operation(&said.op)?;
    let path = said.path.map(object).transpose()?;
    let on_file = matches!(path, Some(ObjectPath::Host(_)));
    let from = match request.pid {
        Some(pid) => Subject::of(pid)?,
        None => {
            Subject { exe: Some(ANY.to_owned()), cgroup: Some(ANY.to_owned()), auid: NO_LOGIN, ..Subject::default() }
        }
    };
    let uid = if on_file { from.fsuid } else { from.euid };
    Ok(Access {
        op: number,
        fstype: said.fstype,
        anonymous: said.anonymous.or((number == op::EXEC || number == op::MAP_EXEC).then_some(false)),
        owner: said.owner.or_else(|| owner(path.as_ref(), said.uid.unwrap_or(uid))),
        path,
        exe: said.exe.or(from.exe),
        tainted: said.tainted,
        ancestors: if said.ancestor.is_empty() { from.ancestors } else { said.ancestor },
        uid: said.uid.unwrap_or(uid),
        gids: if said.gid.is_empty() { from.gids } else { said.gid },
        auid: said.auid.unwrap_or(from.auid),
        cgroup: said.cgroup.or(from.cgroup),
        container: said.container.unwrap_or(from.container),
        to: said.to,
        port: said.port,
        proto: said.proto,
        family: said.family,
        kind: said.kind,
        capability: said.capability,
        signal: said.signal,
        target: said.target,
    })
}

/// Whether a file belongs to a user; one that cannot be looked at does not.
fn owner(path: Option<&ObjectPath>, uid: u32) -> Option<bool> {
    let Some(ObjectPath::Host(path)) = path else { return None };
    Some(fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == uid))
}

/// `/host/path`, or `@name` of an abstract socket.
fn object(text: String) -> Result<ObjectPath> {
    match text.strip_prefix('@') {
        Some(name) => Ok(ObjectPath::Abstract(name.to_owned())),
        None if text.starts_with('/') => Ok(ObjectPath::Host(text)),
        None => Err(Error::BadInput(format!(
            "`path`: `{}` is neither a host path nor `@NAME` of an abstract socket",
            text.escape_debug()
        ))),
    }
}

impl Subject {
    fn of(pid: u32) -> Result<Self> {
        let root = PathBuf::from(format!("/proc/{pid}"));
        let cannot = || format!("cannot look at process {pid}");
        let status = fs::read_to_string(root.join("status")).map_err(Error::system(cannot()))?;
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved, file system.
        let (uids, gids) = (numbers("Uid:"), numbers("Gid:"));
        let at = |list: &[u32], index: usize| list.get(index).copied().unwrap_or_default();
        let mut groups = numbers("Groups:");
        groups.extend([at(&gids, 1), at(&gids, 3)]);
        groups.sort_unstable();
        groups.dedup();
        let auid = fs::read_to_string(root.join("loginuid")).ok().and_then(|text| text.trim().parse().ok());
        let cgroup = fs::read_to_string(root.join("cgroup")).ok();
        let cgroup = cgroup.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
        let namespace = |root: &Path| fs::read_link(root.join("ns/pid")).ok();
        let own = namespace(&root);
        Ok(Self {
            exe: executable(&root),
            ancestors: ancestors(at(&numbers("PPid:"), 0)),
            euid: at(&uids, 1),
            fsuid: at(&uids, 3),
            gids: groups,
            auid: auid.unwrap_or(NO_LOGIN),
            cgroup: cgroup.map(str::to_owned),
            container: own.is_some() && own != namespace(Path::new("/proc/1")),
        })
    }
}

/// The executable as it was when it was started.
fn executable(process: &Path) -> Option<String> {
    let path = fs::read_link(process.join("exe")).ok()?;
    let path = path.to_str()?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

fn ancestors(mut pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..MAX_ANCESTORS {
        let root = PathBuf::from(format!("/proc/{pid}"));
        let Ok(status) = fs::read_to_string(root.join("status")) else { break };
        if let Some(path) = executable(&root)
            && !found.contains(&path)
        {
            found.push(path);
        }
        match status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|text| text.trim().parse().ok()) {
            Some(parent) if parent != 0 => pid = parent,
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use ringfence_api::Access as Said;

    use super::*;

    fn said(op: &str) -> Said {
        Said { op: op.into(), ..Said::default() }
    }

    #[test]
    fn a_live_process_lends_what_was_not_said() {
        let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let access = Said { path: Some("/etc/shadow".into()), uid: Some(1234), ..said("read") };
        let access = complete(AccessRequest { access, pid: Some(std::process::id()) }).unwrap();
        assert_eq!((access.op, access.exe, access.uid), (op::READ, Some(own), 1234));
        assert!(!access.ancestors.is_empty() && !access.gids.is_empty());
        assert_eq!((access.owner, access.anonymous), (Some(false), None));
        let own = Said { path: Some("/".into()), uid: Some(0), ..said("exec") };
        let access = complete(AccessRequest { access: own, pid: None }).unwrap();
        assert_eq!((access.owner, access.anonymous), (Some(true), Some(false)));
        let gone = AccessRequest { access: said("read"), pid: Some(u32::MAX) };
        assert!(complete(gone).unwrap_err().to_string().contains("cannot look at process"));
    }

    #[test]
    fn what_is_left_out_is_absent() {
        let access = complete(AccessRequest { access: said("setuid"), pid: None }).unwrap();
        assert_eq!((access.path, access.owner, access.anonymous), (None, None, None));
        assert_eq!(access.exe.as_deref(), Some("/"));
        assert_eq!((access.uid, access.auid), (0, NO_LOGIN));
        let abstract_name = Said { path: Some("@x".into()), ..said("connect") };
        let access = complete(AccessRequest { access: abstract_name, pid: None }).unwrap();
        assert_eq!(access.path, Some(ObjectPath::Abstract("x".into())));
        for (op, path) in [("all", "/x"), ("reed", "/x"), ("read", "x")] {
            let access = Said { path: Some(path.into()), ..said(op) };
            let error = complete(AccessRequest { access, pid: None }).unwrap_err();
            assert_eq!(error.code(), ringfence_api::ErrorCode::BadInput, "{op} {path}");
        }
    }
}
