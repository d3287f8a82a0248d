use std::fs;
use std::path::Path;
use std::time::Instant;

use ringfence_policy::load;
use tempfile::TempDir;

fn dir(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, contents) in files {
        fs::write(dir.path().join(name), contents).unwrap();
    }
    dir
}

#[track_caller]
fn refused(path: &Path, fragment: &str) {
    let report = load(path).unwrap_err().to_string();
    assert!(report.contains(fragment), "no {fragment:?}:\n{report}");
}

#[test]
fn what_is_no_policy_file() {
    let dir = dir(&[("nul.yaml", b"a\0b"), ("latin.yaml", b"ringfence: 1\n# \xe9\n"), ("x.txt", b"")]);
    let at = |name: &str| dir.path().join(name);
    refused(&at("missing.yaml"), "no such file");
    refused(&at("nul.yaml"), "NUL byte");
    refused(&at("latin.yaml"), "not UTF-8 text (byte 15, line 2)");
    refused(Path::new("/dev/zero"), "not a regular file");
    fs::create_dir(at("sub")).unwrap();
    refused(&at("sub"), "holds no `*.yaml` file");
    fs::create_dir(at("sub/x.yaml")).unwrap();
    refused(&at("sub"), "a directory, expected a file");
    fifo(&at("pipe.yaml"));
    refused(&at("pipe.yaml"), "not a regular file");
}

fn fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_large_file_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("large.yaml");
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let start = Instant::now();
    refused(&path, "larger than 16 MiB");
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let dir = dir(&[
        ("20-b.yaml", b"ringfence: 1\nnetwork: {ingress: {rules: [{drop: any, name: second}]}}\n"),
        ("10-a.yaml", b"ringfence: 1\nnetwork: {ingress: {default: accept, rules: [{count: any, name: first}]}}\n"),
        (".swap.yaml", b"nonsense"),
        ("note.yml", b"nonsense"),
    ]);
    let loaded = load(dir.path()).unwrap();
    let names: Vec<_> = loaded.policy.ingress.unwrap().rules.iter().map(|rule| rule.name.clone()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(loaded.sources.len(), 2);
    assert!(loaded.warnings[0].message.contains("not read"), "{:?}", loaded.warnings);
}

const WITH_FEED: &[u8] = b"ringfence: 1\nsets: {feed: {file: feed.txt}}\nnetwork: {ingress: {default: accept, rules: [{drop: {from: $feed}}]}}\n";

#[test]
fn a_set_file_is_read_beside_the_policy() {
    let dir = dir(&[
        ("p.yaml", WITH_FEED),
        ("feed.txt", b"# head\n10.0.0.1 ; one\n\n10.1.2.3/16\r\n2001:db8::/32 # two\n192.0.2.1-192.0.2.9\n"),
    ]);
    let loaded = load(&dir.path().join("p.yaml")).unwrap();
    let file = &loaded.set_files[0];
    assert_eq!((file.set.as_str(), file.elements), ("feed", 4));
    let sum = std::process::Command::new("sha256sum").arg(dir.path().join("feed.txt")).output().unwrap().stdout;
    assert_eq!(file.sha256.as_deref(), std::str::from_utf8(&sum).unwrap().split(' ').next());
    assert!(
        loaded.warnings[0]
            .message
            .contains("1 prefixes with bits set past their length are taken as the network, first in line 4")
    );
    let rule = &loaded.policy.ingress.unwrap().rules[0];
    let ranges = &rule.matches.from[0].any_of.as_ref().unwrap().fixed[0];
    for inside in ["10.0.0.1", "10.1.0.0", "2001:db8::9", "192.0.2.5"] {
        assert!(ranges.contains(inside.parse().unwrap()), "{inside}");
    }
    assert!(!ranges.contains("10.0.0.2".parse().unwrap()));
}

#[test]
fn mistakes_in_a_set_file() {
    let feed = |contents: &[u8]| dir(&[("p.yaml", WITH_FEED), ("feed.txt", contents)]);
    let bad = feed(b"10.0.0.1\nexample.com\n10.0.0.0/40\n");
    let report = load(&bad.path().join("p.yaml")).unwrap_err();
    let places: Vec<_> =
        report.diagnostics.iter().map(|d| (d.file.ends_with("feed.txt"), d.place.as_ref().unwrap().line)).collect();
    assert_eq!(places, [(true, 2), (true, 3)], "{report}");
    for (contents, fragment) in [
        (&b""[..], "holds no address"),
        (b"# only\n", "holds no address"),
        (b"10.0.0.1\n\0\n", "binary data in line 2"),
        (b"\xff\xfe\n", "line 1 is not UTF-8"),
        (&[b'1'; 5000], "line 1 has more than 4096 bytes"),
    ] {
        refused(&feed(contents).path().join("p.yaml"), fragment);
    }
    let many: String = (0..50).map(|i| format!("bad{i}\n")).collect();
    refused(&feed(many.as_bytes()).path().join("p.yaml"), "30 more lines");
}

#[test]
fn an_optional_set_file_may_be_missing() {
    let policy = b"ringfence: 1\nsets: {feed: {file: no.txt, optional: true}}\nnetwork: {ingress: {default: accept, rules: [{drop: {from: $feed}}]}}\n";
    let dir = dir(&[("p.yaml", policy)]);
    let loaded = load(&dir.path().join("p.yaml")).unwrap();
    assert_eq!((loaded.set_files[0].elements, loaded.set_files[0].sha256.as_deref()), (0, None));
    assert!(loaded.warnings[0].message.contains("does not exist"));
}

#[test]
fn more_elements_than_the_limit() {
    let line = "10.0.0.1\n";
    let dir = dir(&[("p.yaml", WITH_FEED), ("feed.txt", line.repeat(4_000_001).as_bytes())]);
    refused(&dir.path().join("p.yaml"), "more than 4000000 elements");
}
