//! The answers to rejected packets, byte for byte, against a library that shares no code with Ringfence.

mod scene;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ringfence_tests::netns::{Frame, Transport};
use scene::{ETHERNET, FAR, HOOKS, Hook, Scene, is_answer, numbered, pairs, prohibited, reset, syn, told, udp};

#[test]
fn a_segment_is_reset_as_a_closed_port_would() -> Result<()> {
    for hook in HOOKS {
        let mut scene = Scene::new(hook)?;
        for (from, to) in pairs() {
            for (flags, payload, expected) in [
                (2, 0, reset(0, Some(0x8000_0001))),
                (2, 11, reset(0, Some(0x8000_000c))),
                (3, 11, reset(0, Some(0x8000_000d))),
                (0, 300, reset(0, Some(0x8000_012c))),
                (16, 0, reset(77, None)),
                (24, 1400, reset(77, None)),
                (18, 0, reset(77, None)),
                (17, 1, reset(77, None)),
            ] {
                let mut frame = Frame::new(from, to, Transport::Tcp { source: 4000, destination: 80, flags });
                frame.payload = vec![0x52; payload];
                let sent = numbered(&scene, &frame, 0x8000_0000, 77)?;
                let expected = told(&scene, &frame, &sent, expected)?;
                scene.answered(&sent, &expected).with_context(|| format!("{hook:?} {from} flags {flags}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn other_packets_are_told_of_by_icmp_that_quotes_them() -> Result<()> {
    for hook in HOOKS {
        let mut scene = Scene::new(hook)?;
        for (from, to) in pairs() {
            // 548 and 1,232 bytes are quoted, 28 and 48 of them headers; lengths that are no multiple of four are padded.
            for payload in [0, 1, 2, 3, 4, 464, 484, 485, 519, 520, 521, 1000, 1183, 1184, 1185, 1400] {
                let mut frame = Frame::new(from, to, udp());
                frame.payload = (0..payload).map(|i: u32| (i * 7 + 3) as u8).collect();
                let sent = scene.bytes(&frame)?;
                let expected = told(&scene, &frame, &sent, prohibited(from.is_ipv4()))?;
                scene.answered(&sent, &expected).with_context(|| format!("{hook:?} {from} {payload} bytes"))?;
            }
            let echo = Transport::Icmp { kind: if from.is_ipv4() { 8 } else { 128 }, code: 0 };
            for transport in [echo, Transport::Other(253)] {
                let frame = Frame::new(from, to, transport);
                let sent = scene.bytes(&frame)?;
                let expected = told(&scene, &frame, &sent, prohibited(from.is_ipv4()))?;
                scene.answered(&sent, &expected).with_context(|| format!("{hook:?} {transport:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn tags_stay_on_the_frame() -> Result<()> {
    for (hook, tags) in [(Hook::Xdp, vec![10]), (Hook::Xdp, vec![10, 20]), (Hook::Tc, vec![10])] {
        let mut scene = Scene::new(hook)?;
        for (from, to) in pairs() {
            for (transport, answer) in [(syn(), reset(0, Some(10))), (udp(), prohibited(from.is_ipv4()))] {
                let mut frame = Frame::new(from, to, transport);
                frame.vlans.clone_from(&tags);
                let sent = scene.bytes(&frame)?;
                let expected = told(&scene, &frame, &sent, answer)?;
                scene.answered(&sent, &expected).with_context(|| format!("{hook:?} {tags:?} {from}"))?;
            }
        }
    }
    Ok(())
}

/// TC holds the outer tag beside the frame, and the kernel does not resize a frame that begins with the inner one.
#[test]
fn an_answer_that_cannot_be_made_is_counted() -> Result<()> {
    let mut scene = Scene::new(Hook::Tc)?;
    for (from, to) in pairs() {
        let before = scene.daemon.counters()?;
        let mut frame = Frame::new(from, to, udp());
        frame.vlans = vec![10, 20];
        let sent = scene.bytes(&frame)?;
        scene.silent(&sent)?;
        scene.daemon.counted(&before, "ingress", "reject/failed", 1)?;
    }
    Ok(())
}

#[test]
fn what_must_not_be_answered_is_dropped_in_silence() -> Result<()> {
    for hook in HOOKS {
        let mut scene = Scene::new(hook)?;
        let (v4, v6) = (pairs()[0], pairs()[1]);
        let mut frames = Vec::new();
        for (from, to) in [v4, v6] {
            for flags in [4, 20, 6] {
                frames.push(Frame::new(from, to, Transport::Tcp { source: 4000, destination: 80, flags }));
            }
            for offset in [1, 185] {
                frames.push(Frame { fragment: Some(offset), ..Frame::new(from, to, udp()) });
            }
            frames.push(Frame { fragment: Some(0), ..Frame::new(from, to, syn()) });
        }
        for kind in [3, 4, 5, 11, 12, 77] {
            // Code 4 of type 3 is path-MTU discovery, on the floor.
            frames.push(Frame::new(v4.0, v4.1, Transport::Icmp { kind, code: 1 }));
        }
        for kind in [1, 3, 4, 77, 137] {
            frames.push(Frame::new(v6.0, v6.1, Transport::Icmp { kind, code: 0 }));
        }
        let any = |v4: [u8; 4]| IpAddr::from(Ipv4Addr::from(v4));
        for from in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255; 4], [192, 0, 2, 1]] {
            frames.push(Frame::new(any(from), v4.1, syn()));
        }
        for to in [[224, 0, 0, 251], [239, 255, 255, 250], [255; 4]] {
            frames.push(Frame::new(v4.0, any(to), udp()));
        }
        for from in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, "ff02::1".parse()?] {
            frames.push(Frame::new(from.into(), v6.1, udp()));
        }
        frames.push(Frame::new(v6.0, "ff02::fb".parse()?, udp()));
        for frame in frames {
            let sent = scene.bytes(&frame)?;
            scene.silent(&sent).with_context(|| format!("{frame:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn frames_to_other_stations_are_not_answered() -> Result<()> {
    for hook in ETHERNET {
        let mut scene = Scene::new(hook)?;
        let packet = Frame::new(pairs()[0].0, pairs()[0].1, syn());
        let mut other = scene.mac;
        other[5] ^= 1;
        for (source, destination) in [(FAR, [0xff; 6]), (FAR, [1, 0, 0x5e, 0, 0, 1]), (FAR, other), ([3; 6], scene.mac)]
        {
            let sent = packet.bytes(source, destination)?;
            scene.silent(&sent).with_context(|| format!("{hook:?} {source:02x?} to {destination:02x?}"))?;
        }
    }
    Ok(())
}

#[test]
fn over_its_rate_a_cpu_is_silent_and_counts() -> Result<()> {
    for hook in ETHERNET {
        let scene = Scene::new(hook)?;
        let before = scene.daemon.counters()?;
        let sent = scene.bytes(&Frame::new(pairs()[0].0, pairs()[0].1, syn()))?;
        let (mut frames, mut received) = (0, 0);
        let start = Instant::now();
        let count = |name| {
            Ok::<_, anyhow::Error>(
                scene.daemon.counters()?.packets("ingress", name)? - before.packets("ingress", name)?,
            )
        };
        for _ in 0..100 {
            for _ in 0..1000 {
                scene.far.send(&sent)?;
                frames += 1;
                // The device holds few: they are taken out at once.
                scene.far.receive(Duration::from_micros(1), |frame| {
                    received += u64::from(is_answer(hook, frame));
                    false
                })?;
            }
            if count("reject/limited")? > 0 {
                break;
            }
        }
        let milliseconds = start.elapsed().as_millis() as u64 + 1;
        scene.far.receive(Duration::from_millis(300), |frame| {
            received += u64::from(is_answer(hook, frame));
            false
        })?;
        let (answered, limited) = (count("reject/answered")?, count("reject/limited")?);
        let failed = count("reject/failed")?;
        ensure!(
            limited > 0 && failed == 0,
            "{hook:?}: of {frames}: {answered} answered, {limited} limited, {failed} failed"
        );
        ensure!(answered + limited == frames && count("default")? == frames, "{frames}: {answered} + {limited}");
        ensure!(received == answered, "{hook:?}: {received} answers arrived of {answered}");
        let processors = std::thread::available_parallelism()?.get() as u64;
        ensure!(answered <= processors * (51 + milliseconds), "{answered} in {milliseconds} ms");
    }
    Ok(())
}

#[test]
fn in_audit_nothing_is_answered() -> Result<()> {
    for hook in ETHERNET {
        // What goes on to the stack gets no answer from there either.
        let scene = Scene::with(hook, "      - reject: {proto: 253}\n        mode: audit\n        name: audits\n")?;
        scene.daemon.ctl(["mode", "audit"])?.done()?;
        let before = scene.daemon.counters()?;
        for transport in [syn(), udp(), Transport::Other(253)] {
            scene.far.send(&scene.bytes(&Frame::new(pairs()[0].0, pairs()[0].1, transport))?)?;
        }
        scene.daemon.counted(&before, "ingress", "default", 3)?;
        scene.daemon.counted(&before, "ingress", "audits", 1)?;
        scene.daemon.counted(&before, "ingress", "reject/answered", 0)?;
        let is_ours = |frame: &[u8]| {
            let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
            // The stack's own answers are "port" and "protocol unreachable"; and without a listener, its reset.
            matches!(packet.transport, Some(TransportSlice::Icmpv4(icmp)) if icmp.code_u8() == 13)
                && matches!(packet.net, Some(NetSlice::Ipv4(_)))
        };
        ensure!(scene.far.receive(Duration::from_millis(300), is_ours)?.is_none(), "{hook:?} answered in audit");
    }
    Ok(())
}
