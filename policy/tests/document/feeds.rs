//! Each format with good, bad and hostile contents.

use std::fs;

use ringfence_policy::{
    BadLines, Column, Copies, Feed, Format, Loaded, Report, SetFile, SourceText, check_set_file, diagnostic::render,
    load_texts, load_texts_with_copies,
};

fn feed(format: Format) -> Feed {
    Feed { format, ..Feed::default() }
}

fn csv(column: u32) -> Feed {
    Feed { column: Some(Column::Number(column)), ..feed(Format::Csv) }
}

fn check(feed: &Feed, contents: impl AsRef<[u8]>) -> Result<SetFile, Report> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed");
    fs::write(&path, contents).unwrap();
    check_set_file("s", &path, feed)
}

/// Elements taken, lines refused, and the first refusal.
#[track_caller]
fn counts(feed: &Feed, contents: impl AsRef<[u8]>) -> (usize, usize, String) {
    let file = check(feed, contents).unwrap_or_else(|report| panic!("{report}"));
    (file.elements, file.refused, file.refusal.unwrap_or_default())
}

#[track_caller]
fn refused(feed: &Feed, contents: impl AsRef<[u8]>, fragment: &str) {
    let report = check(feed, contents).unwrap_err().to_string();
    assert!(report.contains(fragment), "no {fragment:?}:\n{report}");
}

/// Loads a policy whose set `s` is in the file `feed`, with these contents and further keys.
fn load(keys: &str, contents: &str) -> Result<Loaded, Report> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("feed"), contents).unwrap();
    load_texts(vec![SourceText { name: "p.yaml".into(), text: policy(keys), base: directory.path().to_owned() }])
}

fn policy(keys: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n  s: {{file: feed{keys}}}\nnetwork:\n  ingress:\n    default: accept\n    rules:\n      - drop: {{from: $s}}\n"
    )
}

#[track_caller]
fn holds(loaded: &Loaded, inside: &[&str], outside: &[&str]) {
    let rule = &loaded.policy.ingress.as_ref().unwrap().rules[0];
    let ranges = &rule.matches.from[0].any_of.as_ref().unwrap().fixed[0];
    for address in inside {
        assert!(ranges.contains(address.parse().unwrap()), "{address} is not in it");
    }
    for address in outside {
        assert!(!ranges.contains(address.parse().unwrap()), "{address} is in it");
    }
}

#[test]
fn a_copy_is_read_in_place_of_a_file_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("kept-copy");
    fs::write(&copy, "192.0.2.0/24\n198.51.100.7\n").unwrap();
    let texts = || vec![SourceText { name: "p.yaml".into(), text: policy(""), base: directory.path().to_owned() }];
    assert!(load_texts_with_copies(texts(), &Copies::new()).is_err());
    let named = directory.path().join("feed");
    let loaded = load_texts_with_copies(texts(), &Copies::from([(named.clone(), copy.clone())])).unwrap();
    let file = &loaded.set_files[0];
    assert_eq!((&file.path, &file.read_from, file.elements), (&named, &copy, 2));
}

#[test]
fn a_column_of_a_csv_file() {
    let text =
        "# list\n\"first, seen\",10.0.0.1,80\n2026-01-01,\"10.0.0.2/32\",\"a \"\"b\"\"\"\r\n\nx, 2001:db8::/32 ,y\n";
    assert_eq!(counts(&csv(2), text), (3, 0, String::new()));
    let header = Feed { header: true, ..csv(1) };
    assert_eq!(counts(&header, "\u{feff}ip,port\n10.0.0.1,80\n").0, 1);
    let named = Feed { column: Some(Column::Name("dst_ip".into())), separator: Some(';'), ..feed(Format::Csv) };
    assert_eq!(counts(&named, "seen;\"dst_ip\";port\n1;10.0.0.1;80\n2;10.0.0.2;81\n").0, 2);
    let loaded = load(", format: csv, column: ip, header: true", "ip\n10.0.0.1\n10.0.0.3\n").unwrap();
    holds(&loaded, &["10.0.0.1", "10.0.0.3"], &["10.0.0.2"]);
    refused(&named, "seen;ip\n1;10.0.0.1\n", "the header in line 1 has no column `dst_ip`, it has `seen`, `ip`");
}

