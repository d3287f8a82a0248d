use ringfence_abi::chain::{PROTO_TCP, VLAN_ABSENT};

use super::*;
use crate::fields::FAMILY_V6;

const CLIENT: ([u64; 2], u32) = ([0xcb00_7105_0000_0000, 0], 40_000);
const SERVER: ([u64; 2], u32) = ([0xc000_0201_0000_0000, 0], 80);

fn ends(from: ([u64; 2], u32), to: ([u64; 2], u32), proto: u32) -> Endpoints {
    Endpoints { src: from.0, dst: to.0, sport: from.1, dport: to.1, proto, family: FAMILY_V4 }
}

/// A segment of one of the two, with its sequence number, what it acknowledges and its length with SYN and FIN.
fn segment(from_client: bool, egress: bool, flags: u32, seq: u32, ack: u32, length: u32) -> Segment {
    let mut key = Key::default();
    let (from, to) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let from_low = u32::from(key_of(&ends(from, to, parse::TCP), &mut key));
    Segment {
        proto: parse::TCP,
        flags,
        seq,
        ack,
        end: seq.wrapping_add(length),
        message: MESSAGE_OTHER,
        egress: u32::from(egress),
        from_low,
    }
}

fn begun(first: &Segment) -> Connection {
    let mut connection = Connection::default();
    begin(&mut connection, &Fields { proto: PROTO_TCP + first.flags, ..Fields::default() }, first);
    update(&mut connection, false, first);
    connection
}

/// Feeds a packet as the programs do; its state, and whether it proved the connection.
fn feed(connection: &mut Connection, pool: &mut Pool, segment: &Segment) -> (u32, bool) {
    let state = state(connection, *pool, segment);
    let promoted = promotes(connection, *pool, segment);
    update(connection, promoted || *pool == Pool::Established, segment);
    if promoted {
        *pool = Pool::Established;
    }
    (state, promoted)
}

#[test]
fn both_directions_have_one_key_and_a_query_the_other_way_another() {
    let (mut there, mut back) = (Key::default(), Key::default());
    let (a, b) = (key_of(&ends(CLIENT, SERVER, 6), &mut there), key_of(&ends(SERVER, CLIENT, 6), &mut back));
    assert_eq!(there, back);
    assert_ne!(a, b);
    // Equal addresses are told apart by their ports.
    let near = (SERVER.0, 7);
    assert_ne!(key_of(&ends(near, SERVER, 17), &mut there), key_of(&ends(SERVER, near, 17), &mut back));
    assert_eq!(there, back);
    let query = |from: [u64; 2], to: [u64; 2], kind: u32| {
        let mut key = Key::default();
        key_of(&ends((from, 0x5246), (to, kind), parse::ICMP), &mut key);
        key
    };
    let asked = query(CLIENT.0, SERVER.0, 8);
    assert_eq!(query(SERVER.0, CLIENT.0, 8 | QUERY_REPLY), asked, "the answer");
    assert_ne!(query(SERVER.0, CLIENT.0, 8), asked, "asked back");
    assert_ne!(query(CLIENT.0, SERVER.0, 8 | QUERY_REPLY), asked, "an answer that nobody asked for");
}

#[test]
fn a_handshake_that_came_in_is_proven_by_the_last_of_its_segments() {
    let syn = segment(true, false, SYN, 100, 0, 1);
    let (mut connection, mut pool) = (begun(&syn), Pool::In);
    assert_eq!(feed(&mut connection, &mut pool, &syn), (STATE_NEW, false), "a SYN that is sent again");
    assert_eq!(
        feed(&mut connection, &mut pool, &segment(false, true, SYN | ACK, 9000, 101, 1)),
        (STATE_ESTABLISHED, false)
    );
    let guess = segment(true, false, ACK, 101, 9002, 0);
    assert_eq!(feed(&mut connection, &mut pool, &guess), (STATE_NEW, false), "who guesses proves nothing");
    assert_eq!(connection.state, TCP_SYN);
    assert_eq!(feed(&mut connection, &mut pool, &segment(true, false, ACK, 101, 9001, 0)), (STATE_ESTABLISHED, true));
    assert_eq!(connection.state, TCP_ESTABLISHED);
}

