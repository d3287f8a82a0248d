//! An access described by its fields: in `tests:` and for `ringctl explain --access`.

use std::net::IpAddr;

use ringfence_abi::host::op;

use super::super::fields::Context;
use super::super::problems::{Complaint, quote};
use super::super::source::Span;
use super::super::values;
use super::fields::id;
use super::words;
use crate::model::{Access, ObjectPath};
use crate::services;

/// Fields of an access: those of rules, and `tainted`.
pub(crate) const KEYS: [&str; 22] = {
    let mut keys = ["tainted"; 22];
    let mut at = 0;
    while at < super::FIELDS.len() {
        keys[at] = super::FIELDS[at];
        at += 1;
    }
    keys
};

/// Whom nothing is said of: an executable that no pattern but `/**` names.
const ANY_EXE: &str = "/";
const PACKET: u8 = 17;

/// An access while its fields are read.
#[derive(Default)]
pub(in crate::document) struct Builder {
    op: Option<u32>,
    path: Option<ObjectPath>,
    fstype: Option<String>,
    anonymous: Option<bool>,
    exe: Option<String>,
    tainted: bool,
    ancestors: Vec<String>,
    uid: u32,
    gids: Vec<u32>,
    owner: Option<bool>,
    auid: Option<u32>,
    cgroup: Option<String>,
    container: bool,
    to: Option<IpAddr>,
    port: Option<u16>,
    proto: Option<u8>,
    family: Option<u8>,
    kind: Option<u8>,
    capability: Option<u8>,
    signal: Option<u8>,
    target: Option<String>,
}

impl Builder {
    /// Sets a field; `gid` and `ancestor` add one.
    pub fn set(&mut self, key: &str, text: &str, cx: &Context<'_, '_, '_>) -> Result<(), Complaint> {
        match key {
            "op" => self.op = Some(words::one_operation(text).map_err(|complaint| whole(text, complaint))?),
            "path" => self.path = Some(object(text)?),
            "fstype" => self.fstype = Some(words::fstype(text)?),
            "anonymous" => self.anonymous = Some(values::boolean(text)?),
            "exe" => self.exe = Some(literal(text)?),
            "tainted" => self.tainted = values::boolean(text)?,
            "ancestor" => self.ancestors.push(literal(text)?),
            "uid" => self.uid = one(id(cx.users, text, "uid")?)?,
            "gid" => self.gids.push(one(id(cx.users, text, "gid")?)?),
            "owner" => self.owner = Some(values::boolean(text)?),
            "auid" => self.auid = Some(one(id(cx.users, text, "auid")?)?),
            "unit" => self.cgroup = Some(format!("/system.slice/{}", words::unit(text)?)),
            "cgroup" => self.cgroup = Some(literal(text)?),
            "container" => self.container = values::boolean(text)?,
            "to" => self.to = Some(values::address(text)?),
            "port" => self.port = Some(one(values::port(text)?)? as u16),
            "proto" => self.proto = Some(values::protocol(text)?),
            "family" => self.family = Some(words::family(text)?),
            "type" => match words::socket_type(text)? {
                Some(kind) => self.kind = Some(kind),
                None => self.family = Some(PACKET),
            },
            "capability" => self.capability = Some(words::capability(text)?),
            "signal" => self.signal = Some(words::signal(text)?),
            "target" => self.target = Some(literal(text)?),
            _ => return Err(Complaint::unknown("field", key, KEYS)),
        }
        Ok(())
    }

    /// The access, with what follows from what was said; `at`: where it stands.
    pub fn finish(self, at: Span, cx: &mut Context<'_, '_, '_>) -> Option<Access> {
        let Some(op) = self.op else {
            cx.problems.error(at, Complaint::new("an access without `op`").help("as in `op: read`"));
            return None;
        };
        let is = |ops: u32| ops >> op & 1 == 1;
        let socket = is(words::SOCKETS);
        let unix = socket && self.path.is_some();
        // What a call of its kind has even where nothing is said.
        let family = match self.to {
            _ if self.family.is_some() => self.family,
            Some(IpAddr::V6(_)) => Some(10),
            _ if unix => Some(1),
            _ => Some(2),
        };
        let kind = self.kind.or(match (self.proto, family) {
            (Some(17), _) => Some(2),
            (_, Some(PACKET)) => Some(3),
            _ => Some(1),
        });
        let proto = self.proto.or(match (family, kind) {
            (Some(2 | 10), Some(1)) => Some(services::TCP),
            (Some(2 | 10), Some(2)) => Some(17),
            _ => Some(0),
        });
        let acts = is(1 << op::PTRACE | 1 << op::SIGNAL);
        Some(Access {
            op,
            fstype: self.fstype,
            anonymous: self.anonymous.or(is(1 << op::EXEC | 1 << op::MAP_EXEC).then_some(false)),
            exe: Some(self.exe.unwrap_or_else(|| ANY_EXE.to_owned())),
            tainted: self.tainted,
            ancestors: self.ancestors,
            uid: self.uid,
            gids: self.gids,
            owner: self.owner.or((is(words::FILES) && self.path.is_some()).then_some(false)),
            path: self.path,
            auid: self.auid.unwrap_or(u32::MAX),
            cgroup: Some(self.cgroup.unwrap_or_else(|| "/".to_owned())),
            container: self.container,
            to: self.to,
            port: self.port,
            proto: if socket { proto } else { self.proto },
            family: if socket { family } else { self.family },
            kind: if socket { kind } else { self.kind },
            capability: self.capability,
            signal: self.signal,
            target: self.target.or_else(|| acts.then(|| ANY_EXE.to_owned())),
        })
    }
}

// `write` in a rule is many operations; an access is one.
fn whole(text: &str, complaint: Complaint) -> Complaint {
    if text == "all" { Complaint::new("an access asks one operation, not `all`") } else { complaint }
}

fn one((low, high): (u32, u32)) -> Result<u32, Complaint> {
    if low == high { Ok(low) } else { Err(Complaint::new("expected one value, found a range")) }
}

fn literal(text: &str) -> Result<String, Complaint> {
    let wild = |component: &str| matches!(component, "" | "." | "..");
    if !text.starts_with('/') || text.len() > 1 && text[1..].split('/').any(wild) {
        let message = format!("expected a whole path as the kernel knows it, found {}", quote(text));
        return Err(Complaint::new(message)
            .help("it begins with `/`, has no `.`, `..` or empty components and no slash at the end"));
    }
    Ok(text.to_owned())
}

fn object(text: &str) -> Result<ObjectPath, Complaint> {
    match text.strip_prefix('@') {
        Some("") => Err(Complaint::new("a socket without a name")),
        Some(name) => Ok(ObjectPath::Abstract(name.to_owned())),
        None => literal(text).map(ObjectPath::Host),
    }
}
