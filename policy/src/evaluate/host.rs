//! The host chain's tables, asked in user space.

use std::net::IpAddr;

use ringfence_abi::{
    chain::{PORT_ABSENT, TRIE_MARK},
    dynamic::{V4, V6},
    host::{
        AccessQuestion, FLAGS_ANONYMOUS, FLAGS_OWNER, LEAF_ABSENT, LEAF_UNKNOWN, MASK_UNKNOWN, SMALL_ABSENT,
        TRI_ABSENT, TRI_NO, TRI_YES,
        field::{ANCESTOR, CAPABILITY, CGROUP, FAMILY, FLAGS, GID, OP, PATH, PORT, PROTO, SIGNAL, TYPE},
    },
};
use ringfence_engine::{
    host::{
        access::{Access as Classed, Address, Classifier},
        quick::quick,
    },
    search::{Classes, Narrow, Outcome, Search, Sink, Step, narrow},
    slice::SliceTables,
};

use super::Decision;
use crate::{
    compile::{CompiledHost, PathKind, fstype_number},
    model::{Access, ObjectPath},
};

const _: () = assert!(TRIE_MARK == ringfence_abi::host::TRIE_AUID, "both are the last of five");

/// Judges an access by the compiled tables. Dynamic entries are not looked at.
#[must_use]
pub fn access(compiled: &CompiledHost, access: &Access) -> Decision {
    let mut continued = Continued(Vec::new());
    let outcome = decide(compiled, access, &mut continued).unwrap_or(Outcome::TABLES);
    Decision { verdict: outcome.verdict, line: outcome.line, continued: continued.0, ..Decision::default() }
}

/// The question that the programs are asked, by which they come to the same classes. `exe_id`: that of the caller's
/// executable in the map `EXES`, for dynamic entries. `None`: a path that is too long to be asked.
#[must_use]
pub fn question(compiled: &CompiledHost, access: &Access, exe_id: u32) -> Option<AccessQuestion> {
    let (path_kind, text) = match &access.path {
        None => (0, ""),
        Some(ObjectPath::Host(path)) => (1, if path == "/" { "" } else { path.as_str() }),
        Some(ObjectPath::Foreign(path)) => (2, if path == "/" { "" } else { path.as_str() }),
        Some(ObjectPath::Abstract(name)) => (3, name.as_str()),
        Some(ObjectPath::Unknown) => (4, ""),
    };
    let mut path = [0; 512];
    path.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    let (address_family, address) = match access.to.map(|address| address.to_canonical()) {
        None => (0, [0; 2]),
        Some(IpAddr::V4(address)) => (V4, [u64::from(address.to_bits()) << 32, 0]),
        Some(IpAddr::V6(address)) => (V6, [(address.to_bits() >> 64) as u64, address.to_bits() as u64]),
    };
    Some(AccessQuestion {
        op: access.op,
        uid: access.uid,
        auid: access.auid,
        gids: compiled.gid_mask(&access.gids),
        flags: flags(access),
        exe: exe(compiled, access.exe.as_deref()),
        ancestors: ancestors(compiled, access),
        target: exe(compiled, access.target.as_deref()),
        cgroup: access.cgroup.as_ref().map_or(0, |path| compiled.cgroup_class(path.as_bytes())),
        address_family: address_family.into(),
        address,
        port: access.port.map_or(PORT_ABSENT, u32::from),
        small: [access.proto, access.family, access.kind, access.capability, access.signal].map(small),
        fstype: access.fstype.as_ref().map_or(0, |name| fstype_number(name)).to_be_bytes(),
        path_len: text.len() as u32,
        path_kind,
        path,
        exe_id,
        tainted: access.tainted.into(),
    })
}

struct Continued(Vec<u32>);

impl Sink for Continued {
    // Limits are about packets.
    fn admits(&mut self, _: u32) -> Option<bool> {
        Some(true)
    }

    fn continued(&mut self, line: u32) {
        self.0.push(line);
    }
}

fn walk(compiled: &CompiledHost, classed: &Classed, sink: &mut Continued) -> Outcome {
    let (chain, tables) = (&compiled.consts.chain, SliceTables(&compiled.arena));
    let mut search = Search::default();
    if chain.blocks == 0 {
        match narrow(chain, &tables, classed) {
            Narrow::Done(outcome) => return outcome,
            Narrow::Walk(word) => search.resume(word),
        }
    } else if search.start(chain, &tables, classed).is_none() {
        return Outcome::TABLES;
    }
    loop {
        if let Step::Done(outcome) = search.step(chain, &tables, sink) {
            return outcome;
        }
    }
}

