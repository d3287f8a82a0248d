//! Whether a path matches a pattern, by trying everything: nothing is shared with the compiler's reading of patterns.

use crate::model::{ObjectPath, PathGlob};

/// Whether a pattern names an object. The pattern is well-formed; an object that cannot be told matches none.
#[must_use]
pub fn matches(glob: &PathGlob, object: &ObjectPath) -> bool {
    let text = match glob {
        PathGlob::Path(text) => text,
        PathGlob::Unit(name) => return matches!(object, ObjectPath::Host(path) if in_unit(name, path)),
    };
    // A brace may hold the beginning, so alternatives come first.
    alternatives(text).iter().any(|plain| {
        let anywhere = plain.starts_with("**/");
        match (object, plain.strip_prefix('@')) {
            (ObjectPath::Abstract(_), Some("**")) => true,
            (ObjectPath::Abstract(name), Some(pattern)) => plain_matches(pattern.as_bytes(), name.as_bytes()),
            (ObjectPath::Host(path), None) => path_matches(plain, path),
            (ObjectPath::Foreign(path), None) => anywhere && path_matches(plain, path),
            _ => false,
        }
    })
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let trimmed = if path == "/" { "" } else { path };
    match pattern {
        "/" => trimmed.is_empty(),
        _ if pattern.starts_with("**/") => plain_matches(format!("/{pattern}").as_bytes(), trimmed.as_bytes()),
        _ => plain_matches(pattern.as_bytes(), trimmed.as_bytes()),
    }
}

/// The patterns that one with braces stands for.
fn alternatives(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut cuts = Vec::new();
    let mut escaped = false;
    let mut bracket = false;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' => escaped = true,
            '[' if !bracket => bracket = true,
            ']' => bracket = false,
            _ if bracket => {}
            '{' => {
                depth += 1;
                if depth == 1 {
                    cuts.push(at);
                }
            }
            ',' if depth == 1 => cuts.push(at),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    cuts.push(at);
                    break;
                }
            }
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return vec![text.to_owned()] };
    let choices = cuts.windows(2).map(|cut| &text[cut[0] + 1..cut[1]]);
    choices.flat_map(|choice| alternatives(&format!("{}{choice}{}", &text[..*first], &text[last + 1..]))).collect()
}

fn plain_matches(pattern: &[u8], path: &[u8]) -> bool {
    if let Some(rest) = pattern.strip_prefix(b"/**")
        && (rest.is_empty() || rest[0] == b'/')
    {
        if rest.is_empty() {
            return path.is_empty() || path[0] == b'/';
        }
        // No component, or one and again.
        return plain_matches(rest, path)
            || path.first() == Some(&b'/') && {
                let end = path[1..].iter().position(|byte| *byte == b'/').map_or(path.len(), |end| end + 1);
                plain_matches(pattern, &path[end..])
            };
    }
    let Some((&first, rest)) = pattern.split_first() else { return path.is_empty() };
    match first {
        b'*' => {
            let name = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=name).any(|skip| plain_matches(rest, &path[skip..]))
        }
        b'?' => path.first().is_some_and(|byte| *byte != b'/') && plain_matches(rest, &path[1..]),
        b'[' => {
            let Some((&byte, path)) = path.split_first() else { return false };
            let (inside, after) = bracket(rest, byte);
            inside && byte != b'/' && plain_matches(&rest[after..], path)
        }
        b'\\' => !rest.is_empty() && path.first() == Some(&rest[0]) && plain_matches(&rest[1..], &path[1..]),
        byte => path.first() == Some(&byte) && plain_matches(rest, &path[1..]),
    }
}

/// Whether a byte is among those in brackets, whose text begins here; and where the text goes on.
fn bracket(text: &[u8], byte: u8) -> (bool, usize) {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let mut inside = false;
    let character = |at: usize| if text.get(at) == Some(&b'\\') { at + 1 } else { at };
    while at < text.len() && text[at] != b']' {
        let low = character(at);
        let mut next = low + 1;
        let mut high = low;
        if text.get(next) == Some(&b'-') && text.get(next + 1).is_some_and(|byte| *byte != b']') {
            high = character(next + 1);
            next = high + 1;
        }
        inside |= text.get(low).zip(text.get(high)).is_some_and(|(low, high)| (*low..=*high).contains(&byte));
        at = next;
    }
    (inside != negated, at + 1)
}

/// Whether a cgroup is that of a unit or below it, with nothing but slices above.
fn in_unit(name: &str, cgroup: &str) -> bool {
    let components: Vec<&str> = cgroup.split('/').skip(1).collect();
    // Only `*` and `?` are special in a unit's name.
    let plain = |c: char| if r"\[]".contains(c) { format!("\\{c}") } else { c.to_string() };
    let pattern: String = name.chars().map(plain).collect();
    let named = |component: &str| plain_matches(pattern.as_bytes(), component.as_bytes());
    (0..components.len())
        .any(|at| named(components[at]) && components[..at].iter().all(|above| above.strip_suffix(".slice").is_some()))
}
