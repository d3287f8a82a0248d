//! Steps on mounts and namespaces.

use std::{ffi::CString, fs, os::fd::AsRawFd as _};

use anyhow::{Result, bail, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, chdir, chroot, fchdir, getegid, geteuid, pivot_root},
};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
};

const NONE: Option<&str> = None;

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    let first = || operands.get(0);
    let flagged = |flags| Ok(mount(NONE, first()?, NONE, flags, NONE)?);
    Some(match word {
        // NAMESPACE...
        "unshare" => enter_new(operands),
        // What is left is done by a child made in a new user namespace.
        "clone-user" => {
            // Without a stack of its own, as fork.
            let flags = Arg::Int((libc::CLONE_NEWUSER | libc::SIGCHLD).into());
            as_child(&mut [flags, Arg::Int(0), Arg::Int(0), Arg::Int(0), Arg::Int(0)], libc::SYS_clone)
        }
        "clone3-user" => {
            // `struct clone_args`: flags first, the signal at the end as fifth.
            let mut words = [0_u64; 11];
            (words[0], words[4]) = (libc::CLONE_NEWUSER as u64, libc::SIGCHLD as u64);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            as_child(&mut [Arg::In(&bytes), Arg::Int(88)], libc::SYS_clone3)
        }
        // PID
        "join-mounts" => join_mounts(operands),
        // TYPE PLACE: is mounted there for a moment.
        "come-and-go" => (|| {
            mount(Some(first()?), operands.get(1)?, Some(first()?), MsFlags::empty(), NONE)?;
            Ok(umount2(operands.get(1)?, MntFlags::empty())?)
        })(),
        // SOURCE PLACE
        "bind" => (|| Ok(mount(Some(first()?), operands.get(1)?, NONE, MsFlags::MS_BIND, NONE)?))(),
        "rbind" => (|| Ok(mount(Some(first()?), operands.get(1)?, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?))(),
        "move" => (|| Ok(mount(Some(first()?), operands.get(1)?, NONE, MsFlags::MS_MOVE, NONE)?))(),
        // TYPE PLACE [DATA [SOURCE]]
        "mount" => (|| {
            let (data, source) = (operands.0.get(2).map(String::as_str), operands.0.get(3));
            let source = source.map_or(first()?, String::as_str);
            Ok(mount(Some(source), operands.get(1)?, Some(first()?), MsFlags::empty(), data)?)
        })(),
        "private" => flagged(MsFlags::MS_PRIVATE | MsFlags::MS_REC),
        "remount" => flagged(MsFlags::MS_REMOUNT),
        "umount" => first().and_then(|place| Ok(umount2(place, MntFlags::empty())?)),
        "detach" => first().and_then(|place| Ok(umount2(place, MntFlags::MNT_DETACH)?)),
        "chroot" => first().and_then(|place| Ok(chroot(place)?)),
        "chdir" => first().and_then(|place| Ok(chdir(place)?)),
        "fchdir" => actor.last().and_then(|directory| Ok(fchdir(directory)?)),
        // PLACE: what is mounted there, by the new interface.
        "reconfigure" => reconfigure(operands),
        // NEW OLD
        "pivot" => (|| Ok(pivot_root(first()?, operands.get(1)?)?))(),
        // PLACE: a copy of the mount that holds it, attached nowhere yet.
        "open-tree" => open_tree(operands).map(|tree| actor.keep(tree)),
        // PLACE: attaches what was opened last.
        "attach" => attach(actor, operands),
        // TYPE: a new file system, attached nowhere yet.
        "new-mount" => new_mount(actor, operands),
        _ => return None,
    })
}

fn enter_new(operands: &Operands) -> Result<()> {
    let mut flags = CloneFlags::empty();
    for name in &operands.0 {
        flags |= match name.as_str() {
            "user" => CloneFlags::CLONE_NEWUSER,
            "mount" => CloneFlags::CLONE_NEWNS,
            "pid" => CloneFlags::CLONE_NEWPID,
            "network" => CloneFlags::CLONE_NEWNET,
            other => bail!("there is no such namespace: {other}"),
        };
    }
    let (user, group) = (geteuid(), getegid());
    unshare(flags)?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        fs::write("/proc/self/setgroups", "deny").or_errno()?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1")).or_errno()?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1")).or_errno()?;
    }
    if flags.contains(CloneFlags::CLONE_NEWNS) {
        mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)?;
    }
    Ok(())
}

/// What is left is done by the child that this call makes, while this process waits.
fn as_child(arguments: &mut [Arg<'_>], call: libc::c_long) -> Result<()> {
    let child = raw::call(call, arguments)?;
    if child == 0 {
        return Ok(());
    }
    let status = waitpid(Pid::from_raw(i32::try_from(child)?), None)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 0)), "the child ended: {status:?}");
    std::process::exit(0)
}

fn join_mounts(operands: &Operands) -> Result<()> {
    let namespace = fs::File::open(format!("/proc/{}/ns/mnt", operands.get(0)?)).or_errno()?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?)
}

fn open_tree(operands: &Operands) -> Result<std::os::fd::OwnedFd> {
    let path = CString::new(operands.get(0)?)?;
    let flags = libc::OPEN_TREE_CLONE | libc::AT_RECURSIVE.cast_unsigned();
    raw::open(libc::SYS_open_tree, &mut [Arg::Int(libc::AT_FDCWD.into()), Arg::Text(&path), Arg::Int(flags.into())])
}

fn attach(actor: &Actor, operands: &Operands) -> Result<()> {
    let path = CString::new(operands.get(0)?)?;
    raw::call(
        libc::SYS_move_mount,
        &mut [
            Arg::Int(actor.last()?.as_raw_fd().into()),
            Arg::Text(c""),
            Arg::Int(libc::AT_FDCWD.into()),
            Arg::Text(&path),
            Arg::Int(libc::MOVE_MOUNT_F_EMPTY_PATH.into()),
        ],
    )?;
    Ok(())
}

fn reconfigure(operands: &Operands) -> Result<()> {
    const RECONFIGURE: i64 = 7;
    let path = CString::new(operands.get(0)?)?;
    let arguments = &mut [Arg::Int(libc::AT_FDCWD.into()), Arg::Text(&path), Arg::Int(0)];
    let context = raw::open(libc::SYS_fspick, arguments)?;
    let number = Arg::Int(context.as_raw_fd().into());
    let arguments = &mut [number, Arg::Int(RECONFIGURE), Arg::Int(0), Arg::Int(0), Arg::Int(0)];
    raw::call(libc::SYS_fsconfig, arguments).map(drop)
}

fn new_mount(actor: &mut Actor, operands: &Operands) -> Result<()> {
    const CREATE: i64 = 6;
    let kind = CString::new(operands.get(0)?)?;
    let context = raw::open(libc::SYS_fsopen, &mut [Arg::Text(&kind), Arg::Int(0)])?;
    let number = i64::from(context.as_raw_fd());
    raw::call(libc::SYS_fsconfig, &mut [Arg::Int(number), Arg::Int(CREATE), Arg::Int(0), Arg::Int(0), Arg::Int(0)])?;
    let tree = raw::open(libc::SYS_fsmount, &mut [Arg::Int(number), Arg::Int(0), Arg::Int(0)])?;
    actor.keep(tree);
    Ok(())
}
