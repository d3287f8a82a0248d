//! Names for ports, protocols, ICMP messages and TCP flags. A built-in table, so that a policy means the same
//! everywhere, whatever `/etc/services` says.

/// Service names and their ports, by name. The same number serves TCP, UDP and SCTP.
pub const SERVICES: &[(&str, u16)] = &[
    ("amqp", 5672),
    ("amqps", 5671),
    ("bgp", 179),
    ("bootpc", 68),
    ("bootps", 67),
    ("chargen", 19),
    ("daytime", 13),
    ("dhcp-client", 68),
    ("dhcp-server", 67),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("discard", 9),
    ("dns", 53),
    ("dns-over-tls", 853),
    ("docker", 2375),
    ("docker-tls", 2376),
    ("domain", 53),
    ("domain-s", 853),
    ("echo", 7),
    ("elasticsearch", 9200),
    ("epmd", 4369),
    ("etcd-client", 2379),
    ("etcd-server", 2380),
    ("finger", 79),
    ("ftp", 21),
    ("ftp-data", 20),
    ("ftps", 990),
    ("ftps-data", 989),
    ("git", 9418),
    ("gopher", 70),
    ("h323", 1720),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("https-alt", 8443),
    ("ident", 113),
    ("ike", 500),
    ("imap", 143),
    ("imaps", 993),
    ("influxdb", 8086),
    ("ipp", 631),
    ("ipsec-nat-t", 4500),
    ("irc", 6667),
    ("ircs", 6697),
    ("isakmp", 500),
    ("iscsi", 3260),
    ("kafka", 9092),
    ("kerberos", 88),
    ("kpasswd", 464),
    ("kubelet", 10250),
    ("kubernetes-api", 6443),
    ("l2tp", 1701),
    ("ldap", 389),
    ("ldaps", 636),
    ("llmnr", 5355),
    ("mdns", 5353),
    ("memcached", 11211),
    ("microsoft-ds", 445),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("mqtts", 8883),
    ("ms-sql", 1433),
    ("mysql", 3306),
    ("nbd", 10809),
    ("netbios-dgm", 138),
    ("netbios-ns", 137),
    ("netbios-ssn", 139),
    ("nfs", 2049),
    ("nntp", 119),
    ("nntps", 563),
    ("ntp", 123),
    ("openvpn", 1194),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("pptp", 1723),
    ("printer", 515),
    ("prometheus", 9090),
    ("puppet", 8140),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("rdp", 3389),
    ("redis", 6379),
    ("rpcbind", 111),
    ("rsync", 873),
    ("rtmp", 1935),
    ("rtsp", 554),
    ("salt-publish", 4505),
    ("salt-request", 4506),
    ("sip", 5060),
    ("sips", 5061),
    ("smb", 445),
    ("smtp", 25),
    ("smtps", 465),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("socks", 1080),
    ("squid", 3128),
    ("ssdp", 1900),
    ("ssh", 22),
    ("stun", 3478),
    ("submission", 587),
    ("submissions", 465),
    ("sunrpc", 111),
    ("svn", 3690),
    ("syslog", 514),
    ("syslog-tls", 6514),
    ("tacacs", 49),
    ("telnet", 23),
    ("tftp", 69),
    ("time", 37),
    ("turn", 3478),
    ("turns", 5349),
    ("vnc", 5900),
    ("vxlan", 4789),
    ("whois", 43),
    ("wireguard", 51820),
    ("x11", 6000),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
    ("zabbix-agent", 10050),
    ("zabbix-server", 10051),
];

/// Protocol names and their numbers.
pub const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("eigrp", 88),
    ("esp", 50),
    ("etherip", 97),
    ("gre", 47),
    ("hip", 139),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ipcomp", 108),
    ("ipip", 4),
    ("ipv6", 41),
    ("isis", 124),
    ("l2tp-ip", 115),
    ("ospf", 89),
    ("pim", 103),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// Protocols whose ports Ringfence reads: TCP, UDP, SCTP.
