//! Every field of the network half on real packets: hit, missed, negated, absent, unknown, and the counters of each.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::{
    daemon::{Counters, Daemon},
    netns::{CLIENT, Direction, Frame, SERVER, STRANGER, Site, Tap, Transport, Wire},
};

/// How long counters and frames may take to arrive: they are counted in the receiving side's softirq.
const PATIENCE: Duration = Duration::from_secs(10);

/// The policy that each case's own replaces.
const OPEN: &str = "ringfence: 1
network: {interfaces: [eth0], ingress: {default: accept}, egress: {default: accept}}
";

/// A condition and the packets that it is tried on.
struct Case {
    /// Further conditions that the field needs.
    beside: &'static str,
    /// The field.
    field: &'static str,
    /// Its value in the policy.
    value: &'static str,
    /// Packets that match.
    hits: Vec<Frame>,
    /// Packets that match the negation.
    misses: Vec<Frame>,
    /// Packets without the field: they match neither.
    absent: Vec<Frame>,
}

fn case(field: &'static str, value: &'static str, hits: Vec<Frame>, misses: Vec<Frame>) -> Case {
    Case { beside: "", field, value, hits, misses, absent: Vec::new() }
}

impl Case {
    fn beside(self, beside: &'static str) -> Self {
        Self { beside, ..self }
    }

    fn absent(self, absent: Vec<Frame>) -> Self {
        Self { absent, ..self }
    }

    /// Two rules that only count show whether the condition and its negation match; the third decides.
    fn policy(&self, direction: Direction) -> String {
        let Self { beside, field, value, .. } = self;
        // A truth value has no `not`: its negation is the other value.
        let negation = if *value == "true" { "false".to_owned() } else { format!("{{not: {value}}}") };
        let rules = format!(
            "    default: accept
    rules:
      - count: {{{beside}{field}: {value}}}
        name: plain
      - count: {{{beside}{field}: {negation}}}
        name: negated
      - drop: {{{beside}{field}: {value}}}
        name: decides
"
        );
        let (ingress, egress) = match direction {
            Direction::ToServer => (rules.as_str(), "    default: accept\n"),
            Direction::FromServer => ("    default: accept\n", rules.as_str()),
        };
        format!("ringfence: 1\nnetwork:\n  interfaces: [eth0, \"wan*\"]\n  ingress:\n{ingress}  egress:\n{egress}")
    }
}

/// Sends frames one way and reads what they were counted as.
struct Bench {
    site: Site,
    daemon: Daemon,
    direction: Direction,
    wire: Wire,
    // Never marked.
    plain: Wire,
    receiver: Tap,
}

