//! A reader of the kernel's type information, as far as it is needed to find members of structures and hooks.
//!
//! aya resolves BTF for relocations only and keeps member offsets to itself; rustc emits no such relocations. The format
//! is described in the kernel's `Documentation/bpf/btf.rst`.

use std::{collections::HashMap, fs, io, path::Path};

/// Kinds of types, as in `include/uapi/linux/btf.h`.
mod kind {
    pub const INT: u32 = 1;
    pub const POINTER: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FORWARD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VARIABLE: u32 = 14;
    pub const SECTION: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
/// Types that stand for others, one behind the other, at most; anonymous structures within each other, at most.
const MAX_DEPTH: usize = 32;
/// Bytes of a type before what its kind adds.
const TYPE: usize = 12;

/// The types of a kernel.
#[derive(Debug)]
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    // Where each type begins in `types`; number 0 is `void`.
    starts: Vec<usize>,
    // By name. Several structures of one name may exist, private to parts of the kernel.
    structures: HashMap<String, Vec<u32>>,
    functions: HashMap<String, u32>,
}

/// A member: bits from the beginning of the structure, and its type.
#[derive(Clone, Copy)]
struct Member {
    bits: u32,
    of: u32,
}

impl Btf {
    /// Reads the running kernel's; `None`: it has none.
    pub fn read() -> io::Result<Option<Self>> {
        match fs::read(Path::new("/sys/kernel/btf/vmlinux")) {
            Ok(bytes) => Self::parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a blob.
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        Self::parts(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed BPF type information"))
    }

    fn parts(bytes: &[u8]) -> Option<Self> {
        if u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]) != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let part = |offset: usize| {
            let begin = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(begin..begin.checked_add(word(bytes, offset + 4)? as usize)?)
        };
        let (types, strings) = (part(8)?.to_vec(), part(16)?.to_vec());
        let mut btf = Self { types, strings, starts: vec![0], structures: HashMap::new(), functions: HashMap::new() };
        let mut at = 0;
        while at < btf.types.len() {
            let id = u32::try_from(btf.starts.len()).ok()?;
            btf.starts.push(at);
            at += TYPE + btf.extra(at)?;
            match btf.kind(id) {
                kind::STRUCT | kind::UNION => {
                    let name = btf.name(id)?.to_owned();
                    btf.structures.entry(name).or_default().push(id);
                }
                kind::FUNC => {
                    let name = btf.name(id)?.to_owned();
                    btf.functions.entry(name).or_insert(id);
                }
                _ => {}
            }
        }
        Some(btf)
    }