pub const WITH_PORTS: [u8; 3] = [6, 17, 132];
/// TCP.
pub const TCP: u8 = 6;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// An ICMP message: its type, and its code if the name says one.
pub type Message = (u8, Option<u8>);

/// ICMP messages by name: what they are in IPv4 and in IPv6.
pub const ICMP_MESSAGES: &[(&str, Option<Message>, Option<Message>)] = &[
    ("address-mask-reply", Some((18, None)), None),
    ("address-mask-request", Some((17, None)), None),
    ("address-unreachable", None, Some((1, Some(3)))),
    ("admin-prohibited", Some((3, Some(13))), Some((1, Some(1)))),
    ("destination-unreachable", Some((3, None)), Some((1, None))),
    ("echo-reply", Some((0, None)), Some((129, None))),
    ("echo-request", Some((8, None)), Some((128, None))),
    ("fragmentation-needed", Some((3, Some(4))), None),
    ("host-prohibited", Some((3, Some(10))), None),
    ("host-unreachable", Some((3, Some(1))), None),
    ("mld-done", None, Some((132, None))),
    ("mld-query", None, Some((130, None))),
    ("mld-report", None, Some((131, None))),
    ("mld2-report", None, Some((143, None))),
    ("neighbor-advertisement", None, Some((136, None))),
    ("neighbor-solicitation", None, Some((135, None))),
    ("network-prohibited", Some((3, Some(9))), None),
    ("network-unreachable", Some((3, Some(0))), None),
    ("no-route", None, Some((1, Some(0)))),
    ("packet-too-big", None, Some((2, None))),
    ("parameter-problem", Some((12, None)), Some((4, None))),
    ("port-unreachable", Some((3, Some(3))), Some((1, Some(4)))),
    ("protocol-unreachable", Some((3, Some(2))), None),
    ("reassembly-timeout", Some((11, Some(1))), Some((3, Some(1)))),
    ("redirect", Some((5, None)), Some((137, None))),
    ("router-advertisement", Some((9, None)), Some((134, None))),
    ("router-solicitation", Some((10, None)), Some((133, None))),
    ("source-quench", Some((4, None)), None),
    ("time-exceeded", Some((11, None)), Some((3, None))),
    ("timestamp-reply", Some((14, None)), None),
    ("timestamp-request", Some((13, None)), None),
    ("ttl-exceeded", Some((11, Some(0))), Some((3, Some(0)))),
];

/// TCP flags and their bits in byte 13 of the header.
pub const TCP_FLAGS: &[(&str, u8)] =
    &[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ece", 64), ("cwr", 128)];

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// The port of a service.
#[must_use]
pub fn service(name: &str) -> Option<u16> {
    find(SERVICES, name)
}

/// The number of a protocol.
#[must_use]
pub fn protocol(name: &str) -> Option<u8> {
    find(PROTOCOLS, name)
}

/// The name of a protocol, for listings.
#[must_use]
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// The bit of a TCP flag.
#[must_use]
pub fn tcp_flag(name: &str) -> Option<u8> {
    find(TCP_FLAGS, name)
}

/// An ICMP message in IPv4 and in IPv6.
#[must_use]
pub fn icmp_message(name: &str) -> Option<(Option<Message>, Option<Message>)> {
    ICMP_MESSAGES.iter().find(|(known, ..)| *known == name).map(|(_, v4, v6)| (*v4, *v6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_hold_no_name_twice() {
        assert!(SERVICES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(PROTOCOLS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ICMP_MESSAGES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn names_resolve() {
        assert_eq!((service("ssh"), service("https"), service("nothing")), (Some(22), Some(443), None));
        assert_eq!((protocol("tcp"), protocol("icmpv6"), protocol_name(132)), (Some(6), Some(58), Some("sctp")));
        assert_eq!(icmp_message("echo-request"), Some((Some((8, None)), Some((128, None)))));
        assert_eq!(tcp_flag("cwr"), Some(128));
    }
}
