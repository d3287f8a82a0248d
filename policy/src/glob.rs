//! Path patterns: text to tokens. What they mean is said in `docs/policy.md`; the oracle has a matcher of its own.

use std::str::Chars;

use crate::model::PathGlob;

/// Longest pattern, bytes.
pub const MAX_LENGTH: usize = 4096;
/// Plain patterns that the `{a,b}` of one may stand for.
pub const MAX_ALTERNATIVES: usize = 64;

/// Which names a pattern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Paths on the host's mounts.
    Host,
    /// Paths on any file system: the pattern begins with `**/`.
    Anywhere,
    /// Abstract sockets.
    Abstract,
}

/// Bytes, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub [u64; 4]);

impl Bytes {
    /// Whether a byte is in it.
    #[must_use]
    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    /// Every byte that a name may have.
    #[must_use]
    pub fn of_names() -> Self {
        let mut all = Self([u64::MAX; 4]);
        all.remove(b'/');
        all
    }
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// This byte.
    Byte(u8),
    /// One of these.
    Set(Bytes),
    /// Any number of bytes within a component.
    Star,
    /// Any number of whole components, each with the `/` before it.
    Deep,
    /// The same, of components that end in `.slice`.
    Slices,
}

/// A pattern without alternatives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// What it is about.
    pub scope: Scope,
    /// The path; nothing for the root.
    pub tokens: Vec<Token>,
    /// It ended in `/**`: all below matches too.
    pub tree: bool,
}

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It begins with neither `/` nor `**/` nor `@`.
    #[error("a path begins with `/` or `**/`; an abstract socket with `@`")]
    Start,
    /// It is too long.
    #[error("longer than 4,096 bytes: no path is")]
    Length,
    /// `**` beside other characters.
    #[error("`**` stands for whole components: write it between slashes, as in `/a/**/b`")]
    Deep,
    /// `//`, or a slash at the end.
    #[error("a component without a name; a tree is written `/dir/**`")]
    Empty,
    /// `.` or `..`.
    #[error("`.` and `..` are in no path as the kernel knows it")]
    Dots,
    /// A brace without its other.
    #[error("`{{` without `}}`; write `\\{{` for the character itself")]
    Brace,
    /// A bracket without its other, or nothing in it.
    #[error("`[` without `]`; write `\\[` for the character itself")]
    Bracket,
    /// What cannot stand between brackets.
    #[error("`[...]` takes single ASCII characters and ranges such as `a-z`, without `/`")]
    Class,
    /// A backslash at the end.
    #[error("a backslash at the end; it takes the special meaning from the character that follows")]
    Escape,
    /// A NUL byte.
    #[error("a NUL character is in no path")]
    Nul,
    /// A unit without a name, or with a slash in it.
    #[error("a unit's name has no slash")]
    Unit,
    /// Alternatives multiply.
    #[error("its `{{a,b}}` stand for more than 64 patterns")]
    Alternatives,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Stars,
    Open,
    Comma,
    Close,
}

/// The plain patterns that a written one stands for; any of them may match.
pub fn parse(text: &str) -> Result<Vec<Pattern>, GlobError> {
    if text.len() > MAX_LENGTH {
        return Err(GlobError::Length);
    }
    let pieces = pieces(text)?;
    let mut plain = Vec::new();
    expand(&pieces, &mut plain)?;
    plain.iter().map(|pieces| pattern(pieces)).collect()
}

/// The plain patterns of a glob of the model.
pub fn patterns(glob: &PathGlob) -> Result<Vec<Pattern>, GlobError> {
    match glob {
        PathGlob::Path(text) => parse(text),
        PathGlob::Unit(name) => unit(name).map(|pattern| vec![pattern]).ok_or(GlobError::Unit),
    }
}

/// What stands before the first wildcard, without escapes; all of it for a literal path.
#[must_use]
pub fn literal_prefix(text: &str) -> (String, bool) {
    let mut prefix = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' | '{' => return (prefix, false),
            '\\' => prefix.extend(chars.next()),
            c => prefix.push(c),
        }
    }
    (prefix, true)
}

/// The pattern of a unit's cgroup: below slices only.
#[must_use]
pub fn unit(name: &str) -> Option<Pattern> {
    let mut tokens = vec![Token::Slices, Token::Byte(b'/')];
    // Units' names have backslashes of their own (`\x2d`); only `*` and `?` are special.
    tokens.extend(name.bytes().map(|byte| match byte {
        b'*' => Token::Star,
        b'?' => Token::Set(Bytes::of_names()),
        byte => Token::Byte(byte),
    }));
    tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
    (!name.is_empty() && !name.contains('/')).then_some(Pattern { scope: Scope::Host, tokens, tree: true })
}

fn pieces(text: &str) -> Result<Vec<Piece>, GlobError> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut depth = 0_usize;
    while let Some(c) = chars.next() {
        match c {
            '\0' => return Err(GlobError::Nul),
            '\\' => literal(chars.next().ok_or(GlobError::Escape)?, &mut pieces),
            '*' if pieces.last() == Some(&Piece::Token(Token::Star)) => {
                pieces.pop();
                pieces.push(Piece::Stars);
            }
            '*' if pieces.last() == Some(&Piece::Stars) => return Err(GlobError::Deep),
            '*' => pieces.push(Piece::Token(Token::Star)),
            '?' => pieces.push(Piece::Token(Token::Set(Bytes::of_names()))),
            '[' => pieces.push(Piece::Token(Token::Set(class(&mut chars)?))),
            '{' => {
                depth += 1;
                pieces.push(Piece::Open);
            }
            ',' if depth > 0 => pieces.push(Piece::Comma),
            '}' if depth > 0 => {
                depth -= 1;
                pieces.push(Piece::Close);
            }
            '}' => return Err(GlobError::Brace),
            c => literal(c, &mut pieces),
        }
    }
    if depth > 0 { Err(GlobError::Brace) } else { Ok(pieces) }
}

