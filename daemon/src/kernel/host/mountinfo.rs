//! What is mounted where: `/proc/PID/mountinfo` to entries of the map `MOUNTS`.

use std::collections::HashMap;

use ringfence_abi::host::{KERNEL_CONTENT, MOUNT_BY_MAGIC, MOUNT_PATH, MOUNT_ROOTS, Mount, MountKey};

/// Types of the file systems of [`KERNEL_CONTENT`], in the same order.
const KERNEL_KINDS: [&[u8]; KERNEL_CONTENT.len()] = [
    b"proc",
    b"sysfs",
    b"securityfs",
    b"debugfs",
    b"tracefs",
    b"configfs",
    b"cgroup2",
    b"pstore",
    b"selinuxfs",
    b"efivarfs",
    b"binfmt_misc",
];

/// A line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `s_dev` as the kernel keeps it.
    pub device: u64,
    /// The part of the file system that is mounted, without a trailing slash: empty for all of it.
    pub root: Vec<u8>,
    /// Where, without a trailing slash: empty for `/`.
    pub point: Vec<u8>,
    /// Type of the file system.
    pub kind: Vec<u8>,
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut columns = line.split(|byte| *byte == b' ');
        let device = columns.nth(2)?;
        let (root, point) = (columns.next()?, columns.next()?);
        // Options, then any number of optional fields up to a dash.
        let kind = columns.skip_while(|column| *column != b"-").nth(1)?;
        let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
        let device = major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?;
        Some(Self { device, root: path(root), point: path(point), kind: unescaped(kind) })
    }
}

/// The lines, in the order of the mounts' places in the tree, the older of two first.
pub fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|byte| *byte == b'\n').filter_map(Line::parse).collect()
}

/// The table, and the mount points that are not in it because something about them does not fit.
pub fn table(lines: &[Line]) -> (HashMap<MountKey, Mount>, Vec<String>) {
    let (mut parts, mut left_out) = (HashMap::<u64, Vec<&Line>>::new(), Vec::new());
    for line in lines {
        let known = parts.entry(line.device).or_default();
        // A bind mount of what has a path already: that path stays its name.
        if known.iter().any(|other| within(&line.root, &other.root)) {
            continue;
        }
        if line.root.len() <= MOUNT_PATH && line.point.len() <= MOUNT_PATH && known.len() < MOUNT_ROOTS as usize {
            known.push(line);
        } else {
            left_out.push(String::from_utf8_lossy(&line.point).into_owned());
        }
    }
    let mut table = HashMap::new();
    for (device, mut known) in parts {
        // The longest first: it is the one that counts.
        known.sort_by_key(|line| std::cmp::Reverse(line.root.len()));
        for (index, line) in (0..).zip(known) {
            table.insert(MountKey { file_system: device, index, zero: 0 }, entry(device, &line.root, &line.point));
        }
    }
    for ((magic, usual), kind) in KERNEL_CONTENT.into_iter().zip(KERNEL_KINDS) {
        // Wherever the host has it; where it belongs if the host has none, because others may still mount one.
        let first = lines.iter().find(|line| line.kind == kind && line.root.is_empty());
        let point = first.map_or(usual.as_bytes(), |line| &line.point);
        let file_system = MOUNT_BY_MAGIC | u64::from(magic);
        table.insert(
            MountKey { file_system, index: 0, zero: 0 },
            entry(0, b"", if point.len() <= MOUNT_PATH { point } else { usual.as_bytes() }),
        );
    }
    (table, left_out)
}

/// The host path of a file, by its path within its file system. `None`: the file system, or this part of it, is not in
/// the table.
pub fn host_path(table: &HashMap<MountKey, Mount>, device: u64, path: &[u8]) -> Option<Vec<u8>> {
    (0..MOUNT_ROOTS).find_map(|index| {
        let mount = table.get(&MountKey { file_system: device, index, zero: 0 })?;
        let root = mount.root.get(..mount.root_len as usize)?;
        let point = mount.point.get(..mount.point_len as usize)?;
        within(path, root).then(|| [point, &path[root.len()..]].concat())
    })
}

/// What a path of another mount namespace names: device and path within the file system, by that namespace's lines.
pub fn place(lines: &[Line], path: &[u8]) -> Option<(u64, Vec<u8>)> {
    // Of several on one point the last is on top.
    let covers = lines.iter().filter(|line| within(path, &line.point)).max_by_key(|line| line.point.len())?;
    Some((covers.device, [&covers.root, &path[covers.point.len()..]].concat()))
}

/// Whether a path is another one or below it; neither ends with a slash.
fn within(path: &[u8], of: &[u8]) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Both are at most [`MOUNT_PATH`] bytes long.
fn entry(device: u64, root: &[u8], point: &[u8]) -> Mount {
    let padded = |path: &[u8]| {
        let mut bytes = [0; MOUNT_PATH];
        bytes[..path.len()].copy_from_slice(path);
        bytes
    };
    Mount {
        device,
        root_len: root.len() as u32,
        point_len: point.len() as u32,
        root: padded(root),
        point: padded(point),
    }
}