    /// Whether the kernel has this function.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// The number of this function's type, by which programs are attached to it.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    /// Bytes from the beginning of a structure to a member of it: `a.b` is a member of a member that lies within, names
    /// with `|` between are alternatives.
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let ids = self.structures.get(structure)?;
        ids.iter().find_map(|id| path.split('|').find_map(|path| self.offset_in(*id, path)))
    }

    /// The position of the first parameter of a function that points to this structure.
    pub fn parameter(&self, function: &str, structure: &str) -> Option<u32> {
        let prototype = self.referred(self.function(function)?)?;
        let start = self.start(prototype)?;
        let count = self.info(prototype)? & 0xffff;
        (0..count).find(|index| {
            let of = word(&self.types, start + TYPE + 8 * *index as usize + 4);
            of.is_some_and(|of| self.points_to(of) == Some(structure))
        })
    }

    fn offset_in(&self, mut id: u32, path: &str) -> Option<u32> {
        let mut bits = 0;
        for name in path.split('.') {
            let member = self.member(id, name, MAX_DEPTH)?;
            bits += member.bits;
            id = member.of;
        }
        Some(bits / 8)
    }

    /// A member by name, also of the anonymous structures and unions within.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<Member> {
        let id = self.resolved(id)?;
        if !matches!(self.kind(id), kind::STRUCT | kind::UNION) {
            return None;
        }
        let (start, info) = (self.start(id)?, self.info(id)?);
        // With the flag, the upper byte is the size of a bit field.
        let mask = if info >> 31 == 1 { 0xff_ffff } else { u32::MAX };
        for index in 0..(info & 0xffff) as usize {
            let at = start + TYPE + 12 * index;
            let member = Member { bits: word(&self.types, at + 8)? & mask, of: word(&self.types, at + 4)? };
            let found = self.string(word(&self.types, at)?)?;
            if found == name {
                return Some(member);
            }
            if found.is_empty()
                && let Some(inner) = depth.checked_sub(1).and_then(|depth| self.member(member.of, name, depth))
            {
                return Some(Member { bits: member.bits + inner.bits, of: inner.of });
            }
        }
        None
    }

    fn points_to(&self, id: u32) -> Option<&str> {
        let id = self.resolved(id)?;
        let target = (self.kind(id) == kind::POINTER).then(|| self.referred(id))??;
        let target = self.resolved(target)?;
        (self.kind(target) == kind::STRUCT).then(|| self.name(target))?
    }

    /// What is behind `typedef`, `const` and the like.
    fn resolved(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            match self.kind(id) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.referred(id)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Bytes that follow a type's first twelve.
    fn extra(&self, start: usize) -> Option<usize> {
        let info = word(&self.types, start + 4)?;
        let count = (info & 0xffff) as usize;
        match info >> 24 & 0x1f {
            kind::INT | kind::VARIABLE | kind::DECL_TAG => Some(4),
            kind::ARRAY => Some(12),
            kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM64 => Some(12 * count),
            kind::ENUM | kind::FUNC_PROTO => Some(8 * count),
            kind::POINTER
            | kind::FORWARD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => Some(0),
            _ => None,
        }
    }

    fn start(&self, id: u32) -> Option<usize> {
        if id == 0 { None } else { self.starts.get(id as usize).copied() }
    }

    fn info(&self, id: u32) -> Option<u32> {
        word(&self.types, self.start(id)? + 4)
    }

    /// 0 for `void` and for what is not there.
    fn kind(&self, id: u32) -> u32 {
        self.info(id).map_or(0, |info| info >> 24 & 0x1f)
    }

    fn referred(&self, id: u32) -> Option<u32> {
        word(&self.types, self.start(id)? + 8)
    }

    fn name(&self, id: u32) -> Option<&str> {
        self.string(word(&self.types, self.start(id)?)?)
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and strings as a compiler writes them.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Writer {
        fn string(&mut self, text: &str) -> u32 {
            if text.is_empty() {
                return 0;
            }
            let offset = self.strings.len() as u32 + 1;
            self.strings.extend(text.bytes().chain([0]));
            offset
        }

        fn add(&mut self, name: &str, info: u32, last: u32, extra: &[u32]) {
            let name = self.string(name);
            let words = [name, info, last].into_iter().chain(extra.iter().copied());
            self.types.extend(words.flat_map(u32::to_le_bytes));
        }

        fn finish(self) -> Vec<u8> {
            let strings: Vec<u8> = [0].into_iter().chain(self.strings).collect();
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            let words = [24, 0, self.types.len() as u32, self.types.len() as u32, strings.len() as u32];
            bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
            bytes.extend(self.types.into_iter().chain(strings));
            bytes
        }
    }

    fn sample() -> Vec<u8> {
        let mut w = Writer::default();
        let (a, b, c, inner) = (w.string("a"), w.string("b"), w.string("c"), w.string("inner"));
        w.add("int", kind::INT << 24, 4, &[32]);
        // 2: anonymous union { int b; }, 3: struct deep { int c; } at bit 0.
        w.add("", kind::UNION << 24 | 1, 4, &[b, 1, 0]);
        w.add("deep", kind::STRUCT << 24 | 1, 4, &[c, 1, 0]);
        w.add("deep_t", kind::TYPEDEF << 24, 3, &[]);
        // 5: struct top { int a; union; deep_t inner; }, as with bit fields.
        let flag = 1 << 31;
        w.add("top", flag | kind::STRUCT << 24 | 3, 12, &[a, 1, 4 << 24, 0, 2, 32, inner, 4, 64]);
        w.add("", kind::POINTER << 24, 5, &[]);
        w.add("", kind::CONST << 24, 6, &[]);
        w.add("", kind::FUNC_PROTO << 24 | 2, 1, &[0, 1, 0, 7]);
        w.add("hook", kind::FUNC << 24, 8, &[]);
        w.finish()
    }

    #[test]
    fn members_of_members_and_of_anonymous_ones_are_found() {
        let btf = Btf::parse(&sample()).unwrap();
        assert_eq!(btf.offset("top", "a"), Some(0), "the size of a bit field is no part of its offset");
        assert_eq!(btf.offset("top", "b"), Some(4));
        assert_eq!(btf.offset("top", "inner.c"), Some(8));
        assert_eq!(btf.offset("top", "new_name|inner"), Some(8));
        assert_eq!(btf.offset("top", "c"), None);
        assert_eq!(btf.offset("other", "a"), None);
    }

    #[test]
    fn parameters_are_found_by_what_they_point_to() {
        let btf = Btf::parse(&sample()).unwrap();
        assert_eq!(btf.parameter("hook", "top"), Some(1));
        assert_eq!(btf.parameter("hook", "deep"), None);
        assert_eq!(btf.function("hook"), Some(9));
        assert!(!btf.has_function("other"));
    }

    #[test]
    fn cut_and_mangled_blobs_are_refused_without_a_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(Btf::parse(&whole[..length]).is_err(), "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            if let Ok(btf) = Btf::parse(&bytes) {
                btf.offset("top", "inner.c");
                btf.parameter("hook", "top");
            }
        }
    }
}
