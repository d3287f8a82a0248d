//! The places where host programs are attached: security hooks, and in their stead a cgroup.
//!
//! Each has a dispatcher that never changes, an array of the generations' programs by slot, and a bit in
//! `HostState::hooks`.

use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_INET4_BIND, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_BIND, BPF_CGROUP_INET6_CONNECT,
    BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG, BPF_LSM_MAC,
};
use ringfence_abi::host::{CGROUP_HOOKS, HOOKS, HostConsts};

/// A place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its number: a bit of `HostState::hooks`.
    pub bit: usize,
    /// What the status calls it, and its link's pin.
    pub name: &'static str,
    /// Program array.
    pub array: &'static str,
    /// How its dispatcher is attached.
    pub kind: bpf_attach_type,
    ops: u32,
    keeps: u32,
}

/// What a generation asks of the hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bit per operation that may be refused or counted.
    pub ops: u32,
    /// `KEEPS_` bits.
    pub keeps: u32,
}

impl Place {
    /// All security hooks.
    pub fn security() -> impl Iterator<Item = Self> {
        HOOKS.iter().enumerate().map(|(bit, hook)| Self {
            bit,
            name: hook.name,
            array: hook.array,
            kind: BPF_LSM_MAC,
            ops: hook.ops,
            keeps: hook.keeps,
        })
    }

    /// All places at a cgroup.
    pub fn cgroup() -> impl Iterator<Item = Self> {
        const KINDS: [bpf_attach_type; CGROUP_HOOKS.len()] = [
            BPF_CGROUP_INET4_CONNECT,
            BPF_CGROUP_INET6_CONNECT,
            BPF_CGROUP_UDP4_SENDMSG,
            BPF_CGROUP_UDP6_SENDMSG,
            BPF_CGROUP_INET4_BIND,
            BPF_CGROUP_INET6_BIND,
        ];
        (HOOKS.len()..).zip(CGROUP_HOOKS.iter().zip(KINDS)).map(|(bit, (hook, kind))| Self {
            bit,
            name: hook.name,
            array: hook.array,
            kind,
            ops: hook.ops,
            keeps: 0,
        })
    }

    /// Whether it is one of the security hooks.
    pub fn is_security(&self) -> bool {
        self.kind == BPF_LSM_MAC
    }

    /// The dispatcher's name.
    pub fn dispatcher(&self) -> String {
        format!("d_{}", self.name)
    }

    /// The name of a generation's program.
    pub fn program(&self) -> String {
        format!("h_{}", self.name)
    }

    /// Whether a generation with these needs judges here.
    pub fn serves(&self, needs: Needs) -> bool {
        self.ops & needs.ops != 0 || self.keeps & needs.keeps != 0
    }
}

impl Needs {
    /// What a generation needs.
    pub fn of(consts: &HostConsts) -> Self {
        Self { ops: consts.ops, keeps: consts.keeps }
    }

    /// What two generations ask for together.
    pub fn and(self, other: Self) -> Self {
        Self { ops: self.ops | other.ops, keeps: self.keeps | other.keeps }
    }

    /// Whether something must be kept up: one of the `KEEPS_` bits.
    pub fn keeps(self, what: u32) -> bool {
        self.keeps & what != 0
    }
}

#[cfg(test)]
mod tests {
    use ringfence_abi::host::op;

    use super::*;

    const TABLE: &str = include_str!("../../../../docs/host-operations.md");

    /// What stands between backticks in a column of the table's rows.
    fn words(row: &str, column: usize) -> Vec<&str> {
        let column = row.split(" | ").nth(column).unwrap_or_default();
        column.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_documented_hooks_are_those_that_judge() {
        let rows: Vec<&str> = TABLE.lines().filter(|line| line.starts_with("| `")).collect();
        for (number, name) in op::NAMES.into_iter().enumerate() {
            let row = rows.iter().find(|row| words(row, 0) == [name]).unwrap_or_else(|| panic!("no row for `{name}`"));
            let hooks = words(row, 1);
            assert!(!hooks.is_empty(), "{name}");
            for documented in hooks {
                let hook = HOOKS.iter().find(|hook| hook.name == documented);
                let ops = hook.unwrap_or_else(|| panic!("`{documented}` of `{name}` is not in use")).ops;
                assert_eq!(ops >> number & 1, 1, "{documented} does not judge {name}");
            }
        }
        for hook in HOOKS.iter().filter(|hook| hook.ops != 0) {
            assert!(rows.iter().any(|row| words(row, 1).contains(&hook.name)), "`{}` is not documented", hook.name);
        }
    }
}
