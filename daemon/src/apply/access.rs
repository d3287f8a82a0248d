//! `ringctl explain --access`: asked of the programs of the generation in force; why each rule did or did not match is
//! the naive evaluator's to say.

use std::net::IpAddr;

use ringfence_abi::chain::{PORT_ABSENT, PORT_UNKNOWN};
use ringfence_abi::counter::{BUILTINS, DYNAMIC};
use ringfence_abi::dynamic::{V4, V6};
use ringfence_abi::host::{
    AccessQuestion, EXE_UNKNOWN, FLAGS_ANONYMOUS, FLAGS_OWNER, LEAF_ABSENT, MASK_UNKNOWN, SMALL_ABSENT, TRI_ABSENT,
    TRI_NO, TRI_YES, op,
};
use ringfence_abi::verdict;
use ringfence_api::{AccessRequest, Explanation, Mode, Prefix};
use ringfence_policy::compile::{CompiledHost, PathKind};
use ringfence_policy::model::{Access, ObjectPath};

use crate::daemon::{Daemon, EMPTY};
use crate::dynamic::keys;
use crate::error::{Error, Result};

/// Paths in a question are bounded.
const MAX_PATH: usize = 512;

impl Daemon {
    /// Which rule decides about a system call.
    pub fn explain_access(&self, request: AccessRequest) -> Result<Explanation> {
        let access = super::subject::complete(request)?;
        let control = self.control();
        let none = || Error::No("no policy is in force".to_owned());
        let running = control.running.as_ref().filter(|running| running.number() != EMPTY).ok_or_else(none)?;
        let unreadable = || Error::No("the policy in force was loaded by another version of the daemon".to_owned());
        let meaning = running.meaning.as_ref().ok_or_else(unreadable)?;
        let mut question = question(&access, &meaning.host)?;
        if let Some(exe) = access.exe.as_ref().filter(|_| !self.dynamic().calls().is_empty()) {
            question.exe_id = self.kernel(|kernel| Ok(kernel.exe_id(exe.as_ref())?))?;
        }
        let answer = self.kernel(|kernel| Ok(kernel.explain_access(&running.loaded, &question)?))?;
        let refuses = match answer.verdict as u8 {
            verdict::ACCEPT => false,
            verdict::DROP => true,
            _ => return Err(Error::Internal("the program gave no verdict".to_owned())),
        };
        let considered = super::lockout::considered(&meaning.policy, &access);
        let line = running.lines.iter().filter(|line| line.chain == "host").nth(answer.line as usize);
        let rule = match line {
            _ if answer.line == DYNAMIC => format!("dynamic/{}", answer.entry),
            Some(line) => line.name.clone(),
            None => return Err(Error::Internal(format!("the program named line {}, which is none", answer.line))),
        };
        let (file, number) = line.and_then(|line| line.at.clone()).map_or((None, None), |(f, n)| (Some(f), Some(n)));
        if answer.line >= BUILTINS && considered.last().is_none_or(|last| last.rule != rule) {
            tracing::error!(rule, "the program and the evaluator disagree about a call");
        }
        let audited = control.standing.get().audit.is_some() || running.audits();
        Ok(Explanation {
            verdict: word(refuses, audited).to_owned(),
            rule,
            file,
            line: number,
            generation: Some(running.number()),
            mode: if audited { Mode::Audit } else { Mode::Enforce },
            considered,
        })
    }
}

/// The word for what becomes of a call.
#[must_use]
pub fn word(refuses: bool, audited: bool) -> &'static str {
    match (refuses, audited) {
        (false, _) => "allow",
        (true, false) => "deny",
        (true, true) => "would-deny",
    }
}

/// The question for the programs. What they would find in the kernel is found in the tables here.
pub fn question(access: &Access, host: &CompiledHost) -> Result<AccessQuestion> {
    let tri = |value: Option<bool>| match value {
        None => TRI_ABSENT,
        Some(false) => TRI_NO,
        Some(true) => TRI_YES,
    };
    let leaf = |path: Option<&String>| path.map_or(LEAF_ABSENT, |path| host.leaf(PathKind::Host, path.as_bytes()));
    let small = |value: Option<u8>| value.map_or(SMALL_ABSENT, u32::from);
    let (path_kind, text) = match &access.path {
        None => (0, ""),
        Some(ObjectPath::Host(path)) => (1, if path == "/" { "" } else { path.as_str() }),
        Some(ObjectPath::Foreign(path)) => (2, path.as_str()),
        Some(ObjectPath::Abstract(name)) => (3, name.as_str()),
        Some(ObjectPath::Unknown) => (4, ""),
    };
    let mut path = [0; MAX_PATH];
    let room = path.get_mut(..text.len());
    let long = || Error::BadInput(format!("a path of more than {MAX_PATH} bytes cannot be asked about"));
    room.ok_or_else(long)?.copy_from_slice(text.as_bytes());
    let mut fstype = [0; 16];
    if let Some(name) = &access.fstype {
        let room = fstype.get_mut(..name.len());
        let long = || Error::BadInput("the name of a file system type has at most 16 bytes".to_owned());
        room.ok_or_else(long)?.copy_from_slice(name.as_bytes());
    }
    let (address_family, address) = match access.to {
        None => (0, [0; 2]),
        Some(to) => (if to.is_ipv4() { V4 } else { V6 }, keys::words(Prefix::from(unmapped(to)))),
    };
    if access.tainted {
        return Err(Error::BadInput("`tainted` can be asked offline only (`--policy`)".to_owned()));
    }
    let masks = access.ancestors.iter().map(|path| host.leaf_record(leaf(Some(path))).ancestor);
    let ancestors = masks.fold(0, |all, mask| all | mask);
    Ok(AccessQuestion {
        op: access.op,
        uid: access.uid,
        auid: access.auid,
        gids: host.gid_mask(&access.gids),
        flags: tri(access.owner) * FLAGS_OWNER + tri(access.anonymous) * FLAGS_ANONYMOUS + tri(Some(access.container)),
        exe: leaf(access.exe.as_ref()),
        ancestors: ancestors.min(MASK_UNKNOWN),
        target: leaf(access.target.as_ref()),
        cgroup: access.cgroup.as_ref().map_or(LEAF_ABSENT, |path| host.cgroup_class(path.as_bytes())),
        address_family: u32::from(address_family),
        address,
        port: access.port.map_or(if access.to.is_some() { PORT_UNKNOWN } else { PORT_ABSENT }, u32::from),
        small: [access.proto, access.family, access.kind, access.capability, access.signal].map(small),
        fstype,
        path_len: text.len() as u32,
        path_kind,
        path,
        exe_id: EXE_UNKNOWN,
        tainted: 0,
    })
}

/// An IPv4 address in IPv6's clothes is judged as what it is.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The number of an operation that a call can ask for.
pub fn operation(word: &str) -> Result<u32> {
    let number = op::NAMES.iter().position(|name| *name == word);
    number.map(|number| number as u32).ok_or_else(|| {
        Error::BadInput(format!(
            "`op`: a call asks for one of {}; found `{}`",
            op::NAMES.join(", "),
            word.escape_debug()
        ))
    })
}