impl Bench {
    fn new(direction: Direction) -> Result<Self> {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, OPEN)?;
        let receiver = match direction {
            Direction::ToServer => Tap::new(&site.server, "eth0")?,
            Direction::FromServer => Tap::new(&site.client, "eth0")?,
        };
        Ok(Self { wire: site.wire(direction)?, plain: site.wire(direction)?, site, daemon, direction, receiver })
    }

    fn run(&self, cases: Vec<Case>) -> Result<()> {
        for case in cases {
            self.daemon.apply(&case.policy(self.direction))?;
            let name = format!("{}{}: {}", case.beside, case.field, case.value);
            for (frames, lines) in [
                (&case.hits, &["plain", "decides"][..]),
                (&case.misses, &["negated", "default"]),
                (&case.absent, &["default"]),
            ] {
                for frame in frames {
                    self.judged(frame, lines).with_context(|| format!("{name} on {frame:?}"))?;
                }
            }
        }
        Ok(())
    }

    /// Sends a frame: it must be counted by exactly these lines, and arrive unless the rule that drops is one of them.
    fn judged(&self, frame: &Frame, lines: &[&str]) -> Result<()> {
        self.counts(frame, lines)?;
        if self.receiver_is_behind_the_judge()? {
            let arrived = self.arrived(&frame.packet()?)?;
            ensure!(arrived != lines.contains(&"decides"), "the verdict was not carried out: arrived {arrived}");
        }
        Ok(())
    }

    /// Sends a frame: it must be counted by exactly these lines.
    fn counts(&self, frame: &Frame, lines: &[&str]) -> Result<()> {
        let packet = frame.packet()?;
        let before = self.daemon.counters()?;
        self.wire.send(frame)?;
        // A later fragment's ports cannot be known, which is counted whether or not a rule reads them.
        let unknown = frame.fragment.is_some_and(|offset| offset > 0).then_some("unknown");
        let names = lines.iter().copied().chain(unknown);
        let mut expected: Vec<_> = names.map(|name| (name.to_owned(), 1, packet.len() as u64)).collect();
        expected.sort();
        let mut counted = Vec::new();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            counted = self.counted(&before)?;
            if counted.len() >= expected.len() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        ensure!(counted == expected, "counted {counted:?} instead of {expected:?}");
        Ok(())
    }

    /// The direction's lines that counted since, without the floor: the hosts' own neighbour discovery goes on.
    fn counted(&self, before: &Counters) -> Result<Vec<(String, u64, u64)>> {
        let chain = self.chain();
        let lines = self.daemon.counters()?.since(before).into_iter();
        let mut counted: Vec<_> = lines
            .filter(|(of, name, ..)| of == chain && !name.starts_with("floor/"))
            .map(|(_, name, packets, bytes)| (name, packets, bytes))
            .collect();
        counted.sort();
        Ok(counted)
    }

    fn chain(&self) -> &'static str {
        match self.direction {
            Direction::ToServer => "ingress",
            Direction::FromServer => "egress",
        }
    }

    /// A packet socket sees frames before TC judges their arrival, and after XDP does.
    fn receiver_is_behind_the_judge(&self) -> Result<bool> {
        if self.direction == Direction::FromServer {
            return Ok(true);
        }
        Ok(self.daemon.ingress()?.how.as_deref() == Some("xdp-native"))
    }

    /// Whether the packet arrived. A frame sent after it, which no rule drops, says when to stop waiting.
    fn arrived(&self, packet: &[u8]) -> Result<bool> {
        let mut last = udp(CLIENT.0, SERVER.0, 9, 9);
        last.payload = format!("last {:?}", Instant::now()).into_bytes();
        let mut seen = false;
        // Not IP: accepted by the default, whatever the rule says.
        let mut bytes = last.bytes(self.site.client.mac("eth0")?, [0xff; 6])?;
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
        self.plain.send_bytes(&bytes)?;
        let end = self.receiver.receive(PATIENCE, |frame| {
            seen |= frame.ends_with(packet);
            frame.ends_with(&last.payload)
        })?;
        end.context("the frame that ends the wait did not arrive")?;
        Ok(seen)
    }
}

fn udp(from: impl Into<IpAddr>, to: impl Into<IpAddr>, source: u16, destination: u16) -> Frame {
    Frame::new(from.into(), to.into(), Transport::Udp { source, destination })
}

fn tcp(flags: u8) -> Frame {
    Frame::new(CLIENT.0.into(), SERVER.0.into(), Transport::Tcp { source: 4000, destination: 80, flags })
}

fn icmp(from: impl Into<IpAddr>, to: impl Into<IpAddr>, kind: u8, code: u8) -> Frame {
    Frame::new(from.into(), to.into(), Transport::Icmp { kind, code })
}

fn other(protocol: u8) -> Frame {
    Frame::new(CLIENT.0.into(), SERVER.0.into(), Transport::Other(protocol))
}

/// A usual packet of each family.
fn v4() -> Frame {
    udp(CLIENT.0, SERVER.0, 4000, 53)
}

fn v6() -> Frame {
    udp(CLIENT.1, SERVER.1, 4000, 53)
}