#[test]
fn a_handshake_of_this_host_is_proven_by_who_knows_its_number() {
    let syn = segment(false, true, SYN, 7, 0, 1);
    let (mut connection, mut pool) = (begun(&syn), Pool::Out);
    let spoofed = segment(true, false, SYN | ACK, 1, 9999, 1);
    assert_eq!(feed(&mut connection, &mut pool, &spoofed), (STATE_ESTABLISHED, false), "passes, proves nothing");
    assert_eq!(feed(&mut connection, &mut pool, &segment(true, false, SYN | ACK, 1, 8, 1)), (STATE_ESTABLISHED, true));
    // Simultaneous open: both sides begin, both acknowledge.
    let (mut both, mut pool) = (begun(&syn), Pool::Out);
    assert_eq!(feed(&mut both, &mut pool, &segment(true, false, SYN, 50, 0, 1)), (STATE_ESTABLISHED, false));
    assert!(!feed(&mut both, &mut pool, &segment(false, true, SYN | ACK, 7, 51, 1)).1);
    assert!(feed(&mut both, &mut pool, &segment(true, false, SYN | ACK, 50, 8, 1)).1);
}

#[test]
fn what_is_found_under_way_is_proven_by_an_acknowledgement_of_what_left() {
    let data = segment(false, true, ACK, 500, 60, 10);
    let (mut connection, mut pool) = (begun(&data), Pool::Out);
    assert!(connection.flags & FLAG_PICKED_UP != 0);
    assert_eq!(feed(&mut connection, &mut pool, &segment(true, false, ACK, 60, 505, 0)), (STATE_ESTABLISHED, false));
    assert_eq!(feed(&mut connection, &mut pool, &segment(true, false, ACK, 60, 510, 0)), (STATE_ESTABLISHED, true));
}

fn established() -> (Connection, Pool) {
    let (mut connection, mut pool) = (begun(&segment(true, false, SYN, 100, 0, 1)), Pool::In);
    feed(&mut connection, &mut pool, &segment(false, true, SYN | ACK, 9000, 101, 1));
    feed(&mut connection, &mut pool, &segment(true, false, ACK, 101, 9001, 0));
    assert_eq!(pool, Pool::Established);
    (connection, pool)
}

#[test]
fn fin_of_both_sides_ends_a_connection() {
    let (mut connection, mut pool) = established();
    feed(&mut connection, &mut pool, &segment(false, true, FIN | ACK, 9001, 101, 1));
    assert_eq!(connection.state, TCP_CLOSING);
    feed(&mut connection, &mut pool, &segment(true, false, ACK, 101, 9002, 0));
    assert_eq!(connection.state, TCP_CLOSING);
    feed(&mut connection, &mut pool, &segment(true, false, FIN | ACK, 101, 9002, 1));
    assert_eq!(connection.state, TCP_CLOSED);
    // Its last acknowledgement still belongs to it, and a SYN is one of a new connection.
    assert_eq!(state(&connection, pool, &segment(false, true, ACK, 9002, 102, 0)), STATE_ESTABLISHED);
    assert_eq!(state(&connection, pool, &segment(true, false, SYN, 77, 0, 1)), STATE_NEW);
}

#[test]
fn a_reset_counts_by_its_number() {
    for (seq, then) in
        [(101, TCP_CLOSED), (102, TCP_CLOSING), (101 + (1 << 21), TCP_ESTABLISHED), (100, TCP_ESTABLISHED)]
    {
        let (mut connection, mut pool) = established();
        // The server has acknowledged up to 101.
        feed(&mut connection, &mut pool, &segment(false, true, ACK, 9001, 101, 0));
        feed(&mut connection, &mut pool, &segment(true, false, RST, seq, 0, 0));
        assert_eq!(connection.state, then, "{seq}");
    }
}