/// As the programs do: what path and operation decide by themselves first, and only then the other fields.
fn decide(compiled: &CompiledHost, access: &Access, sink: &mut Continued) -> Option<Outcome> {
    let (host, tables) = (&compiled.consts, SliceTables(&compiled.arena));
    let by = Classifier { host, tables: &tables };
    let mut classed = Classed::default();
    by.direct::<OP>(&mut classed, access.op)?;
    by.path(&mut classed, object(compiled, access))?;
    let path = classed.class::<_, PATH>(&host.chain, &tables)?;
    let op = classed.class::<_, OP>(&host.chain, &tables)?;
    if let Some(outcome) = quick(host, &tables, path, op) {
        return Some(outcome);
    }
    others(compiled, access, &by, &mut classed)?;
    Some(walk(compiled, &classed, sink))
}

/// The classes of all other fields.
fn others(
    compiled: &CompiledHost,
    access: &Access,
    by: &Classifier<'_, SliceTables<'_>>,
    classed: &mut Classed,
) -> Option<()> {
    by.direct::<FLAGS>(classed, flags(access))?;
    by.direct::<PORT>(classed, access.port.map_or(PORT_ABSENT, u32::from))?;
    by.direct::<PROTO>(classed, small(access.proto))?;
    by.direct::<FAMILY>(classed, small(access.family))?;
    by.direct::<TYPE>(classed, small(access.kind))?;
    by.direct::<CAPABILITY>(classed, small(access.capability))?;
    by.direct::<SIGNAL>(classed, small(access.signal))?;
    by.exe(classed, exe(compiled, access.exe.as_deref()), access.tainted)?;
    by.target(classed, exe(compiled, access.target.as_deref()))?;
    by.uid(classed, access.uid)?;
    by.auid(classed, access.auid)?;
    by.class::<GID>(classed, compiled.gid_mask(&access.gids));
    by.class::<ANCESTOR>(classed, ancestors(compiled, access));
    by.class::<CGROUP>(classed, access.cgroup.as_ref().map_or(0, |path| compiled.cgroup_class(path.as_bytes())));
    by.address(classed, address(access))?;
    match &access.fstype {
        None => by.no_fstype(classed),
        Some(name) => {
            let bytes = fstype_number(name).to_be_bytes();
            let half = |at: usize| bytes[at..].first_chunk().map_or(0, |half| u64::from_ne_bytes(*half));
            by.fstype(classed, Some([half(0), half(8)]))?;
        }
    }
    Some(())
}

fn object(compiled: &CompiledHost, access: &Access) -> u32 {
    match &access.path {
        None => LEAF_ABSENT,
        Some(ObjectPath::Host(path)) => compiled.leaf(PathKind::Host, path.as_bytes()),
        Some(ObjectPath::Foreign(path)) => compiled.leaf(PathKind::Foreign, path.as_bytes()),
        Some(ObjectPath::Abstract(name)) => compiled.leaf(PathKind::Abstract, name.as_bytes()),
        Some(ObjectPath::Unknown) => LEAF_UNKNOWN,
    }
}

fn exe(compiled: &CompiledHost, path: Option<&str>) -> u32 {
    path.map_or(LEAF_ABSENT, |path| compiled.leaf(PathKind::Host, path.as_bytes()))
}

fn ancestors(compiled: &CompiledHost, access: &Access) -> u32 {
    let mask = |path: &String| compiled.leaf_record(exe(compiled, Some(path))).ancestor;
    let mask = access.ancestors.iter().map(mask).fold(0, |all, one| all | one);
    mask.min(MASK_UNKNOWN)
}

fn address(access: &Access) -> Address {
    match access.to.map(|address| address.to_canonical()) {
        None => Address::Absent,
        Some(IpAddr::V4(address)) => Address::V4(u64::from(address.to_bits()) << 32),
        Some(IpAddr::V6(address)) => Address::V6([(address.to_bits() >> 64) as u64, address.to_bits() as u64]),
    }
}

fn flags(access: &Access) -> u32 {
    let tri = |value: Option<bool>| match value {
        None => TRI_ABSENT,
        Some(false) => TRI_NO,
        Some(true) => TRI_YES,
    };
    tri(access.owner) * FLAGS_OWNER + tri(access.anonymous) * FLAGS_ANONYMOUS + tri(Some(access.container))
}

fn small(value: Option<u8>) -> u32 {
    value.map_or(SMALL_ABSENT, u32::from)
}
