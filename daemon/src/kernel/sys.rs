//! The `bpf(2)` commands that aya does not offer, and typed views of the bytes they take; and what else is only to be had
//! from the C library.
//!
//! Unsafe because the kernel reads and writes through the addresses in `bpf_attr`: each function here takes slices
//! whose lengths it is told ([`super::table::Table`] checks them against the map once).

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_type};
use ringfence_abi::Bytes;
pub use ringfence_abi::zeroed;

/// `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST` of `bpf_map_update_elem`.
pub const ANY: u64 = 0;
/// Insert only.
pub const NO_EXIST: u64 = 1;
/// Replace only.
pub const EXIST: u64 = 2;

/// The shape of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// How many entries at most.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Id of its program.
    pub program: u32,
    /// The device; 0: the device is gone.
    pub ifindex: u32,
}

/// The bytes of a value that crosses the kernel line.
pub fn bytes<T: Bytes>(value: &T) -> &[u8] {
    slice_bytes(std::slice::from_ref(value))
}

/// The bytes of several values side by side.
pub fn slice_bytes<T: Bytes>(values: &[T]) -> &[u8] {
    // SAFETY: `Bytes` promises that `T` has no padding, so every byte is initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of several values, to be filled.
pub fn slice_bytes_mut<T: Bytes>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and `Bytes` promises integers, of which every bit pattern is one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Creates a map; `inner` is the pattern of the maps that an array of maps holds.
pub fn map_create(name: &str, shape: &Shape, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: all fields are integers, zeroed above.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = shape.kind;
    create.key_size = shape.key;
    create.value_size = shape.value;
    create.max_entries = shape.entries;
    create.map_flags = shape.flags;
    create.inner_map_fd = inner.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
    // The last byte stays zero.
    for (to, from) in create.map_name[..15].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    fd(call(bpf_cmd::BPF_MAP_CREATE, &mut attr)?)
}

/// The shape of an existing map.
pub fn map_shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    // SAFETY: integers and arrays of them.
    let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
    info_by_fd(map, &mut info)?;
    Ok(Shape {
        kind: info.type_,
        key: info.key_size,
        value: info.value_size,
        entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// What a link is attached to. The link is one of an XDP or tcx program.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: integers and arrays of them.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    info_by_fd(link, &mut info)?;
    // SAFETY: XDP and tcx links both begin their part of the union with the ifindex.
    Ok(LinkInfo { program: info.prog_id, ifindex: unsafe { info.__bindgen_anon_1.xdp.ifindex } })
}

/// Pins a map, program or link.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let pin = unsafe { &mut attr.__bindgen_anon_4 };
    pin.pathname = path.as_ptr() as u64;
    pin.bpf_fd = object.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned; `None` if nothing is.
pub fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attr = attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    match call(bpf_cmd::BPF_OBJ_GET, &mut attr) {
        Ok(number) => fd(number).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Attaches a program by a link: to the device with the number `target`, or to the cgroup that descriptor `target` is
/// open on. 0 for security hooks, to which the program was made to belong (`BPF_LINK_CREATE` takes them since 5.19).
pub fn link_create(program: BorrowedFd<'_>, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let create = unsafe { &mut attr.link_create };
    create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    create.__bindgen_anon_2.target_ifindex = target;
    create.attach_type = attach_type;
    create.flags = flags;
    fd(call(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}

/// Lets a link run another program, in one step.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let update = unsafe { &mut attr.link_update };
    update.link_fd = link.as_raw_fd().cast_unsigned();
    update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link, also while others hold it open.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attr();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    call(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Ids of the programs that are attached to a device (or, by a descriptor, to a cgroup) by `attach_type`, in the order
/// they run.
pub fn attached(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_ifindex = ifindex;
    query.attach_type = attach_type;
    query.prog_ids = ids.as_mut_ptr() as u64;
    query.__bindgen_anon_2.count = 64;
    call(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: the kernel wrote how many there are.
    ids.truncate(unsafe { attr.query.__bindgen_anon_2.count } as usize);
    Ok(ids)
}

/// Reads a value; `false`: there is no such key. `value` has the length the kernel writes for this map.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    present(element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, map, key.as_ptr(), value.as_mut_ptr(), 0))
}

/// Writes a value.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    element(bpf_cmd::BPF_MAP_UPDATE_ELEM, map, key.as_ptr(), value.as_ptr().cast_mut(), flags)
}

/// Deletes a key; `false`: there was none.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    present(element(bpf_cmd::BPF_MAP_DELETE_ELEM, map, key.as_ptr(), std::ptr::null_mut(), 0))
}

/// Writes `count` values (kernel 5.6); keys and values lie side by side.
pub fn update_batch(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
    let mut attr = batch(map, keys.as_ptr(), values.as_ptr(), count);
    call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Reads up to `count` keys and values from where `position` says, which it moves on; `None` is the beginning.
/// Returns how many were read and whether these were the last.
pub fn lookup_batch(
    map: BorrowedFd<'_>,
    position: &mut Option<u32>,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let mut attr = batch(map, keys.as_mut_ptr(), values.as_mut_ptr(), count);
    let begin = position.unwrap_or_default();
    let mut end = begin;
    attr.batch.in_batch = if position.is_some() { &raw const begin as u64 } else { 0 };
    attr.batch.out_batch = &raw mut end as u64;
    let result = call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
    // SAFETY: the kernel wrote how many it read, also together with ENOENT, which says that these were the last.
    let read = unsafe { attr.batch.count };
    *position = Some(end);
    match result {
        Ok(_) => Ok((read, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((read, true)),
        Err(error) => Err(error),
    }
}

/// Whether the kernel verifies a program of this type, flags and first instruction's helper (0: none).
pub fn program_loads(kind: u32, flags: u32, helper: i32) -> io::Result<()> {
    const CALL: u64 = 0x85;
    const MOVE_0: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    // A helper call without arguments is refused by the verifier for them, with EACCES; EINVAL is an unknown helper.
    let body = if helper == 0 { MOVE_0 } else { CALL | (helper.cast_unsigned() as u64) << 32 };
    let code = [body, EXIT];
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind;
    load.prog_flags = flags;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = 2;
    load.license = c"GPL".as_ptr() as u64;
    fd(call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?).map(drop)
}

/// Loads a program that allows everything, for the security hook with this BTF number.
pub fn security_probe(hook: u32) -> io::Result<OwnedFd> {
    const MOVE_0: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    let code = [MOVE_0, EXIT];
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_LSM as u32;
    load.expected_attach_type = bpf_attach_type::BPF_LSM_MAC as u32;
    load.attach_btf_id = hook;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = 2;
    load.license = c"GPL".as_ptr() as u64;
    fd(call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// A descriptor of a process, by which its storage is reached. `NotFound` and the like: it has ended.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { fd(result) }
}

/// A descriptor of another process as one of our own (kernel 5.6).
pub fn descriptor_of(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { fd(result) }
}

/// Mounts a file system of this type where nobody sees it (kernel 5.2); it is gone with the descriptor.
pub fn private_mount(kind: &CStr) -> io::Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const CLOEXEC: u32 = 1;
    let done = |result: i64| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: a string that ends with a zero.
    let context = fd(done(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) })?)?;
    let null = std::ptr::null::<u8>();
    // SAFETY: this command takes neither key nor value.
    done(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) })?;
    // SAFETY: no memory is passed.
    fd(done(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })?)
}

/// Lets all threads share one heap. By default glibc gives every thread that meets another in the allocator one of its own;
/// what an apply frees in one of them is not used by the next apply in another, and a daemon that needs 30 MB comes to hold
/// over 100.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is passed. If it fails, memory is held as ever.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn attr() -> bpf_attr {
    // SAFETY: a union of structs of integers.
    unsafe { std::mem::zeroed() }
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is the kernel's own layout; its addresses are those of slices the caller borrows.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn fd(number: i64) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: a descriptor the kernel has just given to this call, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn element(command: bpf_cmd, map: BorrowedFd<'_>, key: *const u8, value: *mut u8, flags: u64) -> io::Result<()> {
    let mut attr = attr();
    // SAFETY: integers, zeroed above.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd().cast_unsigned();
    element.key = key as u64;
    element.__bindgen_anon_1.value = value as u64;
    element.flags = flags;
    call(command, &mut attr).map(drop)
}

fn batch(map: BorrowedFd<'_>, keys: *const u8, values: *const u8, count: u32) -> bpf_attr {
    let mut attr = attr();
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    attr.batch.keys = keys as u64;
    attr.batch.values = values as u64;
    attr.batch.count = count;
    attr
}

fn info_by_fd<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = attr();
    attr.info.bpf_fd = object.as_raw_fd().cast_unsigned();
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = &raw mut *info as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn present(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Runs a network program on a frame; mean nanoseconds of `repeat` runs.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<u32> {
    let mut attr = attr();
    // The kernel writes the frame back; it may be longer than it was.
    let mut out = vec![0_u8; frame.len() + 256];
    attr.test.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.test.repeat = repeat;
    attr.test.data_in = frame.as_ptr() as u64;
    attr.test.data_size_in = frame.len() as u32;
    attr.test.data_out = out.as_mut_ptr() as u64;
    attr.test.data_size_out = out.len() as u32;
    call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: the kernel filled this variant.
    Ok(unsafe { attr.test.duration })
}
