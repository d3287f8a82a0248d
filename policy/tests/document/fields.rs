use super::{accepts, refuses, with_rule};

#[track_caller]
fn each(field: &str, accepted: &[&str], refused: &[(&str, &str)]) {
    for value in accepted {
        accepts(&with_rule(&format!("drop: {{{}}}", field.replace('%', value))));
    }
    for (value, fragment) in refused {
        refuses(&with_rule(&format!("drop: {{{}}}", field.replace('%', value))), fragment);
    }
}

#[test]
fn addresses() {
    let accepted = [
        "10.0.0.1",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.0.0.1-10.0.0.9",
        "\"::1\"",
        "\"2001:db8::/32\"",
        "\"::/0\"",
        "\"fe80::1-fe80::9\"",
        "2001:db8::1",
        "$nets",
        "$jail",
        "$local",
        "$gateways",
        "$resolvers",
        "[10.0.0.1, $nets, $jail]",
        "{not: 10.0.0.0/8}",
        "{not: [$nets, $jail]}",
        "{in: $nets, not: 10.1.0.0/16}",
        "\"::ffff:10.0.0.1\"",
    ];
    let refused = [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("\"2001:db8::1/32\"", "bits set past its prefix length"),
        ("10.0.0.0/33", "no valid prefix length, 0 to 32"),
        ("10.0.0.0/08", "no valid prefix length"),
        ("\"::/129\"", "0 to 128"),
        ("10.0.0", "expected an address"),
        ("010.0.0.1", "leading zeros"),
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("\"10.0.0.1-::1\"", "different families"),
        ("\"fe80::1%eth0\"", "no zone"),
        ("example.com", "names are not looked up"),
        ("any", "leave the key out"),
        ("local", "did you mean `$local`?"),
        ("\"!10.0.0.1\"", "to negate, write `{not: ...}`"),
        ("$net", "did you mean `nets`?"),
        ("$ports", "`$ports` does not hold addresses"),
        ("$files", "does not hold addresses"),
        ("[10.0.0.1, {not: 10.0.0.2}]", "inside a list"),
        ("{nt: 10.0.0.1}", "did you mean `not`?"),
        ("[[10.0.0.1]]", "expected a value in the list, found a list"),
        ("{not: {not: 10.0.0.1}}", "expected a value or a list of values, found a mapping"),
        ("{}", "an empty mapping"),
        ("[]", "an empty list"),
        ("", "has no value"),
        ("~", "YAML's null"),
    ];
    each("from: %", &accepted, &refused);
    each("to: %", &accepted, &refused);
}

#[test]
fn protocols() {
    let refused = [
        ("tcpp", "did you mean `tcp`?"),
        ("256", "the largest is 255"),
        ("06", "begins with a zero"),
        ("6.0", "expected a number"),
        ("-1", "unknown protocol"),
        ("{not: 0-255}", "expected a number"),
        ("$ports", "a set cannot be used here"),
    ];
    each("proto: %", &["tcp", "udp", "icmpv6", "47", "0x2f", "[tcp, 17]", "{not: tcp}", "\"6\""], &refused);
}

#[test]
fn ports() {
    let accepted = [
        "22",
        "ssh",
        "0",
        "65535",
        "8000-8100",
        "0x50",
        "[22, https, 1-9, $ports]",
        "$ports",
        "{not: 22}",
        "{in: 1-9, not: 5}",
    ];
    let refused = [
        ("65536", "the largest is 65535"),
        ("022", "octal"),
        ("1_000", "without `_`"),
        ("22:22", "expected a number, found `22:22`"),
        ("9-1", "ends before it begins"),
        ("1-2-3", "expected a number"),
        ("sssh", "did you mean `ssh`?"),
        ("qqqqqqqqqq", "expected a port, a range or a service"),
        ("1e3", "expected a number"),
        ("true", "expected a port"),
        ("$nets", "does not hold ports"),
        ("$jail", "does not hold ports"),
        ("$nothing", "there is no set `$nothing`"),
        ("{in: 22, not: 22}", "leaves no value"),
        ("80,443", "a comma ends the value"),
    ];
    each("proto: tcp, port: %", &accepted, &refused);
    each("proto: udp, source_port: %", &accepted, &refused);
}

#[test]
fn ports_need_a_protocol_with_ports() {
    for field in ["port", "source_port"] {
        refuses(&with_rule(&format!("drop: {{{field}: 22}}")), &format!("`{field}` without `proto`"));
        refuses(&with_rule(&format!("drop: {{proto: icmp, {field}: 22}}")), "`proto` says icmp");
        refuses(&with_rule(&format!("drop: {{proto: [tcp, gre], {field}: 22}}")), "`proto` says gre");
        refuses(
            &with_rule(&format!("drop: {{proto: {{not: tcp}}, {field}: 22}}")),
            "ports are read for tcp, udp and sctp",
        );
        accepts(&with_rule(&format!("drop: {{proto: [tcp, udp, sctp], {field}: 22}}")));
        accepts(&with_rule(&format!("drop: {{flags: syn, {field}: 22}}")));
    }
}

