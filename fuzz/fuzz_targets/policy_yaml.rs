//! Any text is a policy or a report, never a panic, and the same one twice: `cargo +nightly fuzz run policy_yaml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_policy::{SourceText, load_texts, parse_packet_spec};

fuzz_target!(|text: &str| {
    let load = || {
        // Set files do not exist here, whatever the text names relative to it.
        let base = "/nonexistent".into();
        load_texts(vec![SourceText { name: "fuzz.yaml".into(), text: text.to_owned(), base }])
    };
    match (load(), load()) {
        (Ok(first), Ok(second)) => assert_eq!(first.warnings, second.warnings),
        (Err(first), Err(second)) => {
            assert!(!first.diagnostics.is_empty());
            assert_eq!(first.render(true), second.render(true));
        }
        _ => panic!("loaded once and refused once"),
    }
    let _ = parse_packet_spec(text);
});
