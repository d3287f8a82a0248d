//! The words of host fields: operations, socket families and types, capabilities, signals.

use ringfence_abi::host::op;

use super::super::problems::Complaint;
use super::super::values;

/// Every operation's word, in the order of their numbers, then `all`.
pub(crate) const OPERATIONS: [&str; op::COUNT as usize + 1] = {
    let mut words = ["all"; op::COUNT as usize + 1];
    let mut at = 0;
    while at < op::COUNT as usize {
        words[at] = op::NAMES[at];
        at += 1;
    }
    words
};

/// All operations.
pub(super) const ALL: u32 = (1 << op::COUNT) - 1;
/// Operations on files.
pub(super) const FILES: u32 = (1 << (op::UMOUNT + 1)) - 1;
/// Operations on sockets that have an address.
pub(super) const ADDRESSED: u32 = 1 << op::CONNECT | 1 << op::BIND | 1 << op::SEND;
/// Operations on sockets.
pub(super) const SOCKETS: u32 = ADDRESSED | 1 << op::LISTEN | 1 << op::SOCKET;

/// Socket families by `AF_` number.
pub(crate) const FAMILIES: [(&str, u8); 17] = [
    ("unix", 1),
    ("ipv4", 2),
    ("ax25", 3),
    ("ipx", 4),
    ("ipv6", 10),
    ("key", 15),
    ("netlink", 16),
    ("packet", 17),
    ("rds", 21),
    ("can", 29),
    ("tipc", 30),
    ("bluetooth", 31),
    ("alg", 38),
    ("nfc", 39),
    ("vsock", 40),
    ("smc", 43),
    ("xdp", 44),
];

/// Socket types by `SOCK_` number; `packet` besides these is a family.
pub(crate) const TYPES: [(&str, u8); 6] =
    [("stream", 1), ("dgram", 2), ("raw", 3), ("rdm", 4), ("seqpacket", 5), ("dccp", 6)];

/// Capabilities in the order of their numbers (Linux 5.9 and later).
pub(crate) const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Signals 1 to 31 in order.
pub(crate) const SIGNALS: [&str; 31] = [
    "hup", "int", "quit", "ill", "trap", "abrt", "bus", "fpe", "kill", "usr1", "segv", "usr2", "pipe", "alrm", "term",
    "stkflt", "chld", "cont", "stop", "tstp", "ttin", "ttou", "urg", "xcpu", "xfsz", "vtalrm", "prof", "winch", "io",
    "pwr", "sys",
];

/// Bits of an operation's word: `write` is everything that changes a file, `exec` also mapping it.
pub(super) fn operation(text: &str) -> Result<u32, Complaint> {
    match text {
        "all" => Ok(ALL),
        "write" => Ok((op::WRITE..=op::ATTR).map(|op| 1 << op).sum()),
        "exec" => Ok(1 << op::EXEC | 1 << op::MAP_EXEC),
        _ => one_operation(text).map(|op| 1 << op),
    }
}

/// The number of one operation.
pub(super) fn one_operation(text: &str) -> Result<u32, Complaint> {
    let known = op::NAMES.iter().position(|name| *name == text);
    known.map(|op| op as u32).ok_or_else(|| Complaint::unknown("operation", text, OPERATIONS))
}

pub(super) fn family(text: &str) -> Result<u8, Complaint> {
    named("family", text, &FAMILIES)
}

/// `None`: `packet`.
pub(super) fn socket_type(text: &str) -> Result<Option<u8>, Complaint> {
    if text == "packet" {
        return Ok(None);
    }
    named("socket type", text, &TYPES).map(Some)
}

fn named(what: &str, text: &str, table: &[(&'static str, u8)]) -> Result<u8, Complaint> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(values::number(text, 255)? as u8);
    }
    let known = table.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    known.ok_or_else(|| Complaint::unknown(what, text, table.iter().map(|(name, _)| *name)))
}

pub(super) fn capability(text: &str) -> Result<u8, Complaint> {
    listed("capability", text, "cap_", &CAPABILITIES, 0, 63)
}

pub(super) fn signal(text: &str) -> Result<u8, Complaint> {
    listed("signal", text, "sig", &SIGNALS, 1, 64)
}

// With or without the prefix, in either case; or the number.
fn listed(
    what: &str,
    text: &str,
    prefix: &str,
    names: &'static [&'static str],
    first: u8,
    max: u32,
) -> Result<u8, Complaint> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let number = values::number(text, max)? as u8;
        return if number < first { Err(Complaint::new(format!("there is no {what} {number}"))) } else { Ok(number) };
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix(prefix).unwrap_or(&lower);
    let known = names.iter().position(|known| *known == name).map(|at| at as u8 + first);
    known.ok_or_else(|| Complaint::unknown(what, text, names.iter().copied()))
}

/// The name of a file system's type.
pub(super) fn fstype(text: &str) -> Result<String, Complaint> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.contains('.') {
        let kernel = text.split('.').next().unwrap_or_default();
        let complaint = Complaint::new(format!("`{text}` is a subtype, which the kernel does not tell apart"));
        return Err(complaint.help(format!("write `{kernel}`")));
    }
    if text.is_empty() || text.len() > 16 || !text.chars().all(good) {
        return Err(Complaint::new(format!("expected the type of a file system such as `tmpfs`, found `{text}`")));
    }
    Ok(text.to_owned())
}

/// A unit with its suffix.
pub(super) fn unit(text: &str) -> Result<String, Complaint> {
    const SUFFIXES: [&str; 6] = [".service", ".scope", ".socket", ".mount", ".swap", ".slice"];
    if text.contains('/') || text.is_empty() || text.len() > 255 {
        return Err(Complaint::new(format!("expected a unit such as `nginx`, found `{text}`"))
            .help("a path of cgroups is given as `cgroup:`"));
    }
    if text.contains(['[', '{']) {
        return Err(Complaint::new("a unit's name takes the wildcards `*` and `?` only"));
    }
    if [".timer", ".target", ".path", ".device"].iter().any(|other| text.ends_with(other)) {
        return Err(Complaint::new(format!("`{text}` has no processes")).help("name the service"));
    }
    let named = SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
    Ok(if named { text.to_owned() } else { format!("{text}.service") })
}
