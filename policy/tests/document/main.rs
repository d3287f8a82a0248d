//! The policy language from the outside: texts in, policies and reports out.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![allow(clippy::format_collect, reason = "short texts")]

mod examples;
mod feeds;
mod fields;
mod files;
mod host;
mod hostile;
mod mistakes;
mod model;
mod packets;
mod rules;
mod schema;
mod sets;

use std::path::PathBuf;

use ringfence_policy::{Loaded, Report, SourceText, load_texts};

/// Loads one text named `p.yaml`.
fn load(text: &str) -> Result<Loaded, Report> {
    load_all(&[("p.yaml", text)])
}

/// Loads several texts as a directory's files.
fn load_all(texts: &[(&str, &str)]) -> Result<Loaded, Report> {
    let source = |(name, text): &(&str, &str)| SourceText {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
        base: PathBuf::from("/nonexistent"),
    };
    load_texts(texts.iter().map(source).collect())
}

/// The errors and warnings of a text as `line:column message / help`.
fn says(text: &str) -> Vec<String> {
    let list = match load(text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report.diagnostics,
    };
    list.iter()
        .map(|diagnostic| {
            let place =
                diagnostic.place.as_ref().map_or("-".into(), |place| format!("{}:{}", place.line, place.column));
            format!("{place} {} / {}", diagnostic.message, diagnostic.help.as_deref().unwrap_or(""))
        })
        .collect()
}

/// A policy whose ingress chain has this one rule.
fn with_rule(rule: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n  nets: [10.0.0.0/8, \"2001:db8::/32\"]\n  ports: [80, https]\n  files: [/etc/shadow]\n  jail: {{dynamic: true}}\n\
         network:\n  ingress:\n    default: accept\n    rules:\n      - {rule}\n"
    )
}

/// The text is accepted.
#[track_caller]
fn accepts(text: &str) -> Loaded {
    load(text).unwrap_or_else(|report| panic!("refused:\n{text}\n{report}"))
}

/// The text is refused with an error that has the fragment, in its message or help.
#[track_caller]
fn refuses(text: &str, fragment: &str) {
    match load(text) {
        Ok(_) => panic!("accepted, expected {fragment:?}:\n{text}"),
        Err(report) => {
            let found = report.diagnostics.iter().any(|diagnostic| {
                diagnostic.message.contains(fragment)
                    || diagnostic.help.as_ref().is_some_and(|help| help.contains(fragment))
            });
            assert!(found, "no error has {fragment:?}:\n{text}\n{report}");
        }
    }
}

/// The text is accepted with a warning that has the fragment.
#[track_caller]
fn warns(text: &str, fragment: &str) {
    let loaded = accepts(text);
    let found = loaded.warnings.iter().any(|diagnostic| diagnostic.message.contains(fragment));
    assert!(found, "no warning has {fragment:?}: {:?}", loaded.warnings);
}