#[test]
fn flags_that_do_not_go_together_are_invalid_everywhere() {
    let (connection, pool) = established();
    for flags in [0, FIN, SYN | FIN, SYN | RST, FIN | RST, SYN | FIN | ACK, FIN | SYN | RST | ACK] {
        let bad = segment(true, false, flags, 101, 9001, 0);
        assert_eq!(state(&connection, pool, &bad), STATE_INVALID, "{flags}");
        assert_eq!(state_without(&bad), STATE_INVALID, "{flags}");
    }
}

#[test]
fn without_a_connection_only_what_may_begin_one_is_new() {
    let come = |flags| state_without(&segment(true, false, flags, 1, 1, 0));
    let go = |flags| state_without(&segment(false, true, flags, 1, 1, 0));
    assert_eq!((come(SYN), come(ACK)), (STATE_NEW, STATE_NEW));
    for flags in [SYN | ACK, RST, RST | ACK, FIN | ACK] {
        // A half-open connection may have been pushed out: what leaves is judged as new.
        assert_eq!((come(flags), go(flags)), (STATE_INVALID, STATE_NEW), "{flags}");
    }
    let other = |proto, message, egress| state_without(&Segment { proto, message, egress, ..Segment::default() });
    assert_eq!(other(parse::UDP, MESSAGE_OTHER, 0), STATE_NEW);
    assert_eq!(other(parse::ICMP, MESSAGE_REQUEST, 0), STATE_NEW);
    assert_eq!(
        (other(parse::ICMP, MESSAGE_REPLY, 0), other(parse::ICMP, MESSAGE_REPLY, 1)),
        (STATE_INVALID, STATE_NEW)
    );
}

#[test]
fn datagrams_are_proven_only_where_this_host_began() {
    let mut key = Key::default();
    let from_low = u32::from(key_of(&ends(CLIENT, SERVER, 17), &mut key));
    let datagram = |from_client: bool, egress: u32| Segment {
        proto: parse::UDP,
        egress,
        from_low: if from_client { from_low } else { 1 - from_low },
        ..Segment::default()
    };
    let (mut came, mut pool) = (begun(&datagram(true, 0)), Pool::In);
    assert_eq!(feed(&mut came, &mut pool, &datagram(true, 0)), (STATE_NEW, false));
    assert_eq!(feed(&mut came, &mut pool, &datagram(false, 1)), (STATE_ESTABLISHED, false));
    assert_eq!(feed(&mut came, &mut pool, &datagram(true, 0)), (STATE_ESTABLISHED, false));
    let (mut left, mut pool) = (begun(&datagram(false, 1)), Pool::Out);
    assert_eq!(feed(&mut left, &mut pool, &datagram(true, 0)), (STATE_ESTABLISHED, true));
    assert_eq!(left.state, UDP_REPLIED);
}

#[test]
fn the_first_packet_is_put_together_again() {
    for (from, to, v6) in [(CLIENT, SERVER, false), (SERVER, CLIENT, true)] {
        let mut given = Fields::default();
        given.reset(VLAN_ABSENT);
        (given.src, given.dst, given.sport, given.dport) = (from.0, to.0, from.1, to.1);
        given.family = if v6 { FAMILY_V6 } else { FAMILY_V4 };
        (given.proto, given.length, given.ip) = (PROTO_TCP + SYN, 60, given.family << 7);
        given.ethertype = if v6 { 0x86dd } else { 0x0800 };
        let deep = Deep { proto: parse::TCP, ..Deep::default() };
        let mut name = Key::default();
        let from_low = key(&given, &deep, &mut name).unwrap();
        let mut segment = Segment::default();
        segment.take(&given, &deep, false, from_low);
        let mut connection = Connection::default();
        begin(&mut connection, &given, &segment);
        let mut again = Fields::default();
        first(&name, &connection, &mut again);
        assert_eq!(again, given);
    }
}