fn with(mut frame: Frame, change: impl FnOnce(&mut Frame)) -> Frame {
    change(&mut frame);
    frame
}

fn vlans(ids: &[u16]) -> Frame {
    with(v4(), |frame| frame.vlans = ids.to_vec())
}

fn dscp(frame: Frame, value: u8) -> Frame {
    with(frame, |frame| frame.dscp = value)
}

/// A packet of this many bytes from its network header on.
fn length(frame: Frame, bytes: usize) -> Frame {
    let headers = if frame.from.is_ipv4() { 28 } else { 48 };
    with(frame, |frame| frame.payload = vec![0; bytes - headers])
}

fn fragment(frame: Frame, offset: u16) -> Frame {
    with(frame, |frame| (frame.fragment, frame.payload) = (Some(offset), vec![0x46; 64]))
}

fn addresses() -> Vec<Case> {
    vec![
        case("from", "192.0.2.66", vec![udp(STRANGER.0, SERVER.0, 1, 2)], vec![v4(), v6()]),
        case("from", "192.0.2.64/26", vec![udp(STRANGER.0, SERVER.0, 1, 2)], vec![v4()]),
        case("from", "192.0.2.60-192.0.2.66", vec![udp(STRANGER.0, SERVER.0, 1, 2)], vec![v4()]),
        case("from", "\"2001:db8::66\"", vec![udp(STRANGER.1, SERVER.1, 1, 2)], vec![v4(), v6()]),
        case("from", "\"2001:db8::40/122\"", vec![udp(STRANGER.1, SERVER.1, 1, 2)], vec![v6()]),
        case("to", "192.0.2.0/31", vec![v4()], vec![udp(CLIENT.0, STRANGER.0, 1, 2), v6()]),
        case("to", "[192.0.2.1, \"2001:db8::1\"]", vec![v4(), v6()], vec![udp(CLIENT.1, STRANGER.1, 1, 2)]),
    ]
}

fn transports() -> Vec<Case> {
    vec![
        case("proto", "udp", vec![v4(), v6()], vec![tcp(2), icmp(CLIENT.0, SERVER.0, 8, 0), other(253)]),
        case("proto", "[253, sctp]", vec![other(253)], vec![v4(), v6(), tcp(2)]),
        case("port", "domain", vec![v4(), v6()], vec![udp(CLIENT.0, SERVER.0, 53, 54)])
            .beside("proto: [tcp, udp], ")
            .absent(vec![icmp(CLIENT.0, SERVER.0, 8, 0), other(253)]),
        case("port", "[50-52, 54-60000]", vec![udp(CLIENT.1, SERVER.1, 53, 54), tcp(2)], vec![v4()])
            .beside("proto: [tcp, udp], "),
        case("source_port", "4000", vec![v4(), tcp(16)], vec![udp(CLIENT.1, SERVER.1, 53, 4000)])
            .beside("proto: [tcp, udp], ")
            .absent(vec![other(253)]),
        case("flags", "syn", vec![tcp(2), tcp(18)], vec![tcp(16), tcp(1)]).beside("proto: tcp, ").absent(vec![v4()]),
        case("flags", "\"syn,!ack\"", vec![tcp(2), tcp(3)], vec![tcp(18), tcp(16)]).beside("proto: tcp, "),
        case(
            "icmp",
            "echo-request",
            vec![icmp(CLIENT.0, SERVER.0, 8, 0), icmp(CLIENT.1, SERVER.1, 128, 0)],
            vec![icmp(CLIENT.0, SERVER.0, 0, 0), icmp(CLIENT.1, SERVER.1, 129, 0)],
        )
        .absent(vec![v4(), tcp(2)]),
        case("icmp", "3/1", vec![icmp(CLIENT.0, SERVER.0, 3, 1)], vec![icmp(CLIENT.0, SERVER.0, 3, 3)])
            .beside("proto: icmp, ")
            .absent(vec![icmp(CLIENT.1, SERVER.1, 3, 1), v4()]),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        case("interface", "eth0", vec![v4(), v6()], vec![]).beside("proto: udp, "),
        case("interface", "\"wan*\"", vec![], vec![v4(), v6()]).beside("proto: udp, "),
        case("family", "ipv6", vec![v6()], vec![v4(), tcp(2)]),
        case("dscp", "46", vec![dscp(v4(), 46), dscp(v6(), 46)], vec![v4(), v6(), dscp(v4(), 45)]),
        case(
            "length",
            "100-200",
            vec![length(v4(), 100), length(v6(), 200)],
            vec![length(v4(), 99), length(v6(), 201)],
        ),
        case("fragment", "true", vec![fragment(v4(), 0), fragment(v4(), 8), fragment(v6(), 8)], vec![v4(), v6()]),
        case("vlan", "10", vec![vlans(&[10]), vlans(&[10, 20])], vec![vlans(&[11]), vlans(&[20, 10])])
            .absent(vec![v4()]),
        case("vlan", "100-200", vec![vlans(&[100]), vlans(&[200])], vec![vlans(&[99]), vlans(&[201])]),
    ]
}