fn path(column: &[u8]) -> Vec<u8> {
    let mut path = unescaped(column);
    if path.last() == Some(&b'/') {
        path.pop();
    }
    path
}

/// Space, tab, newline, backslash and `#` are written as `\040` and the like.
fn unescaped(column: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(column.len());
    let mut rest = column;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok());
        if let Some(escaped) = behind.get(..3).and_then(octal).filter(|_| byte == b'\\') {
            bytes.push(escaped);
            rest = &behind[3..];
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 8:1 / /mnt/a\\040b\\134c rw shared:2 master:1 - vfat /dev/sda1 rw
29 27 254:0 /srv/www /var/www rw - ext4 /dev/vda rw
";

    fn found(text: &str, device: u64, path: &str) -> Option<String> {
        let (table, _) = table(&parse(text.as_bytes()));
        host_path(&table, device, path.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    const ROOT: u64 = 254 << 20;

    #[test]
    fn lines_are_read_with_their_escapes_and_optional_fields() {
        let lines = parse(SAMPLE.as_bytes());
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1].point, b"", "the root has no trailing slash");
        assert_eq!(lines[2].point, b"/mnt/a b\\c");
        assert_eq!((lines[2].device, &lines[2].kind[..]), (8 << 20 | 1, &b"vfat"[..]));
        assert_eq!(lines[3].root, b"/srv/www");
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        for bad in ["", "1 2 3", "1 2 x:y / /a rw - ext4 d rw", "1 2 8:1 / /a rw ext4 d rw"] {
            assert_eq!(parse(bad.as_bytes()), Vec::new(), "{bad}");
        }
    }

    #[test]
    fn a_bind_mount_does_not_rename_what_has_a_path() {
        assert_eq!(found(SAMPLE, ROOT, "/srv/www/index.html").unwrap(), "/srv/www/index.html");
        assert_eq!(found(SAMPLE, ROOT, "").unwrap(), "");
        assert_eq!(found(SAMPLE, 8 << 20 | 1, "/x").unwrap(), "/mnt/a b\\c/x");
        assert_eq!(found(SAMPLE, 9 << 20, "/x"), None);
    }

    #[test]
    fn a_subvolume_keeps_its_name_when_the_whole_is_mounted_later() {
        let text =
            "1 0 0:30 /@ / rw - btrfs d rw\n2 1 0:30 /@home /home rw - btrfs d rw\n3 1 0:30 / /mnt rw - btrfs d rw\n";
        assert_eq!(found(text, 30, "/@/etc/shadow").unwrap(), "/etc/shadow");
        assert_eq!(found(text, 30, "/@home/u").unwrap(), "/home/u");
        assert_eq!(found(text, 30, "/@homework").unwrap(), "/mnt/@homework");
    }

    #[test]
    fn a_second_proc_is_the_first_one_by_its_magic() {
        assert_eq!(found(SAMPLE, MOUNT_BY_MAGIC | 0x9fa0, "/1/mem").unwrap(), "/proc/1/mem");
        // Not mounted here, and yet it has its path.
        assert_eq!(found(SAMPLE, MOUNT_BY_MAGIC | 0x6462_6720, "/x").unwrap(), "/sys/kernel/debug/x");
        let elsewhere = "1 0 0:9 / /debug rw - debugfs d rw\n";
        assert_eq!(found(elsewhere, MOUNT_BY_MAGIC | 0x6462_6720, "/x").unwrap(), "/debug/x");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let parts =
            ["0", "1", "2", "3", "4", "5"].map(|n| format!("{n} 0 8:1 /part{n} /p{n} rw - ext4 d rw\n")).concat();
        let long = format!("7 0 8:2 / /{} rw - ext4 d rw\n", "x".repeat(300));
        let (table, left_out) = table(&parse((parts + &long).as_bytes()));
        assert_eq!(table.len(), MOUNT_ROOTS as usize + KERNEL_CONTENT.len());
        assert_eq!(left_out.len(), 3);
        assert_eq!(left_out[..2], ["/p4", "/p5"]);
    }

    #[test]
    fn a_path_of_another_namespace_is_placed_by_the_mount_on_top() {
        let text =
            "1 0 0:50 / / rw - overlay o rw\n2 1 254:0 /data /data rw - ext4 d rw\n3 1 0:60 / /data rw - tmpfs t rw\n";
        let lines = parse(text.as_bytes());
        assert_eq!(place(&lines, b"/bin/sh"), Some((50, b"/bin/sh".to_vec())));
        assert_eq!(place(&lines, b"/data/x"), Some((60, b"/x".to_vec())));
        assert_eq!(place(&lines, b"/database"), Some((50, b"/database".to_vec())));
    }
}
