//! Where the running kernel keeps what the programs read.

use std::{
    fs::File,
    io::{self, BufReader},
};

use ringfence_abi::host::{
    KernelLayout, NO_OFFSET,
    layout::{self, ARGUMENTS, MEMBERS},
};

use super::{btf::Btf, obstacle::Obstacle};

/// Members that some supported kernel lacks, and the programs do without.
const OPTIONAL: [(&str, &str); 1] = [("backing_file", "user_path.dentry")];

/// Resolves all offsets. A member that is missing is an obstacle: a program that read elsewhere would judge nonsense.
pub fn resolve(btf: &Btf, rename_lock: u64) -> Result<KernelLayout, Obstacle> {
    let mut offsets = [NO_OFFSET; layout::COUNT];
    for (slot, (structure, member)) in offsets.iter_mut().zip(MEMBERS) {
        match btf.offset(structure, member) {
            Some(offset) => *slot = offset,
            None if OPTIONAL.contains(&(structure, member)) => {}
            None => return Err(Obstacle::Layout { member: format!("{structure}.{member}") }),
        }
    }
    for (slot, (hook, structure)) in offsets[MEMBERS.len()..].iter_mut().zip(ARGUMENTS) {
        // A hook that the kernel lacks is not attached, so its arguments are nowhere.
        *slot = btf.parameter(&format!("bpf_lsm_{hook}"), structure).unwrap_or(NO_OFFSET);
    }
    Ok(KernelLayout { rename_lock, offsets })
}

/// The address of a kernel symbol; `None`: not listed, or hidden from this process.
pub fn symbol(name: &str) -> io::Result<Option<u64>> {
    find_symbol(BufReader::new(File::open("/proc/kallsyms")?), name)
}

fn find_symbol(mut list: impl io::BufRead, name: &str) -> io::Result<Option<u64>> {
    let mut line = String::new();
    // The kernel's own symbols come first; those of modules have a fourth column.
    while list.read_line(&mut line)? != 0 {
        let mut columns = line.split_ascii_whitespace();
        if let (Some(address), Some(_), Some(found), None) =
            (columns.next(), columns.next(), columns.next(), columns.next())
            && found == name
        {
            return Ok(u64::from_str_radix(address, 16).ok().filter(|address| *address != 0));
        }
        line.clear();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_the_kernels_own_and_not_hidden() {
        let list =
            "ffffffff81000000 T _text\nffffffffc0000000 d rename_lock\t[module]\nffffffff82345678 D rename_lock\n";
        assert_eq!(find_symbol(list.as_bytes(), "rename_lock").unwrap(), Some(0xffff_ffff_8234_5678));
        assert_eq!(find_symbol(list.as_bytes(), "other").unwrap(), None);
        // As it is shown to a process that may not know.
        assert_eq!(find_symbol("0000000000000000 D rename_lock\n".as_bytes(), "rename_lock").unwrap(), None);
    }

    #[test]
    fn this_kernels_types_have_every_member() {
        let btf = Btf::read().unwrap().expect("the network half needs it as well");
        let layout = resolve(&btf, 1).unwrap();
        for (offset, (structure, member)) in layout.offsets.iter().zip(MEMBERS) {
            assert!(*offset < 1 << 16, "{structure}.{member} at {offset}");
        }
        // What every kernel has had where it is.
        let at = |structure, member| btf.offset(structure, member);
        assert!(at("dentry", "d_name.len") < at("dentry", "d_name.name"), "hash and length, then the pointer");
        assert_eq!(at("path", "mnt"), Some(0));
        assert_eq!(at("path", "dentry"), Some(8));
    }
}