#[test]
fn addresses_of_arriving_packets() -> Result<()> {
    Bench::new(Direction::ToServer)?.run(addresses())
}

#[test]
fn transports_of_arriving_packets() -> Result<()> {
    Bench::new(Direction::ToServer)?.run(transports())
}

#[test]
fn headers_of_arriving_packets() -> Result<()> {
    Bench::new(Direction::ToServer)?.run(headers())
}

#[test]
fn addresses_of_leaving_packets() -> Result<()> {
    Bench::new(Direction::FromServer)?.run(addresses())
}

#[test]
fn transports_of_leaving_packets() -> Result<()> {
    Bench::new(Direction::FromServer)?.run(transports())
}

#[test]
fn headers_of_leaving_packets() -> Result<()> {
    Bench::new(Direction::FromServer)?.run(headers())
}

#[test]
fn marks_of_arriving_packets() -> Result<()> {
    // A packet loses its mark on the way into another network namespace, as on any wire.
    let cases = vec![case("mark", "0", vec![v4()], vec![]), case("mark", "1-0xffffffff", vec![], vec![v4(), v6()])];
    Bench::new(Direction::ToServer)?.run(cases)
}

#[test]
fn marks_of_leaving_packets() -> Result<()> {
    let bench = Bench::new(Direction::FromServer)?;
    let cases = |hits, misses| vec![case("mark", "0x10-0x1f", hits, misses)];
    bench.wire.mark(0x1f)?;
    bench.run(cases(vec![v4(), v6()], vec![]))?;
    bench.wire.mark(0x20)?;
    bench.run(cases(vec![], vec![v4(), v6()]))
}

#[test]
fn a_later_fragment_is_refused_by_port_rules_and_accepted_by_none() -> Result<()> {
    let bench = Bench::new(Direction::ToServer)?;
    let policy = |verb: &str, default: &str| {
        format!(
            "ringfence: 1\nnetwork:\n  interfaces: [eth0]\n  ingress:\n    default: {default}\n    stateless: true\n    \
             rules:\n      - {verb}: {{proto: udp, port: 7}}\n        name: decides\n  egress: {{default: accept}}\n"
        )
    };
    // Port 53 is known not to be 7 in the first fragment, and unknown in the later one.
    for (verb, default, later) in [("drop", "accept", "decides"), ("accept", "drop", "default")] {
        bench.daemon.apply(&policy(verb, default))?;
        bench.counts(&fragment(v4(), 8), &[later])?;
        bench.counts(&fragment(v6(), 8), &[later])?;
        // Behind a first one that is known it goes where that one went.
        bench.counts(&fragment(v4(), 0), &["default"])?;
        bench.counts(&fragment(v4(), 16), &["default"])?;
    }
    Ok(())
}
