//! `tests:`: what the policy's author expects of it.

use std::collections::BTreeSet;

use ringfence_abi::counter::{FLOOR_NAMES, MALFORMED_NAMES};

use super::fields::Context;
use super::host;
use super::node::{parse, text};
use super::outline::{self, CHAINS};
use super::packets::Packet;
use super::problems::{Complaint, quote};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use crate::model::{AccessTest, Chain, HostChain, PacketTest};

/// Reads all tests. `None` in `chains`: the policy has no such chain, or it is wrong.
pub(super) fn read<'n, 't>(
    tests: &[&'n Node<'t>],
    chains: [Option<&Chain>; 2],
    host: &HostChain,
    written: [bool; 2],
    cx: &mut Context<'_, 'n, 't>,
) -> (Vec<PacketTest>, Vec<AccessTest>) {
    let names: [BTreeSet<&str>; 2] = chains
        .map(|chain| chain.into_iter().flat_map(|chain| chain.rules.iter().map(|rule| rule.name.as_str())).collect());
    let mut reader = Reader { cx, names, host, accesses: Vec::new(), chains, written };
    let packets = tests.iter().filter_map(|test| reader.test(test)).collect();
    (packets, reader.accesses)
}

struct Reader<'r, 'c, 'n, 't> {
    cx: &'r mut Context<'c, 'n, 't>,
    names: [BTreeSet<&'r str>; 2],
    host: &'r HostChain,
    accesses: Vec<AccessTest>,
    chains: [Option<&'r Chain>; 2],
    written: [bool; 2],
}

impl<'n, 't> Reader<'_, '_, 'n, 't> {
    fn test(&mut self, node: &'n Node<'t>) -> Option<PacketTest> {
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                let complaint =
                    Complaint::new(format!("expected a test with `packet` and `expect`, found {}", node.describe()));
                self.cx.problems.error(node.span, complaint);
            }
            return None;
        };
        let at = entries.first().map_or(node.span, |entry| entry.at);
        let (mut packet, mut expect, mut rule, mut access) = (None, None, None, None);
        for Entry { key, at, value } in entries {
            match &**key {
                "packet" => packet = Some((*at, value)),
                "access" => access = Some((*at, value)),
                "expect" => expect = Some(value),
                "rule" => rule = text(value, "a rule's name", self.cx.problems).map(|name| (name, value.span)),
                "comment" => {
                    text(value, "a comment", self.cx.problems);
                }
                _ => {
                    let known = ["packet", "access", "expect", "rule", "comment"];
                    self.cx.problems.error(*at, Complaint::unknown("key in a test", key, known));
                }
            }
        }
        if expect.is_none() {
            self.cx
                .problems
                .error(at, Complaint::new("a test without `expect`").help("say the verdict, as in `expect: drop`"));
        }
        match (packet, access) {
            (Some((_, packet)), None) => self.packet_test(at, packet, expect?, rule),
            (None, Some((at, access))) => {
                let test = self.access_test(at, access, expect, rule);
                self.accesses.extend(test);
                None
            }
            (None, None) => {
                self.cx.problems.error(at, "a test without `packet`");
                None
            }
            (Some(_), Some((at, _))) => {
                self.cx.problems.error(at, "`access` and `packet` in one test");
                None
            }
        }
    }

    fn access_test(
        &mut self,
        at: Span,
        node: &'n Node<'t>,
        expect: Option<&Node<'_>>,
        rule: Option<(&str, Span)>,
    ) -> Option<AccessTest> {
        let expect = expect.map(|expect| parse(expect, "a verdict", host::verdict, self.cx.problems));
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                let complaint = Complaint::new(format!("expected an access' fields, found {}", node.describe()));
                let help = "as in `{op: read, path: /etc/shadow, uid: 1000}`";
                self.cx.problems.error(node.span, complaint.help(help));
            }
            return None;
        };
        let before = self.cx.problems.errors();
        let mut access = host::AccessBuilder::default();
        for Entry { key, at, value } in entries {
            let values = match &value.kind {
                Kind::List(items) if matches!(&**key, "gid" | "ancestor") => items.as_slice(),
                _ => std::slice::from_ref(value),
            };
            for value in values {
                let Some(text) = text(value, "a single value", self.cx.problems) else { continue };
                let result = access.set(key, text, self.cx);
                let unknown = result.as_ref().is_err_and(|complaint| complaint.message.starts_with("unknown field"));
                self.cx.problems.check(if unknown { *at } else { value.span }, result);
            }
        }
        let access = access.finish(at, self.cx);
        if let Some((name, span)) = rule
            && !["default", "continuations"].contains(&name)
            && !self.host.rules.iter().any(|rule| rule.name == name)
        {
            let known = self.host.rules.iter().map(|rule| rule.name.as_str());
            let help = self.cx.problems.nearest(name, known);
            self.cx.problems.error(span, Complaint { help, ..format!("`host` has no rule {}", quote(name)).into() });
        }
        if self.cx.problems.errors() > before {
            return None;
        }
        let rule = rule.map(|(name, _)| name.to_owned());
        Some(AccessTest { at: at.location(), access: access?, expect: expect??, rule })
    }

    fn packet_test(
        &mut self,
        at: Span,
        packet: &'n Node<'t>,
        expect: &Node<'_>,
        rule: Option<(&str, Span)>,
    ) -> Option<PacketTest> {
        let expect = parse(expect, "a verdict", outline::default, self.cx.problems);
        let Kind::Map(entries) = &packet.kind else {
            if !matches!(packet.kind, Kind::Bad) {
                let complaint = Complaint::new(format!("expected a packet's fields, found {}", packet.describe()));
                self.cx.problems.error(
                    packet.span,
                    complaint.help("as in `{interface: eth0, proto: tcp, to: 192.0.2.1, port: 22}`"),
                );
            }
            return None;
        };
        let before = self.cx.problems.errors();
        let mut packet = Packet::default();
        for Entry { key, at, value } in entries {
            let Some(text) = text(value, "a single value", self.cx.problems) else { continue };
            let result = packet.set(key, text, value.span);
            let span = if result.as_ref().is_err_and(|complaint| complaint.message.starts_with("unknown field")) {
                *at
            } else {
                value.span
            };
            self.cx.problems.check(span, result);
        }
        packet.finish(self.cx.problems);
        self.cx.check_packet(&packet);
        let direction = usize::from(packet.egress);
        if !self.written[direction] {
            self.cx.problems.error(at, format!("a test about `{}`, which the policy does not have", CHAINS[direction]));
        }
        if let Some((name, span)) = rule
            && self.chains[direction].is_some()
        {
            self.known_rule(name, span, direction);
        }
        if self.cx.problems.errors() > before {
            return None;
        }
        let rule = rule.map(|(name, _)| name.to_owned());
        Some(PacketTest { at: at.location(), ingress: !packet.egress, packet: packet.fields, expect: expect?, rule })
    }

    fn known_rule(&mut self, name: &str, span: Span, direction: usize) {
        let known = match name.split_once('/') {
            Some(("floor", line)) => FLOOR_NAMES.contains(&line),
            Some(("malformed", reason)) => MALFORMED_NAMES.contains(&reason),
            _ => ["default", "dynamic", "continuations", "tables", "unknown"].contains(&name),
        };
        if known || self.names[direction].contains(name) {
            return;
        }
        let message = format!("`{}` has no rule {}", CHAINS[direction], quote(name));
        let help = self.cx.problems.nearest(name, self.names[direction].iter().copied());
        self.cx.problems.error(span, Complaint { help, ..message.into() });
    }
}
