//! Ringfence at work: two network namespaces, the real daemon, real packets, and what a person sees of it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::{
    daemon::Daemon,
    netns::{Cable, Frame, Host, Tap, Transport, Tun},
    show::{ctl, paint, say},
};

const POLICY: &str = include_str!("../../../examples/web-server.yaml");
/// The example leaves the interfaces to the machine; a tap device counts only when it is named.
const INTERFACES: &str = "ringfence: 1\nnetwork: {interfaces: [eth0]}\n";

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
const VISITOR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const VISITOR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 5);
const ADMIN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SCANNER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// How long an answer may take; without one the packet was dropped.
const PATIENCE: Duration = Duration::from_millis(400);
/// Ports that the scan tries.
const SCANNED: u16 = 1000;

fn main() -> Result<()> {
    Demo::new()?.tell()
}

struct Demo {
    server: Arc<Host>,
    outside: Host,
    daemon: Daemon,
    _cable: Cable,
}

impl Demo {
    fn new() -> Result<Self> {
        let (server, outside) = (Arc::new(Host::new()?), Host::new()?);
        let cable = Cable::new(Tun::ethernet(&server, "eth0")?, Tun::ethernet(&outside, "eth0")?);
        server.up("eth0")?;
        outside.up("eth0")?;
        for (host, address, prefix) in [
            (&*server, IpAddr::V4(SERVER), 24),
            (&server, SERVER6.into(), 64),
            (&outside, ROUTER.into(), 24),
            (&outside, ROUTER6.into(), 64),
            (&outside, VISITOR.into(), 32),
            (&outside, VISITOR6.into(), 128),
            (&outside, ADMIN.into(), 32),
            (&outside, SCANNER.into(), 32),
        ] {
            host.address("eth0", address, prefix)?;
        }
        server.default_route(ROUTER.into())?;
        server.default_route(ROUTER6.into())?;
        let mut daemon = Daemon::new(&server)?;
        daemon.hide_log();
        fs::create_dir(daemon.path("policy"))?;
        daemon.write("policy/web-server.yaml", packets_half()?)?;
        daemon.write("policy/interfaces.yaml", INTERFACES)?;
        Ok(Self { server, outside, daemon, _cable: cable })
    }

    fn tell(mut self) -> Result<()> {
        say("Two network namespaces joined by a cable: a server with a web site and SSH, and the outside.");
        self.serve()?;
        self.visit("without a firewall", VISITOR, 22, true)?;

        say("ringfenced starts with the rules about packets of examples/web-server.yaml");
        self.start()?;
        self.ctl(&["status"])?;

        say("Real traffic");
        self.visit("the web site", VISITOR, 80, true)?;
        self.visit6("the web site over IPv6", true)?;
        self.visit("SSH, as anybody", VISITOR, 22, false)?;
        self.visit("SSH, as an administrator", ADMIN, 22, true)?;
        self.leave()?;
        self.refuse()?;
        self.scan()?;

        say("Why was SSH refused?");
        let packet = format!("interface=eth0 proto=tcp from={VISITOR} to={SERVER} port=22 flags=syn");
        self.ctl(&["explain", "--packet", &packet])?;

        say("An address is denied, in force before the command returns");
        self.ctl(&["deny", &VISITOR.to_string(), "--for", "10m", "--reason", "too curious"])?;
        self.visit("the web site", VISITOR, 80, false)?;
        self.visit("the web site, others", ADMIN, 80, true)?;

        say("kill -9 of the daemon: the kernel goes on enforcing");
        self.daemon.kill()?;
        self.visit("the web site, daemon dead", VISITOR, 80, false)?;
        self.start()?;
        self.ctl(&["undo", &VISITOR.to_string()])?;
        self.visit("the web site", VISITOR, 80, true)?;

        say("Every rule with what it counted");
        self.ctl(&["rules"])?;

        self.ctl(&["off"])?;
        ensure!(self.daemon.stop()?.success(), "the daemon did not end well");
        say("Done. Namespaces, programs and files are gone.");
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let mut command = self.daemon.command();
        command.arg("--policy").arg(self.daemon.path("policy"));
        self.daemon.run(&mut command)
    }

    fn ctl(&self, arguments: &[&str]) -> Result<()> {
        ctl(&self.daemon, arguments)?.done().map(drop)
    }