fn literal(c: char, pieces: &mut Vec<Piece>) {
    pieces.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| Piece::Token(Token::Byte(byte))));
}

fn class(chars: &mut Chars<'_>) -> Result<Bytes, GlobError> {
    let mut set = Bytes::default();
    let mut next = || chars.next().ok_or(GlobError::Bracket);
    let mut c = next()?;
    let negated = matches!(c, '!' | '^');
    if negated {
        c = next()?;
    }
    if c == ']' {
        return Err(GlobError::Class);
    }
    let mut low = None;
    loop {
        match c {
            ']' => break,
            '-' if low.is_some() => {
                let high = match next()? {
                    // A dash at the end is itself.
                    ']' => {
                        set.insert(b'-');
                        break;
                    }
                    '\\' => next()?,
                    high => high,
                };
                let (Some(from), true) = (low.take(), high.is_ascii() && high != '/') else {
                    return Err(GlobError::Class);
                };
                if high as u8 <= from {
                    return Err(GlobError::Class);
                }
                (from..=high as u8).for_each(|byte| set.insert(byte));
            }
            _ => {
                let c = if c == '\\' { next()? } else { c };
                if !c.is_ascii() || c == '/' || c == '\0' {
                    return Err(GlobError::Class);
                }
                set.insert(c as u8);
                low = Some(c as u8);
            }
        }
        c = next()?;
    }
    if negated {
        set = Bytes(set.0.map(|word| !word));
    }
    set.remove(b'/');
    Ok(set)
}

/// Takes the braces out.
fn expand(pieces: &[Piece], out: &mut Vec<Vec<Piece>>) -> Result<(), GlobError> {
    let Some(open) = pieces.iter().position(|piece| *piece == Piece::Open) else {
        if out.len() == MAX_ALTERNATIVES {
            return Err(GlobError::Alternatives);
        }
        out.push(pieces.to_vec());
        return Ok(());
    };
    let mut depth = 0_usize;
    let mut begin = open + 1;
    let mut choices = Vec::new();
    let mut close = open;
    for (at, piece) in pieces.iter().enumerate().skip(open) {
        match piece {
            Piece::Open => depth += 1,
            Piece::Comma if depth == 1 => {
                choices.push(begin..at);
                begin = at + 1;
            }
            Piece::Close => {
                depth -= 1;
                if depth == 0 {
                    choices.push(begin..at);
                    close = at;
                    break;
                }
            }
            _ => {}
        }
    }
    for choice in choices {
        let one = [&pieces[..open], &pieces[choice], &pieces[close + 1..]].concat();
        expand(&one, out)?;
    }
    Ok(())
}

const SLASH: Piece = Piece::Token(Token::Byte(b'/'));
const AT: Piece = Piece::Token(Token::Byte(b'@'));

fn pattern(pieces: &[Piece]) -> Result<Pattern, GlobError> {
    match pieces {
        [AT, Piece::Stars] => Ok(Pattern { scope: Scope::Abstract, tokens: Vec::new(), tree: true }),
        [AT, name @ ..] if !name.is_empty() => {
            let (name, tree) = match name {
                [name @ .., SLASH, Piece::Stars] => (name, true),
                name => (name, false),
            };
            Ok(Pattern { scope: Scope::Abstract, tokens: tokens(name)?, tree })
        }
        [SLASH] => Ok(Pattern { scope: Scope::Host, tokens: Vec::new(), tree: false }),
        [SLASH, ..] => path(Scope::Host, pieces),
        [Piece::Stars, SLASH, ..] => path(Scope::Anywhere, &[&[SLASH], pieces].concat()),
        _ => Err(GlobError::Start),
    }
}

/// A path that begins with a slash.
fn path(scope: Scope, pieces: &[Piece]) -> Result<Pattern, GlobError> {
    let components: Vec<&[Piece]> = pieces.split(|piece| *piece == SLASH).skip(1).collect();
    for component in &components {
        match component {
            [] => return Err(GlobError::Empty),
            [Piece::Token(Token::Byte(b'.'))] | [Piece::Token(Token::Byte(b'.')), Piece::Token(Token::Byte(b'.'))] => {
                return Err(GlobError::Dots);
            }
            _ => {}
        }
    }
    let deep: &[Piece] = &[Piece::Stars];
    let named = components.iter().rposition(|component| *component != deep).map_or(0, |last| last + 1);
    let tree = named < components.len();
    let mut out = Vec::with_capacity(pieces.len());
    for component in &components[..named] {
        if *component != deep {
            out.push(Token::Byte(b'/'));
            out.extend(tokens(component)?);
        } else if out.last() != Some(&Token::Deep) {
            out.push(Token::Deep);
        }
    }
    Ok(Pattern { scope, tokens: out, tree })
}

fn tokens(pieces: &[Piece]) -> Result<Vec<Token>, GlobError> {
    let token = |piece: &Piece| match piece {
        Piece::Token(token) => Ok(*token),
        Piece::Stars | Piece::Open | Piece::Comma | Piece::Close => Err(GlobError::Deep),
    };
    let mut tokens = pieces.iter().map(token).collect::<Result<Vec<Token>, GlobError>>()?;
    // `{a,}*` and the like put stars side by side.
    tokens.dedup_by(|a, b| *a == Token::Star && *b == Token::Star);
    Ok(tokens)
}
