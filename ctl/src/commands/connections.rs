use std::io::Write as _;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ringfence_api::{
    CONNECTION_STATES, Connection, ConnectionDirection, ConnectionFilter, Connections as Answer, ConnectionsQuery,
    KillAnswer, KillRequest, Pool, Prefix, SocketEnd, end,
};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, clean};
use crate::{Exit, Failure, units};

/// List the connections that the policy in force follows, or end some
///
/// Newest first. FROM is whoever sent the first packet. A connection is followed as soon as its first packet is let through;
/// it is `half-in` or `half-out` until the other side has proven to be there.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl connections --port 22
  ringctl connections --from 203.0.113.0/24 --state tcp-established
  ringctl connections --pool half-in --limit 20      what a SYN flood fills
  ringctl connections --limit 0                      only how full the tables are
  ringctl connections --kill --from 203.0.113.5 --port 22
  ringctl connections --kill --all --from 203.0.113.0/24

A killed connection's packets are dropped for two minutes, and counted as `connection/killed`; a TCP socket of this host is
closed. New connections from the same address are judged by the rules as ever: `ringctl deny` is for those.

Exit codes: 1 where the policy follows no connections, and for --kill unless exactly one fits (or --all is given), or where it
is the one that carries your own session (--force).")]
pub struct Connections {
    /// Protocol: tcp, udp, icmp ... or a number
    #[arg(long, value_name = "PROTO")]
    proto: Option<String>,
    /// Who sent the first packet
    #[arg(long, value_name = "ADDR/PREFIX")]
    from: Option<Prefix>,
    /// Where it went
    #[arg(long, value_name = "ADDR/PREFIX")]
    to: Option<Prefix>,
    /// The port it went to
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// What it is at
    #[arg(long, value_parser = PossibleValuesParser::new(CONNECTION_STATES))]
    state: Option<String>,
    /// Which table it is in
    #[arg(long, value_parser = pools())]
    pool: Option<Pool>,
    /// List at most this many, up to 65536
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "kill",
        help = "List at most this many, up to 65536 [default: 1000]"
    )]
    limit: Option<usize>,
    /// End the one that fits
    #[arg(long)]
    kill: bool,
    /// End all that fit
    #[arg(long, requires = "kill")]
    all: bool,
    /// Also the one that carries your own session
    #[arg(long, requires = "kill")]
    force: bool,
    #[command(flatten)]
    listing: Listing,
}

fn pools() -> impl TypedValueParser<Value = Pool> {
    let names = PossibleValuesParser::new(Pool::ALL.map(Pool::word));
    names.try_map(|text| Pool::ALL.into_iter().find(|pool| pool.word() == text).ok_or("no such pool"))
}

impl Connections {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let Self { proto, from, to, port, state, pool, limit, kill, all, force, listing } = self;
        let filter = ConnectionFilter { proto, from, to, port, state, pool };
        if kill {
            let answer = context.ask(context.client.kill_connections(&KillRequest { filter, all, force }))?;
            if listing.json {
                context.json(&answer)?;
            } else {
                write_killed(&answer, context)?;
            }
            return Ok(Exit::Done);
        }
        let answer = context.ask(context.client.connections(&ConnectionsQuery::new(filter, limit)))?;
        if listing.json {
            context.json(&answer)?;
        } else {
            write_list(&answer, context)?;
        }
        Ok(Exit::Done)
    }
}

fn write_list(answer: &Answer, context: &mut Context) -> Result<(), Failure> {
    if !answer.connections.is_empty() {
        table(&answer.connections).write(context)?;
    }
    if answer.left_out > 0 {
        writeln!(context, "{} more fit: --limit, or say more about those that are meant", answer.left_out)?;
    }
    let pools: Vec<_> = answer
        .pools
        .iter()
        .map(|size| format!("{} {} of {}", size.pool.word(), size.connections, size.capacity))
        .collect();
    let fit = match answer.matched {
        1 => "1 connection".to_owned(),
        matched => format!("{matched} connections"),
    };
    writeln!(context, "{fit}; {}", pools.join(", "))?;
    Ok(())
}

fn table(connections: &[Connection]) -> Table {
    let header = ["PROTO", "FROM", "TO", "STATE", "POOL", "WAY", "INTERFACE", "SENT", "RECEIVED", "AGE", "EXPIRES"];
    let mut table = Table::new(header, &[7, 8, 9, 10]);
    for one in connections {
        let way = match one.direction {
            ConnectionDirection::Inbound => "in",
            ConnectionDirection::Outbound => "out",
        };
        let to = match one.icmp {
            Some(query) => format!("{} type {} id {}", one.to, query.r#type, query.id),
            None => end(one.to, one.to_port),
        };
        table.row([
            one.proto.as_str().into(),
            end(one.from, one.from_port).into(),
            to.into(),
            one.state.as_str().into(),
            one.pool.word().into(),
            way.into(),
            one.interface.as_deref().unwrap_or("-").into(),
            traffic(one.sent.packets, one.sent.bytes).into(),
            traffic(one.received.packets, one.received.bytes).into(),
            units::roughly(one.age).into(),
            units::roughly(one.expires).into(),
        ]);
    }
    table
}

/// Packets and bytes.
fn traffic(packets: u64, bytes: u64) -> String {
    format!("{}/{}", units::count(packets), units::count(bytes))
}

fn write_killed(answer: &KillAnswer, context: &mut Context) -> Result<(), Failure> {
    for one in &answer.killed {
        let socket = match one.socket {
            SocketEnd::Destroyed => ", its socket is closed".to_owned(),
            SocketEnd::None => String::new(),
            SocketEnd::Refused => {
                format!(
                    ", its socket could not be closed: {}",
                    clean(one.because.as_deref().unwrap_or("no reason given"))
                )
            }
        };
        let duration = units::duration(answer.seconds);
        writeln!(
            context,
            "killed {}: its packets are dropped for {duration}{socket}",
            clean(&one.connection.to_string())
        )?;
    }
    Ok(())
}