#[test]
fn bad_lines_of_a_feed_are_counted_and_shown_and_cost_nothing_else() {
    let text = "10.0.0.1,a\nnonsense,b\n10.0.0.2\n,c\n\"10.0.0.9,d\n10.0.0.3,\n10.0.0.4,x\n";
    let (taken, refused_lines, why) = counts(&csv(1), text);
    assert_eq!((taken, refused_lines), (4, 3));
    assert!(why.starts_with("line 2: expected an address"), "{why}");
    let loaded = load(", format: csv, column: 1", text).unwrap();
    holds(&loaded, &["10.0.0.1", "10.0.0.4"], &["10.0.0.9"]);
    let shown = render(&loaded.warnings, false);
    for fragment in ["3 of 7 lines cannot be used; line 2:", "nonsense,b", "a quote that is opened and not closed"] {
        assert!(shown.contains(fragment), "no {fragment:?}:\n{shown}");
    }
    let places: Vec<u32> = loaded.warnings.iter().filter_map(|one| Some(one.place.as_ref()?.line)).collect();
    assert_eq!(places, [2, 4, 5]);
    // The policy may have it otherwise, both ways.
    let report = load(", format: csv, column: 1, bad_lines: error", text).unwrap_err();
    assert_eq!(report.diagnostics.len(), 3, "{report}");
    assert!(load("", "10.0.0.1\nnonsense\n10.0.0.2\n").is_err());
    let loaded = load(", bad_lines: skip", "10.0.0.1\nnonsense\n10.0.0.2\n").unwrap();
    assert_eq!((loaded.set_files[0].elements, loaded.set_files[0].refused), (2, 1));
}

#[test]
fn a_feed_of_which_most_cannot_be_used_is_refused() {
    refused(&csv(1), "a\nb\n10.0.0.1\n", "2 of 3 lines cannot be used, as `csv` at least");
    refused(&csv(2), "10.0.0.1\n", "the line has 1 column, column 2 is read");
    refused(&feed(Format::SpamhausJson), "10.0.0.0/8\n10.0.0.1\n", "not a");
    refused(&feed(Format::Ipset), "10.0.0.1\n", "expected `create` or `add`");
    refused(&feed(Format::Nft), "10.0.0.1\n", "holds no address");
    let many: String = (0..1000).map(|number| format!("bad{number}\n")).fold(String::new(), |all, line| all + &line);
    let report = check(&csv(1), many).unwrap_err();
    assert_eq!(report.diagnostics.len(), 22, "twenty lines, one that counts the others, one for the whole");
}

