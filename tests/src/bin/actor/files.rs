//! Steps on files and names.

use std::{
    ffi::CString,
    fs::{self, Permissions},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag},
    sys::{
        stat::{Mode, SFlag},
        time::TimeSpec,
    },
    unistd::{Gid, Uid},
};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
};

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    let done = match word {
        // FILE [FLAGS]
        "open" => open(operands, 0, AT_FDCWD).map(|file| actor.keep(file)),
        "creat" => create(operands).map(|file| actor.keep(file)),
        // DIRECTORY-DESCRIPTOR FILE [FLAGS]
        "open-at" => open_at(operands).map(|file| actor.keep(file)),
        // FILE FLAGS RESOLVE
        "openat2" => openat2(operands).map(|file| actor.keep(file)),
        "read" => read(actor),
        "write" => actor.last().and_then(|file| Ok(nix::unistd::write(file, b"x").map(drop)?)),
        // DESCRIPTOR
        "read-of" => read_of(operands),
        "list" => operands.get(0).and_then(|path| fs::read_dir(path).or_errno().map(drop)),
        "truncate" => operands.get(0).and_then(|path| Ok(nix::unistd::truncate(path, 0)?)),
        "ftruncate" => actor.last().and_then(|file| Ok(nix::unistd::ftruncate(file, 0)?)),
        "allocate" => actor.last().and_then(allocate),
        "name-to-handle" => name_to_handle(operands).map(|handle| actor.handle = handle),
        // A directory of the mount
        "open-by-handle" => open_by_handle(actor, operands).map(|file| actor.keep(file)),
        "drop-caches" => fs::write("/proc/sys/vm/drop_caches", "2").or_errno(),
        _ => return names(word, operands).or_else(|| attributes(actor, word, operands)),
    };
    Some(done)
}

/// Steps that change directories.
fn names(word: &str, operands: &Operands) -> Option<Result<()>> {
    let rename = |flags| {
        let (from, to) = (operands.get(0)?, operands.get(1)?);
        Ok(nix::fcntl::renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)?)
    };
    let node =
        |kind, device| Ok(nix::sys::stat::mknod(operands.get(0)?, kind, Mode::from_bits_truncate(0o644), device)?);
    Some(match word {
        "rename" => rename(RenameFlags::empty()),
        "exchange" => rename(RenameFlags::RENAME_EXCHANGE),
        "rename-noreplace" => rename(RenameFlags::RENAME_NOREPLACE),
        // OLD NEW
        "link" => (|| fs::hard_link(operands.get(0)?, operands.get(1)?).or_errno())(),
        // DESCRIPTOR NEW
        "link-fd" => link_descriptor(operands),
        // TARGET NEW
        "symlink" => (|| std::os::unix::fs::symlink(operands.get(0)?, operands.get(1)?).or_errno())(),
        "unlink" => (|| fs::remove_file(operands.get(0)?).or_errno())(),
        "rmdir" => (|| fs::remove_dir(operands.get(0)?).or_errno())(),
        "mkdir" => (|| fs::create_dir(operands.get(0)?).or_errno())(),
        "mkfifo" => node(SFlag::S_IFIFO, 0),
        // Major 1, minor 3: /dev/null.
        "mkchar" => node(SFlag::S_IFCHR, nix::sys::stat::makedev(1, 3)),
        _ => return None,
    })
}

/// Steps that change what a file is, not what it holds.
fn attributes(actor: &Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    const NAME: &str = "security.ringfence";
    // Version 2; the owner may read and write, group and others read: what the mode says already.
    const ACL: [u8; 28] =
        [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255];
    Some(match word {
        "chmod" => (|| fs::set_permissions(operands.get(0)?, Permissions::from_mode(0o644)).or_errno())(),
        "fchmod" => actor.last().and_then(|file| Ok(nix::sys::stat::fchmod(file, Mode::from_bits_truncate(0o644))?)),
        "chown" => (|| Ok(nix::unistd::chown(operands.get(0)?, Some(Uid::from_raw(7)), Some(Gid::from_raw(7)))?))(),
        "utimes" => (|| {
            let time = TimeSpec::new(1, 0);
            let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
            Ok(nix::sys::stat::utimensat(AT_FDCWD, operands.get(0)?, &time, &time, follow)?)
        })(),
        "set-xattr" => set_xattr(operands, NAME, b"1"),
        "set-acl" => set_xattr(operands, "system.posix_acl_access", &ACL),
        "remove-xattr" => remove_xattr(operands, NAME),
        "remove-acl" => remove_xattr(operands, "system.posix_acl_access"),
        _ => return None,
    })
}

/// Flags by letters, as in `rw`, `wc`, `path`.
fn flags(word: &str) -> Result<OFlag> {
    Ok(match word {
        "" | "r" => OFlag::O_RDONLY,
        "w" => OFlag::O_WRONLY,
        "rw" => OFlag::O_RDWR,
        "a" => OFlag::O_WRONLY | OFlag::O_APPEND,
        "wt" => OFlag::O_WRONLY | OFlag::O_TRUNC,
        "rt" => OFlag::O_RDONLY | OFlag::O_TRUNC,
        "wc" => OFlag::O_WRONLY | OFlag::O_CREAT,
        "rc" => OFlag::O_RDONLY | OFlag::O_CREAT,
        "path" => OFlag::O_PATH,
        "dir" => OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        "tmp" => OFlag::O_RDWR | OFlag::O_TMPFILE,
        _ => bail!("there are no such flags: {word}"),
    })
}

