//! Steps that change who this process is.

use std::fs;

use anyhow::{Result, bail};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
};

/// Does a step of this family.
pub fn step(_: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    Some(match word {
        // UID: that user, with root's capabilities.
        "become" => r#become(operands),
        // UID GID [GROUP...]: that user and these groups, with nothing else.
        "drop" => drop_to(operands),
        // UID
        "setuid" => operands.number(0).and_then(|user| {
            let user = Uid::from_raw(user);
            Ok(setresuid(user, user, user)?)
        }),
        "setreuid" => operands
            .number(0)
            .and_then(|user: i64| raw::call(libc::SYS_setreuid, &mut [Arg::Int(-1), Arg::Int(user)]).map(drop)),
        "setregid" => operands
            .number(0)
            .and_then(|group: i64| raw::call(libc::SYS_setregid, &mut [Arg::Int(-1), Arg::Int(group)]).map(drop)),
        "setfsuid" => setfsuid(operands),
        "setgid" => operands.number(0).and_then(|group| {
            let group = Gid::from_raw(group);
            Ok(setresgid(group, group, group)?)
        }),
        "setgroups" => operands.number(0).and_then(|group| Ok(setgroups(&[Gid::from_raw(group)])?)),
        // UID: of the login
        "login" => operands.get(0).and_then(|user| fs::write("/proc/self/loginuid", user).or_errno()),
        // DIRECTORY
        "cgroup" => operands.get(0).and_then(|place| fs::write(format!("{place}/cgroup.procs"), "0").or_errno()),
        _ => return None,
    })
}

fn r#become(operands: &Operands) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    // Permitted and effective: all; inheritable: none. Two words of each, of which the second has the upper 32.
    const SETS: [u32; 6] = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
    let user = Uid::from_raw(operands.number(0)?);
    nix::sys::prctl::set_keepcaps(true)?;
    setresuid(user, user, user)?;
    let header = [VERSION_3.to_ne_bytes(), [0; 4]].concat();
    let sets: Vec<u8> = SETS.iter().flat_map(|set| set.to_ne_bytes()).collect();
    raw::call(libc::SYS_capset, &mut [Arg::In(&header), Arg::In(&sets)])?;
    own_files()
}

/// Whoever changes its user no longer owns its files below `/proc`, which making user namespaces needs.
fn own_files() -> Result<()> {
    Ok(nix::sys::prctl::set_dumpable(true)?)
}

fn drop_to(operands: &Operands) -> Result<()> {
    let (user, group) = (Uid::from_raw(operands.number(0)?), Gid::from_raw(operands.number(1)?));
    let further: Result<Vec<Gid>> =
        (2..operands.0.len()).map(|index| Ok(Gid::from_raw(operands.number(index)?))).collect();
    setgroups(&further?)?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    own_files()
}

fn setfsuid(operands: &Operands) -> Result<()> {
    let user: i64 = operands.number(0)?;
    // It answers the id from before, also where it changed nothing: asked twice, it tells.
    raw::call(libc::SYS_setfsuid, &mut [Arg::Int(user)])?;
    if raw::call(libc::SYS_setfsuid, &mut [Arg::Int(-1)])? != user {
        bail!(nix::errno::Errno::EACCES);
    }
    Ok(())
}
