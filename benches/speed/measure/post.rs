//! What a call costs over HTTP, beside the Rust SDK's own server.

use std::time::Duration;

use crate::load::{Asks, Load};
use crate::measure::{Bench, Contender};
use crate::process::Program;
use crate::report::{Report, median};

impl Bench {
    /// Each call is a request of its own, of the newer era, and runs through every stage.
    pub fn post(&self, report: &mut Report) {
        const CONNECTIONS: usize = 64;
        if self.daemon.is_none() {
            return;
        }
        let of = |name, program: &Program| {
            let server = self.start(program);
            Contender::with(name, Load::open_post(server.port, CONNECTIONS), server)
        };
        let mut all = vec![of("daemon, warn", &self.program("warn", Duration::ZERO))];
        if cfg!(feature = "rmcp") {
            all.push(of("the Rust SDK, stateless", &Program::Sdk));
        }
        for _ in 0..self.effort.rounds {
            for one in &mut all {
                one.closed_loop(Asks::Distinct, 1, self.effort.round);
            }
        }
        println!(
            "\n{CONNECTIONS} connections × 1 in flight, distinct echo by `POST /mcp`\n\n\
             | server | calls/s | server µs a call | p50 µs | p99 µs |\n|---|---|---|---|---|"
        );
        for one in &all {
            let [rate, cost, p50, p99] =
                [&one.rates, &one.costs, &one.p50s, &one.p99s].map(|each| median(&mut each.clone()));
            println!("| {} | {rate:.0} | {cost:.2} | {p50:.0} | {p99:.0} |", one.name);
        }
        let [daemon, sdk] = all.as_slice() else {
            println!("\nBeside the Rust SDK's server: `cargo bench --features rmcp --bench speed`");
            return;
        };
        let ratio = daemon.ratio(sdk, |one| &one.costs);
        let what = "`POST /mcp`, distinct echo";
        let measured = format!("{ratio:.2} × the processor time of the Rust SDK's server");
        report.target(what, measured, "0.50 ×", ratio <= 0.5);
    }
}
