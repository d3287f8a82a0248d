//! Ringfence beside other programs at tcx (Linux 6.6 and later).

use anyhow::{Result, ensure};
use ringfence_api::Status;
use ringfence_tests::{
    daemon::Daemon,
    foreign::Foreign,
    netns::{CLIENT, SERVER, Site},
    traffic::Echo,
};

/// A rule on the mark is judged at TC: XDP knows no mark.
const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: accept
    rules:
      - drop: {mark: 0x77}
      - drop: {proto: [tcp, udp], port: 81}
  egress: {default: accept}
";

#[test]
fn a_foreign_program_stays_and_still_runs_beside_ours() -> Result<()> {
    let site = Site::new()?;
    let foreign = Foreign::tcx(&site.server, "eth0")?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let status: Status = daemon.json(&["status"])?;
    let ingress = status.halves.network.hooks.iter().find(|hook| hook.hook == "ingress");
    ensure!(ingress.is_some_and(|hook| hook.how.as_deref() == Some("tcx")), "{status:?}");
    let ids = site.server.tcx_programs("eth0")?;
    ensure!(ids.len() == 2 && ids.contains(&foreign.id()?), "{ids:?}");
    let echo = Echo::start(&site.server, SERVER.0.into(), 81)?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    daemon.ctl(["off"])?.done()?;
    ensure!(site.server.tcx_programs("eth0")? == [foreign.id()?], "off removed the foreign program, or left ours");
    site.client.reaches(CLIENT.0.into(), echo.address(), true)
}