fn open(operands: &Operands, first: usize, directory: impl std::os::fd::AsFd) -> Result<OwnedFd> {
    let flags = flags(operands.word(first + 1))?;
    Ok(nix::fcntl::openat(directory, operands.get(first)?, flags, Mode::from_bits_truncate(0o755))?)
}

fn create(operands: &Operands) -> Result<OwnedFd> {
    let path = CString::new(operands.get(0)?)?;
    raw::open(libc::SYS_creat, &mut [Arg::Text(&path), Arg::Int(0o755)])
}

fn open_at(operands: &Operands) -> Result<OwnedFd> {
    let path = CString::new(operands.get(1)?)?;
    let flags = flags(operands.word(2))?.bits();
    let mut arguments = [Arg::Int(operands.number(0)?), Arg::Text(&path), Arg::Int(flags.into()), Arg::Int(0o755)];
    raw::open(libc::SYS_openat, &mut arguments)
}

fn openat2(operands: &Operands) -> Result<OwnedFd> {
    let resolve = match operands.word(2) {
        "" => ResolveFlag::empty(),
        "beneath" => ResolveFlag::RESOLVE_BENEATH,
        "in-root" => ResolveFlag::RESOLVE_IN_ROOT,
        "no-symlinks" => ResolveFlag::RESOLVE_NO_SYMLINKS,
        "no-magic" => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        "no-xdev" => ResolveFlag::RESOLVE_NO_XDEV,
        other => bail!("there is no such resolution: {other}"),
    };
    let how = OpenHow::new().flags(flags(operands.word(1))?).resolve(resolve);
    // In or beneath the directory that the process is in.
    Ok(nix::fcntl::openat2(AT_FDCWD, operands.get(0)?, how)?)
}

fn read(actor: &Actor) -> Result<()> {
    nix::unistd::read(actor.last()?, &mut [0; 1])?;
    Ok(())
}

fn read_of(operands: &Operands) -> Result<()> {
    let mut buffer = [0; 1];
    raw::call(libc::SYS_read, &mut [Arg::Int(operands.number(0)?), Arg::Out(&mut buffer), Arg::Int(1)])?;
    Ok(())
}

fn allocate(file: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let mut arguments = [Arg::Int(file.as_raw_fd().into()), Arg::Int(0), Arg::Int(0), Arg::Int(4096)];
    raw::call(libc::SYS_fallocate, &mut arguments)?;
    Ok(())
}

fn link_descriptor(operands: &Operands) -> Result<()> {
    let new = CString::new(operands.get(1)?)?;
    raw::call(
        libc::SYS_linkat,
        &mut [
            Arg::Int(operands.number(0)?),
            Arg::Text(c""),
            Arg::Int(libc::AT_FDCWD.into()),
            Arg::Text(&new),
            Arg::Int(AtFlags::AT_EMPTY_PATH.bits().into()),
        ],
    )?;
    Ok(())
}

fn set_xattr(operands: &Operands, name: &str, value: &[u8]) -> Result<()> {
    let (path, name) = (CString::new(operands.get(0)?)?, CString::new(name)?);
    let length = i64::try_from(value.len())?;
    let mut arguments = [Arg::Text(&path), Arg::Text(&name), Arg::In(value), Arg::Int(length), Arg::Int(0)];
    raw::call(libc::SYS_setxattr, &mut arguments)?;
    Ok(())
}

fn remove_xattr(operands: &Operands, name: &str) -> Result<()> {
    let (path, name) = (CString::new(operands.get(0)?)?, CString::new(name)?);
    raw::call(libc::SYS_removexattr, &mut [Arg::Text(&path), Arg::Text(&name)])?;
    Ok(())
}

/// The file's handle: its length, its type, its bytes.
fn name_to_handle(operands: &Operands) -> Result<Vec<u8>> {
    const LARGEST: u32 = 128;
    let path = CString::new(operands.get(0)?)?;
    let mut handle = LARGEST.to_ne_bytes().to_vec();
    handle.resize(8 + LARGEST as usize, 0);
    let mut mount = [0; 4];
    raw::call(
        libc::SYS_name_to_handle_at,
        &mut [
            Arg::Int(libc::AT_FDCWD.into()),
            Arg::Text(&path),
            Arg::Out(&mut handle),
            Arg::Out(&mut mount),
            Arg::Int(0),
        ],
    )?;
    Ok(handle)
}

fn open_by_handle(actor: &mut Actor, operands: &Operands) -> Result<OwnedFd> {
    ensure!(!actor.handle.is_empty(), "there is no handle");
    let mount = fs::File::open(operands.get(0)?).or_errno().context("cannot open the mount")?;
    raw::open(
        libc::SYS_open_by_handle_at,
        &mut [Arg::Int(mount.as_raw_fd().into()), Arg::In(&actor.handle), Arg::Int(libc::O_RDONLY.into())],
    )
}
