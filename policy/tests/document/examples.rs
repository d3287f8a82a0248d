//! The policies in `examples/` load without a warning, compile, pass their own tests and lock nobody out.

use std::path::Path;

use ringfence_policy::{compile::compile, load, lockout, oracle};

#[test]
fn every_example_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let loaded = load(&path).unwrap_or_else(|report| panic!("{name}:\n{report}"));
        assert_eq!(loaded.warnings, [], "{name}");
        compile(&loaded.policy).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(oracle::run_tests(&loaded.policy), [], "{name}");
        assert_eq!(oracle::run_access_tests(&loaded.policy), [], "{name}");
        assert_eq!(lockout::check(&loaded.policy), [], "{name}");
        let chains = loaded.policy.ingress.is_some() || loaded.policy.egress.is_some();
        let untested = chains && loaded.policy.tests.is_empty()
            || !loaded.policy.host.implicit && loaded.policy.access_tests.is_empty();
        assert!(!untested, "{name} says nothing of what it expects");
        seen.push(name);
    }
    for wanted in ["host-hardening.yaml", "web-server.yaml", "ci-runner.yaml", "bastion.yaml", "kiosk.yaml"] {
        assert!(seen.iter().any(|name| name == wanted), "{wanted} is missing");
    }
}