#[test]
fn spamhaus_drop() {
    let text = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                {\"cidr\":\"2001:db8::/32\",\"sblid\":\"x\",\"rir\":\"arin\"}\n\
                {\"type\":\"metadata\",\"timestamp\":1747836245,\"size\":2,\"records\":2,\"copyright\":\"c\"}\n";
    assert_eq!(counts(&feed(Format::SpamhausJson), text), (2, 0, String::new()));
    holds(&load(", format: spamhaus-json", text).unwrap(), &["1.10.31.255", "2001:db8::1"], &["1.10.32.0"]);
    let bad = "{\"cidr\":\"10.0.0.0/8\"}\n{\"cidr\":7}\n{\"cidr\":\"11.0.0.0/8\"}\n{\"cidr\":\"12.0.0.0/8\"}\n{\"sblid\":\"x\"}\n{\"cidr\"\n";
    let (taken, lines, why) = counts(&feed(Format::SpamhausJson), bad);
    assert_eq!((taken, lines), (3, 3));
    assert!(why.starts_with("line 2: not an object with a text as `cidr`"), "{why}");
    let cut = text.replace("\"records\":2", "\"records\":9");
    refused(&feed(Format::SpamhausJson), cut, "its metadata say 9 records, it has 2: the file is cut off");
    let deep = format!("{}\n{{\"cidr\":\"10.0.0.0/8\"}}\n", "[".repeat(4000));
    assert_eq!(counts(&feed(Format::SpamhausJson), deep).1, 1);
}

#[test]
fn ipset_save() {
    let text = "create bad hash:net family inet hashsize 1024 maxelem 65536 timeout 3600 comment bucketsize 12 initval 0x1\n\
                add bad 10.0.0.0/8 timeout 3590 comment \"a b timeout\"\nadd bad 192.0.2.1 timeout 0 packets 1 bytes 2\n\
                add bad 198.51.100.1-198.51.100.3 -exist\n";
    let loaded = load(", format: ipset", text).unwrap();
    holds(&loaded, &["10.9.9.9", "192.0.2.1", "198.51.100.2"], &["192.0.2.2", "198.51.100.4"]);
    let shown = render(&loaded.warnings, false);
    assert!(shown.contains("1 elements have a timeout; in this set they stay"), "{shown}");
    let six = "create six hash:ip family inet6\nadd six 2001:db8::1\n";
    assert_eq!(counts(&feed(Format::Ipset), six).0, 1);
    holds(
        &load(", format: ipset", "create n hash:ip family inet netmask 24\nadd n 10.1.2.0\n").unwrap(),
        &["10.1.2.255"],
        &["10.1.3.0"],
    );
    for kind in ["hash:ip,port", "hash:net,iface", "hash:mac", "bitmap:port", "list:set"] {
        let text = format!("create x {kind}\nadd x 10.0.0.1\n");
        refused(&feed(Format::Ipset), text, &format!("line 1: the set `x` is of type `{kind}`, whose elements"));
    }
    refused(&feed(Format::Ipset), "create x hash:ip bitmask 255.0.255.0\n", "a `bitmask`");
    let exception = "create x hash:net\nadd x 10.0.0.0/8\nadd x 10.1.0.0/16 nomatch\n";
    refused(&feed(Format::Ipset), exception, "line 3: `10.1.0.0/16` is an exception");
}

#[test]
fn one_set_of_a_file_with_several_is_named() {
    let text =
        "create a hash:ip\ncreate p bitmap:port range 0-9\nadd a 10.0.0.1\nadd p 1\ncreate b hash:ip\nadd b 10.0.0.2\n";
    let named = |format, name: &str| Feed { name: Some(name.into()), ..feed(format) };
    assert_eq!(counts(&named(Format::Ipset, "a"), text), (1, 0, String::new()));
    assert_eq!(counts(&named(Format::Ipset, "b"), text).0, 1);
    refused(&named(Format::Ipset, "c"), text, "there is no set `c` in it; it has `a`, `b`, `p`");
    refused(&feed(Format::Ipset), "add a 10.0.0.1\nadd b 10.0.0.2\n", "several sets (`a`, `b`): say by `name:`");
    let rules = "table inet t {\n set ports { type inet_service\n elements = { 22, 80 } }\n set a {\n type ipv4_addr\n elements = { 10.0.0.1 } }\n}\n";
    assert_eq!(counts(&named(Format::Nft, "a"), rules), (1, 0, String::new()));
    refused(&feed(Format::Nft), rules, "the set `ports` is of type `inet_service`");
    refused(&named(Format::Nft, "z"), rules, "there is no set `z`");
}

const NFT: &str = "table inet filter {\n\tset bad {\n\t\ttype ipv4_addr\n\t\tflags interval,timeout\n\t\tcomment \"a } b\"\n\
    \t\telements = { 10.0.0.0/8, 192.0.2.1 timeout 1h expires 59m57s410ms,\n\t\t\t     198.51.100.1-198.51.100.9 comment \"x, y } z # n\" counter packets 0 bytes 0 }\n\t}\n\
    \tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport { 22, 80 } accept\n\t}\n}\n";

#[test]
fn nft_elements() {
    assert_eq!(counts(&feed(Format::Nft), NFT), (3, 0, String::new()));
    holds(&load(", format: nft", NFT).unwrap(), &["10.1.1.1", "192.0.2.1", "198.51.100.9"], &["0.0.0.22", "0.0.0.80"]);
    for script in [
        "elements = { 10.0.0.1, 2001:db8::/32 }",
        "define bad = { 10.0.0.1,\n # one\n 10.0.0.2 }\n",
        "add element inet filter bad { 10.0.0.1, 10.0.0.2, }\n",
        "table inet t { set bad { type ipv6_addr; elements={::1,::2} } }",
    ] {
        assert_eq!(counts(&feed(Format::Nft), script), (2, 0, String::new()), "{script}");
    }
    let bad = "elements = { 10.0.0.1, 10.0.0.2 . 80,\n10.0.0.3 : accept, $other, 10.0.0.4, 10.0.0.5, 10.0.0.6 }";
    let (taken, lines, why) = counts(&feed(Format::Nft), bad);
    assert_eq!((taken, lines, why.as_str()), (4, 3, "line 1: an element of several values, expected an address alone"));
}

#[test]
fn hostile_nft_files() {
    refused(&feed(Format::Nft), "elements = { 10.0.0.1,", "the file is cut off");
    refused(&feed(Format::Nft), &NFT[..NFT.len() - 3], "the file is cut off");
    refused(&feed(Format::Nft), "elements = { 10.0.0.1 } }", "closes nothing");
    refused(&feed(Format::Nft), "elements = { 10.0.0.1, { 10.0.0.2 } }", "in a list of elements");
    refused(&feed(Format::Nft), "{".repeat(1000), "more than 32 blocks");
    refused(
        &feed(Format::Nft),
        "set a { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 80 } }",
        "of type `ipv4_addr . inet_service`",
    );
    // One line of a megabyte, a word of another, bytes that are no text.
    let list: String =
        (0..100_000_u32).fold(String::new(), |all, n| all + &format!("10.{}.{}.{},", n >> 16, n >> 8 & 255, n & 255));
    assert_eq!(counts(&feed(Format::Nft), format!("elements = {{ {list} }}")).0, 100_000);
    let long = format!("elements = {{ 10.0.0.1, {}, 10.0.0.2 }}", "1".repeat(1 << 20));
    assert_eq!(counts(&feed(Format::Nft), long).1, 1);
    assert_eq!(counts(&feed(Format::Nft), b"elements = { 10.0.0.1, \xff\0\xfe, 10.0.0.2 }").1, 1);
    // A quote that is not closed ends with its line: the element is refused, what follows is read.
    let open = "elements = { 10.0.0.1 comment \"x,\n 10.0.0.2,\n 10.0.0.3 }";
    assert_eq!(counts(&feed(Format::Nft), open), (1, 1, "line 1: unknown option `10.0.0.2`".into()));
}

#[test]
fn hostile_lines_of_a_feed() {
    let mut bytes = b"10.0.0.1,a\n\xff\xfe,b\n10.0.0.2,\0\n".to_vec();
    bytes.extend(b"1".repeat(100_000));
    bytes.extend(b"\n10.0.0.3\n10.0.0.4\n10.0.0.5\n");
    let (taken, lines, why) = counts(&csv(1), &bytes);
    assert_eq!((taken, lines, why.as_str()), (4, 3, "line 2: line 2 is not UTF-8 text"));
    // After a long line the numbers of the others are still right.
    bytes.extend(b"oops\n");
    let report = check(&Feed { bad_lines: Some(BadLines::Error), ..csv(1) }, b"10.0.0.1\noops\n").unwrap_err();
    assert_eq!(report.diagnostics[0].place.as_ref().unwrap().line, 2);
    refused(&csv(1), b"", "holds no address");
}

#[test]
fn mistakes_in_the_keys() {
    for (keys, fragment) in [
        (", format: cvs", "did you mean `csv`?"),
        (", format: csv", "`format: csv` needs `column`"),
        (", format: csv, column: 0", "counted from 1"),
        (", format: csv, column: 1001", "the largest is 1000"),
        (", format: csv, column: 1, separator: x", "expected `,`, `;`, `|` or `tab`"),
        (", format: csv, column: [1]", "expected a column"),
        (", column: 1", "`column` is for `format: csv`, this file is `plain`"),
        (", header: true", "`header` is for `format: csv`"),
        (", format: csv, column: 1, name: x", "`name` is for `format: ipset` and `format: nft`"),
        (", bad_lines: ignore", "unknown value of `bad_lines`"),
        (", shrink: yes", "expected `true` or `false`"),
        (", colum: 1", "did you mean `column`?"),
    ] {
        let report = load(keys, "10.0.0.1\n").unwrap_err().to_string();
        assert!(report.contains(fragment), "no {fragment:?}:\n{report}");
    }
    assert!(load(", shrink: true, optional: true", "10.0.0.1\n").unwrap().set_files[0].feed.shrink);
}