#[test]
fn interfaces() {
    let refused = [
        ("a/b", "names have no `/`"),
        ("abcdefghijklmnop", "at most 15 bytes"),
        ("\"\"", "expected a name such as"),
        ("$nets", "no sets of interfaces"),
        ("\"eth[0-9]\"", "`*` and `?` only"),
        ("\"a b\"", "blanks"),
    ];
    each("interface: %", &["eth0", "\"wg*\"", "[eth0, \"eth?\"]", "{not: lo}", "eth0.10", "br-lan"], &refused);
}

#[test]
fn an_interface_outside_the_list_is_an_error() {
    let policy = |glob: &str| {
        format!(
            "ringfence: 1\nnetwork:\n  interfaces: [eth0, \"wg*\"]\n  ingress:\n    default: accept\n    rules:\n      - drop: {{interface: {glob}}}\n"
        )
    };
    for inside in ["eth0", "wg1", "\"wg*\"", "\"*\"", "\"eth?\"", "\"w*1\"", "{not: eth0}"] {
        accepts(&policy(inside));
    }
    for outside in ["eth1", "\"veth*\"", "[eth0, lo]", "{not: lo}", "\"?\"", "w"] {
        refuses(&policy(outside), "is not among `interfaces`");
    }
}

#[test]
fn families_and_fragments() {
    each(
        "family: %",
        &["ipv4", "ipv6", "[ipv4, ipv6]", "{not: ipv6}"],
        &[
            ("ipv5", "unknown family `ipv5`"),
            ("IPv4", "unknown family"),
            ("4", "unknown family"),
            ("{not: [ipv4, ipv6]}", "leaves no value"),
        ],
    );
    each(
        "fragment: %",
        &["true", "false"],
        &[
            ("yes", "expected `true` or `false`, found `yes`"),
            ("\"true\"", "remove the quotes"),
            ("1", "expected `true`"),
            ("[true]", "found a list"),
        ],
    );
}

#[test]
fn tcp_flags() {
    let refused = [
        ("sin", "unknown TCP flag `sin`"),
        ("\"syn,!syn\"", "both set and not set"),
        ("\"syn,\"", "unknown TCP flag"),
        ("2", "unknown TCP flag"),
        ("syn,!ack", "reads `!ack` as a tag"),
    ];
    each("flags: %", &["syn", "\"syn,!ack\"", "[syn, fin]", "{not: syn}", "\"syn, ack\"", "\"!syn\""], &refused);
    each("proto: tcp, flags: %", &["syn"], &[]);
    refuses(&with_rule("drop: {proto: udp, flags: syn}"), "`flags` needs `proto: tcp`");
    refuses(&with_rule("drop: {proto: [tcp, udp], flags: syn}"), "`flags` needs `proto: tcp`");
}

#[test]
fn icmp() {
    each(
        "icmp: %",
        &["echo-request", "[echo-request, packet-too-big]", "{not: redirect}"],
        &[
            ("echo", "did you mean `echo-reply`?"),
            ("8", "by number means different things"),
            ("ping", "expected an ICMP message"),
        ],
    );
    each(
        "proto: icmp, icmp: %",
        &["8", "3/1", "0x8", "[8, echo-reply]", "{not: 8}", "echo-request"],
        &[
            ("256", "largest is 255"),
            ("3/256", "largest is 255"),
            ("3/", "expected a number"),
            ("3/1/2", "expected a number"),
            ("packet-too-big", "`icmp` needs `proto: icmpv6`"),
        ],
    );
    each(
        "proto: icmpv6, icmp: %",
        &["128", "packet-too-big"],
        &[("fragmentation-needed", "`icmp` needs `proto: icmp`")],
    );
    refuses(&with_rule("drop: {proto: [icmp, tcp], icmp: 8}"), "and nothing else");
    refuses(&with_rule("drop: {proto: tcp, icmp: echo-request}"), "`icmp` needs");
    refuses(&with_rule("drop: {flags: syn, icmp: echo-request}"), "exclude each other");
}

#[test]
fn numbers() {
    for (field, max) in [("vlan", 4095_u32), ("dscp", 63), ("mark", u32::MAX), ("length", 65_535)] {
        let refused = [
            (format!("{}", u64::from(max) + 1), format!("the largest is {max}")),
            ("x".into(), "expected a number, found `x`".into()),
            ("01".into(), "octal".into()),
            ("1:30".into(), "expected a number".into()),
            (format!("{{not: 0-{max}}}"), "leaves no value".into()),
            ("-1".into(), "expected a number".into()),
            ("+1".into(), "expected a number".into()),
            ("0o17".into(), "expected a number".into()),
        ];
        let refused: Vec<(&str, &str)> =
            refused.iter().map(|(value, fragment)| (value.as_str(), fragment.as_str())).collect();
        each(
            &format!("{field}: %"),
            &["0", "5", "0x1f", "[1, 3-5]", "{not: 7}", "{in: 1-9, not: 5}", &max.to_string()],
            &refused,
        );
    }
}

#[test]
fn unknown_fields_name_the_nearest() {
    for (written, meant) in [
        ("form", "from"),
        ("protocol", "proto"),
        ("src", "from"),
        ("dport", "port"),
        ("sport", "source_port"),
        ("iface", "interface"),
        ("vlna", "vlan"),
    ] {
        refuses(&with_rule(&format!("drop: {{{written}: 1}}")), &format!("did you mean `{meant}`?"));
    }
    refuses(&with_rule("drop: {name: x}"), "stands beside the verb");
    refuses(&with_rule("drop: {path: /etc}"), "belongs to the host half");
}