    /// Starts to answer HTTP, and what calls itself SSH, on the server.
    fn serve(&self) -> Result<()> {
        for (port, answer) in [(80, "HTTP/1.0 200 OK\r\n\r\n"), (22, "SSH-2.0-demo\r\n")] {
            for address in [IpAddr::V4(SERVER), IpAddr::V6(SERVER6)] {
                let listener = self.server.run(|| TcpListener::bind((address, port)))??;
                // It ends with this process.
                thread::spawn(move || {
                    listener.incoming().flatten().try_for_each(|mut stream| stream.write_all(answer.as_bytes()))
                });
            }
        }
        Ok(())
    }

    fn visit(&self, what: &str, from: Ipv4Addr, port: u16, expected: bool) -> Result<()> {
        self.connect(what, from.into(), SocketAddr::new(SERVER.into(), port), expected)
    }

    fn visit6(&self, what: &str, expected: bool) -> Result<()> {
        self.connect(what, VISITOR6.into(), SocketAddr::new(SERVER6.into(), 80), expected)
    }

    fn connect(&self, what: &str, from: IpAddr, to: SocketAddr, expected: bool) -> Result<()> {
        let answer = self.outside.run(|| ask(from, to))?;
        show(what, &format!("{from} -> {to}"), answer.as_deref().map_or(Visit::Silence, Visit::Answered));
        ensure!(answer.is_some() == expected, "{what}: the demo expected otherwise");
        Ok(())
    }

    /// The server itself asks the metadata service of a cloud.
    fn leave(&self) -> Result<()> {
        let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
        let answer = self.server.run(|| ask(SERVER.into(), metadata))?;
        show(
            "the cloud's credentials, from inside",
            &format!("{SERVER} -> {metadata}"),
            answer.as_deref().map_or(Visit::Silence, Visit::Answered),
        );
        ensure!(answer.is_none(), "somebody answered at {metadata}");
        Ok(())
    }

    /// A rejected visitor does not wait: the connection is refused as by a closed port.
    fn refuse(&self) -> Result<()> {
        let ident = SocketAddr::new(SERVER.into(), 113);
        let result = self.outside.run(|| TcpStream::connect_timeout(&ident, PATIENCE))?;
        let told = result.err().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        ensure!(told, "ident: the demo expected a refusal");
        show("ident, which is rejected", &format!("{ROUTER} -> {ident}"), Visit::Refused);
        Ok(())
    }

    fn scan(&self) -> Result<()> {
        let tap = Tap::new(&self.outside, "eth0")?;
        let (source, destination) = (self.outside.mac("eth0")?, self.server.mac("eth0")?);
        let before = self.daemon.counters()?;
        for sent in 0..SCANNED {
            let transport = Transport::Tcp { source: 4000, destination: 8000 + sent, flags: 2 };
            tap.send(&Frame::new(SCANNER.into(), SERVER.into(), transport).bytes(source, destination)?)?;
            // The cable holds a few hundred.
            if (sent + 1) % 100 == 0 {
                self.daemon.counted(&before, "ingress", "default", (sent + 1).into())?;
            }
        }
        let dropped = self.daemon.counters()?.packets("ingress", "default")? - before.packets("ingress", "default")?;
        show("a port scan", &format!("{SCANNER} -> {SERVER}"), Visit::Silence);
        println!("    {SCANNED} frames sent, {dropped} dropped at XDP, before the kernel made anything of them");
        Ok(())
    }
}

/// The example without its rules about processes: these would hold for the machine that runs this.
fn packets_half() -> Result<&'static str> {
    POLICY.split_once("\nhost:\n").map(|(before, _)| before).context("the example has no host half")
}

/// The first line of what is answered; `None` when nothing comes.
fn ask(from: IpAddr, to: SocketAddr) -> Option<String> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::new(from, 0).into()).ok()?;
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut bytes = [0; 64];
    let length = stream.read(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes[..length]).lines().next().map(str::to_owned)
}

/// What came of a visit.
#[derive(Clone, Copy)]
enum Visit<'a> {
    Answered(&'a str),
    Refused,
    Silence,
}

fn show(what: &str, way: &str, visit: Visit<'_>) {
    let (verdict, colour, answer) = match visit {
        Visit::Answered(line) => ("accepted", 32, line),
        Visit::Refused => ("rejected", 31, "refused at once"),
        Visit::Silence => ("dropped", 31, "no answer"),
    };
    let verdict = paint(&format!("{verdict:8}"), colour);
    println!("  {verdict}  {what:36}  {way:38}  {answer}");
}
