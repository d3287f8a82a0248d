//! What patterns name on this machine: symbolic links before the first wildcard are followed, and what is probably not
//! meant is said. Everything else in this crate looks at no file system.

use std::collections::BTreeMap;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::document::Loaded;
use crate::glob;
use crate::model::{HostRule, Location, PathGlob, PathMatch};

/// What is asked of a file system.
pub trait FileSystem {
    /// The path without symbolic links; `None`: it does not exist.
    fn resolve(&self, path: &str) -> Option<String>;
    /// Whether the file begins with `#!`.
    fn is_script(&self, path: &str) -> bool;
}

/// That of the running machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl FileSystem for Machine {
    fn resolve(&self, path: &str) -> Option<String> {
        Path::new(path).canonicalize().ok()?.into_os_string().into_string().ok()
    }

    fn is_script(&self, path: &str) -> bool {
        use std::io::Read as _;
        let mut begin = [0; 2];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
        read.is_ok() && begin == *b"#!"
    }
}

/// Adds to each pattern the one it comes to when symbolic links before its first wildcard are followed, and warns of
/// links, of literal paths that do not exist, and of executables that are scripts.
pub fn resolve(loaded: &mut Loaded, files: &dyn FileSystem) -> Vec<Diagnostic> {
    let mut known = BTreeMap::new();
    let mut found: BTreeMap<(Location, String), Option<String>> = BTreeMap::new();
    for rule in &mut loaded.policy.host.rules {
        let at = rule.at;
        let mut say = |message: String, help: Option<String>| {
            found.insert((at, message), help);
        };
        let HostRule { matches, .. } = rule;
        let sides = [
            (&mut matches.path, false),
            (&mut matches.exe, true),
            (&mut matches.ancestor, true),
            (&mut matches.target, true),
        ];
        for (side, executable) in sides {
            let lists = side.iter_mut().flat_map(|PathMatch { any_of, none_of }| any_of.iter_mut().chain([none_of]));
            for list in lists {
                follow(list, executable, files, &mut known, &mut say);
            }
        }
    }
    let place = |at: &Location| {
        let source = &loaded.sources.get(at.file as usize)?.text;
        let line = source.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default().to_owned();
        Some(Place { line: at.line, column: at.column, end_column: at.column + 1, source: line })
    };
    let diagnostic = |((at, message), help): ((Location, String), Option<String>)| Diagnostic {
        severity: Severity::Warning,
        file: loaded.policy.files.get(at.file as usize).cloned().unwrap_or_default(),
        place: place(&at),
        message,
        help,
    };
    found.into_iter().map(diagnostic).collect()
}

fn follow(
    list: &mut Vec<PathGlob>,
    executable: bool,
    files: &dyn FileSystem,
    known: &mut BTreeMap<String, Option<String>>,
    say: &mut dyn FnMut(String, Option<String>),
) {
    let mut more = Vec::new();
    for glob in list.iter() {
        let PathGlob::Path(text) = glob else { continue };
        let (prefix, literal) = glob::literal_prefix(text);
        // Whole components only: in `/etc/ssl*` the directory is `/etc`.
        let end = if literal { prefix.len() } else { prefix.rfind('/').unwrap_or(0) };
        let stem = &prefix[..end];
        // A backslash in the pattern would shift what follows the stem; those patterns name files literally enough.
        if !stem.starts_with('/') || text.contains('\\') {
            continue;
        }
        match known.entry(stem.to_owned()).or_insert_with(|| files.resolve(stem)) {
            Some(real) if real != stem => {
                let followed = format!("{}{}", escape(real), &text[end..]);
                say(format!("`{text}` leads through a symbolic link to `{followed}`, which is judged as well"), None);
                more.push(PathGlob::Path(followed));
            }
            Some(_) => {}
            None => {
                if literal {
                    say(format!("`{text}` does not exist"), None);
                }
                // What comes to be there later is found all the same, where a directory on the way is a link.
                let followed = through_ancestor(stem, files).map(|real| format!("{}{}", escape(&real), &text[end..]));
                more.extend(followed.map(PathGlob::Path));
            }
        }
        if executable && literal && files.is_script(stem) {
            let help = Some("name the interpreter, or confine the service by `unit`".to_owned());
            say(format!("`{text}` is a script: the executable of a process that runs it is its interpreter"), help);
        }
    }
    list.extend(more);
    list.sort_unstable();
    list.dedup();
}

/// Where a path leads that does not exist, if a directory on the way to it is a link.
fn through_ancestor(path: &str, files: &dyn FileSystem) -> Option<String> {
    let ancestors = path.match_indices('/').map(|(at, _)| path.split_at(at)).filter(|(above, _)| !above.is_empty());
    let (above, real, below) =
        ancestors.rev().find_map(|(above, below)| Some((above, files.resolve(above)?, below)))?;
    (real != above).then(|| format!("{}{below}", real.trim_end_matches('/')))
}

fn escape(path: &str) -> String {
    path.chars().flat_map(|c| r"\*?[{".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SourceText, load_texts};

    /// `/bin` is a link to `/usr/bin`; there is a script and a program.
    struct Fake;

    impl FileSystem for Fake {
        fn resolve(&self, path: &str) -> Option<String> {
            match path {
                "/bin" => Some("/usr/bin".to_owned()),
                "/bin/tool" => Some("/usr/bin/tool".to_owned()),
                "/usr/bin/script" | "/usr/bin" | "/srv" => Some(path.to_owned()),
                _ => None,
            }
        }

        fn is_script(&self, path: &str) -> bool {
            path == "/usr/bin/script"
        }
    }

    #[test]
    fn links_are_followed_and_what_is_not_meant_is_said() {
        let text = "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {op: exec, path: [/bin/tool, '/bin/*.sh', /gone, /bin/not/yet, '/srv/**'], exe: {not: /usr/bin/script}}\n";
        let source = SourceText { name: "p.yaml".into(), text: text.into(), base: "/".into() };
        let mut loaded = load_texts(vec![source]).unwrap();
        let said: Vec<String> = resolve(&mut loaded, &Fake).into_iter().map(|warning| warning.message).collect();
        let paths = loaded.policy.host.rules[0].matches.path[0].any_of.as_ref().unwrap();
        let has = |text: &str| paths.contains(&PathGlob::Path(text.to_owned()));
        assert!(has("/usr/bin/tool") && has("/bin/tool") && has("/usr/bin/*.sh") && paths.len() == 8, "{paths:?}");
        assert!(has("/usr/bin/not/yet"), "{paths:?}");
        let expected = [
            "`/bin/*.sh` leads",
            "`/bin/not/yet` does not exist",
            "`/bin/tool` leads",
            "`/gone` does not exist",
            "`/usr/bin/script` is a script",
        ];
        assert_eq!(said.len(), expected.len(), "{said:?}");
        assert!(expected.iter().all(|text| said.iter().any(|said| said.starts_with(text))), "{said:?}");
    }
}
