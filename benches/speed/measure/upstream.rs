//! What MCP costs beside the calls themselves: servers behind the daemon, and clients that rest.

use std::time::Duration;

use crate::load::{Asks, Peer};
use crate::measure::{Bench, Contender};
use crate::post::{Client, Rests};
use crate::process::{Behind, Program};
use crate::report::{Report, median};

impl Bench {
    /// Each call goes through every stage, then to a server over stdin and stdout and back. What the server itself
    /// takes is not counted.
    pub fn upstream(&self, report: &mut Report) {
        const CONNECTIONS: usize = 64;
        let Some(binary) = self.daemon.clone() else { return };
        let program = Program::Daemon { binary, log_level: "warn", behind: Behind::Upstream };
        let mut daemon = Contender::new("daemon, warn", self.start(&program), CONNECTIONS);
        let mut offline = Contender::new("the same without it", self.start(&program), CONNECTIONS);
        for _ in 0..self.effort.rounds {
            offline.closed_loop(Asks::Distinct, 1, self.effort.round);
            daemon.closed_loop(Asks::Upstream, 1, self.effort.round);
        }
        println!(
            "\n{CONNECTIONS} connections × 1 in flight, distinct echo of a server over stdin and stdout\n\n\
             | server | calls/s | its µs a call | p50 µs | p99 µs |\n|---|---|---|---|---|"
        );
        for one in [&offline, &daemon] {
            let [rate, cost, p50, p99] =
                [&one.rates, &one.costs, &one.p50s, &one.p99s].map(|each| median(&mut each.clone()));
            println!("| {} | {rate:.0} | {cost:.2} | {p50:.0} | {p99:.0} |", one.name);
        }
        let cost = median(&mut daemon.costs);
        let what = "`echo` of a server over stdin and stdout, at 64 connections";
        report.target(what, format!("{cost:.1} µs of the daemon's processor time"), "25 µs", cost <= 25.0);
    }

    /// What an MCP session costs whose client rests, through each door.
    pub fn sessions(&self, report: &mut Report) {
        const COUNT: usize = 500;
        if self.daemon.is_none() {
            return;
        }
        for (name, rests) in [
            ("over `/mcp`, its connection closed", Rests::Gone),
            ("over `/mcp`, its connection kept", Rests::Connected),
            ("over `/mcp`, listening for what the daemon says", Rests::Listening),
        ] {
            let each = self.grown(COUNT, |port| Client::rests(port, rests));
            report.target(
                &format!("an idle session {name}, of {COUNT}"),
                format!("{each:.1} KiB"),
                "16 KiB",
                each <= 16.0,
            );
        }
        let each = self.grown(COUNT, |port| Peer::connect(port).unwrap());
        let what = format!("an idle session over a WebSocket, of {COUNT}");
        report.target(&what, format!("{each:.1} KiB"), "16 KiB", each <= 16.0);
    }

    /// How many KiB of a fresh daemon's memory each of so many clients takes.
    fn grown<T>(&self, count: usize, client: impl Fn(u16) -> T) -> f64 {
        let server = self.start(&self.program("warn", Duration::ZERO));
        drop((0..64).map(|_| client(server.port)).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(300));
        let before = server.resident();
        let clients: Vec<_> = (0..count).map(|_| client(server.port)).collect();
        std::thread::sleep(Duration::from_millis(500));
        let grown = server.resident().saturating_sub(before);
        drop(clients);
        grown as f64 / count as f64 / 1024.0
    }
}
