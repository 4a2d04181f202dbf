//! The measurements, each with its table and its targets.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::load::{Asks, Joined, Load, Peer, Ran};
use crate::process::{Behind, Cores, Program, Server};
use crate::provider;
use crate::reference::Flavour;
use crate::report::{Report, median, quantile};
use crate::shim;
use crate::wire::CHAT;

mod post;
mod upstream;

/// What a provider takes while followers join: long enough for a group to come.
const HELD: Duration = Duration::from_millis(5);
/// Connections that ask the same.
const GROUP: usize = 64;
/// So many that some are always at work while others are held.
const GROUPS: usize = 8;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds, interleaved over all servers.
    pub rounds: usize,
    /// Of one server in one round.
    pub round: Duration,
    /// Tries of what is measured by tries; bursts take twice as many.
    pub tries: usize,
    /// Round trips through the shim.
    pub shim_calls: u64,
}

/// Everything a measurement needs.
pub struct Bench {
    /// How much.
    pub effort: Effort,
    /// Where.
    pub cores: Cores,
    /// The daemon; `None`: a reference stands in, to test the benchmark itself.
    pub daemon: Option<PathBuf>,
}

const HOLDING_NOTHING: Flavour = Flavour::Spawned { latency: Duration::ZERO };

/// A server under load, and what was seen of it in each round.
struct Contender {
    name: &'static str,
    server: Server,
    load: Load,
    rates: Vec<f64>,
    costs: Vec<f64>,
    p50s: Vec<f64>,
    p99s: Vec<f64>,
}

impl Contender {
    fn new(name: &'static str, server: Server, connections: usize) -> Self {
        Self::with(name, Load::open(server.port, connections), server)
    }

    fn with(name: &'static str, load: Load, server: Server) -> Self {
        Self { name, server, load, rates: vec![], costs: vec![], p50s: vec![], p99s: vec![] }
    }

    fn closed_loop(&mut self, asks: Asks, depth: usize, duration: Duration) -> Ran {
        self.load.closed_loop(asks, depth, duration / 10);
        let before = self.server.cpu();
        let ran = self.load.closed_loop(asks, depth, duration);
        let cpu = self.server.cpu().checked_sub(before).expect("no thread has ended meanwhile");
        self.rates.push(ran.calls as f64 / ran.elapsed.as_secs_f64());
        self.costs.push(cpu.as_secs_f64() * 1e6 / ran.calls as f64);
        let mut micros: Vec<f64> = ran.latencies.iter().map(|&nanos| f64::from(nanos) / 1000.0).collect();
        self.p50s.push(median(&mut micros));
        self.p99s.push(quantile(&mut micros, 0.99));
        ran
    }

    /// Groups that ask the same; what they saw.
    fn equal_loop(&mut self, duration: Duration) -> Joined {
        self.load.equal_loop(GROUP, duration / 10);
        let before = self.server.cpu();
        let began = Instant::now();
        let joined = self.load.equal_loop(GROUP, duration);
        self.rates.push(joined.calls as f64 / began.elapsed().as_secs_f64());
        let cpu = self.server.cpu().checked_sub(before).expect("no thread has ended meanwhile");
        self.costs.push(cpu.as_secs_f64() * 1e6 / joined.calls as f64);
        joined
    }

    /// The median over the rounds of `figure` here divided by `figure` there, in the same round.
    fn ratio(&self, other: &Self, figure: impl Fn(&Self) -> &Vec<f64>) -> f64 {
        let mut ratios: Vec<f64> = figure(self).iter().zip(figure(other)).map(|(a, b)| a / b).collect();
        median(&mut ratios)
    }
}

/// A row for a server whose calls need no Execution of their own, `share` of them.
fn print_joined(one: &Contender, reference: &Contender, share: f64) {
    let (rate, cost) = (median(&mut one.rates.clone()), median(&mut one.costs.clone()));
    let ratio = one.ratio(reference, |one| &one.costs);
    println!("| {} | {rate:.0} | {cost:.2} | {ratio:.2} | {:.1} % |", one.name, share * 100.0);
}

impl Bench {
    fn program(&self, log_level: &'static str, latency: Duration) -> Program {
        match &self.daemon {
            Some(binary) => {
                let behind = Behind::Offline { latency };
                Program::Daemon { binary: binary.clone(), log_level, behind }
            }
            None => Program::Reference(Flavour::Spawned { latency }),
        }
    }

    fn start(&self, program: &Program) -> Server {
        Server::start(program, self.cores)
    }

    /// The four that are compared under load, with their table.
    fn compare(&self, connections: usize, depth: usize) -> [Contender; 4] {
        let of = |name, program: &Program| Contender::new(name, self.start(program), connections);
        let mut all = [
            of("reference, inline", &Program::Reference(Flavour::Inline)),
            of("reference, spawned", &Program::Reference(HOLDING_NOTHING)),
            of("daemon, warn", &self.program("warn", Duration::ZERO)),
            of("daemon, info", &self.program("info", Duration::ZERO)),
        ];
        for round in 0..self.effort.rounds {
            // Each goes first in turn, so that no one always follows the same.
            for turn in 0..all.len() {
                let at = (round + turn) % all.len();
                all[at].closed_loop(Asks::Distinct, depth, self.effort.round);
            }
        }
        println!(
            "\n{connections} connections × {depth} in flight, distinct echo\n\n\
             | server | calls/s | server µs a call | p50 µs | p99 µs | cost ÷ inline | calls/s ÷ spawned |\n\
             |---|---|---|---|---|---|---|"
        );
        for one in &all {
            println!(
                "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} |",
                one.name,
                median(&mut one.rates.clone()),
                median(&mut one.costs.clone()),
                median(&mut one.p50s.clone()),
                median(&mut one.p99s.clone()),
                one.ratio(&all[0], |one| &one.costs),
                one.ratio(&all[1], |one| &one.rates),
            );
        }
        all
    }

    /// Each call runs through every stage.
    pub fn echo(&self, report: &mut Report) {
        let [inline, _, warn, info] = self.compare(64, 1);
        for (what, daemon) in [("distinct echo, log warn", warn), ("distinct echo, log info", info)] {
            let ratio = daemon.ratio(&inline, |one| &one.costs);
            report.target(
                what,
                format!("{ratio:.2} × the reference's processor time"),
                "1.80 ×",
                ratio <= 1.8,
            );
        }
    }

    /// Many calls wait on each connection.
    pub fn pipeline(&self, report: &mut Report) {
        let [_, spawned, warn, _] = self.compare(16, 16);
        let ratio = warn.ratio(&spawned, |one| &one.rates);
        report.target("16 × 16 in flight", format!("{ratio:.2} × the calls/s"), "0.50 ×", ratio >= 0.5);
    }

    /// Calls that an earlier call's answer is kept for. The reference answers the same calls, with fewer bytes.
    pub fn hits(&self, report: &mut Report) {
        const CONNECTIONS: usize = 64;
        let of = |name, program: &Program| Contender::new(name, self.start(program), CONNECTIONS);
        let mut reference = of("reference, inline", &Program::Reference(Flavour::Inline));
        let mut daemon = of("daemon, warn", &self.program("warn", Duration::ZERO));
        let (mut hits, mut calls) = (0, 0);
        for _ in 0..self.effort.rounds {
            reference.closed_loop(Asks::Kept, 1, self.effort.round);
            let ran = daemon.closed_loop(Asks::Kept, 1, self.effort.round);
            hits += ran.hits;
            calls += ran.calls;
        }
        let share = hits as f64 / calls as f64;
        println!(
            "\n{CONNECTIONS} connections × 1 in flight, each always the same question, its answer kept\n\n\
             | server | calls/s | server µs a call | cost ÷ inline | hits |\n|---|---|---|---|---|"
        );
        print_joined(&reference, &reference, 0.0);
        print_joined(&daemon, &reference, share);
        let ratio = daemon.ratio(&reference, |one| &one.costs);
        let met = ratio <= 1.4 && hits == calls;
        let measured = format!("{ratio:.2} × the reference's processor time, {:.1} % hits", share * 100.0);
        report.target("a cache hit", measured, "1.40 ×", met);
    }

    /// Calls that join. The reference gets the same calls in the same groups, and holds none.
    pub fn followers(&self, report: &mut Report) {
        let reference = self.start(&Program::Reference(Flavour::Inline));
        let mut reference = Contender::new("reference, inline", reference, GROUP * GROUPS);
        let daemon = self.start(&self.program("warn", HELD));
        let mut daemon = Contender::new("daemon, warn", daemon, GROUP * GROUPS);
        let (mut followers, mut calls) = (0, 0);
        for _ in 0..self.effort.rounds {
            reference.equal_loop(self.effort.round);
            let joined = daemon.equal_loop(self.effort.round);
            followers += joined.followers;
            calls += joined.calls;
        }
        let share = followers as f64 / calls as f64;
        println!(
            "\n{GROUPS} groups of {GROUP} connections that ask the same, held {} ms by the daemon's provider\n\n\
             | server | calls/s | server µs a call | cost ÷ inline | followers |\n|---|---|---|---|---|",
            HELD.as_millis()
        );
        print_joined(&reference, &reference, 0.0);
        print_joined(&daemon, &reference, share);
        let ratio = daemon.ratio(&reference, |one| &one.costs);
        // 63 of 64 are 98.4 %; a group that the scheduler tears apart may open a second flight.
        let met = ratio <= 1.4 && share > 0.97;
        let measured = format!("{ratio:.2} × the reference's processor time, {:.1} % joined", share * 100.0);
        report.target("a follower", measured, "1.40 ×", met);
    }

    /// Equal calls to a slow provider: one execution, all answers together.
    pub fn burst(&self, report: &mut Report) {
        let held = Duration::from_millis(100);
        let server = self.start(&self.program("warn", held));
        let mut load = Load::open(server.port, 64);
        let mut spreads = Vec::new();
        let mut once = 0;
        let tries = self.effort.tries * 2;
        for _ in 0..tries {
            let burst = load.burst(CHAT);
            spreads.push(burst.spread.as_secs_f64() * 1e3);
            once += usize::from((burst.leaders, burst.followers) == (1, 63));
        }
        let what = "64 equal calls to a provider that takes 100 ms";
        report.target(
            what,
            format!("{once} of {tries} tries with 1 leader, 63 followers"),
            "all",
            once == tries,
        );
        let spread = median(&mut spreads);
        let what = "between its first and its last answer, p50";
        report.target(what, format!("{spread:.3} ms"), "1 ms", spread <= 1.0);
    }

    /// What a connection costs that says nothing.
    pub fn idle(&self, report: &mut Report) {
        let count = 2000;
        let each = |program: &Program| {
            let server = self.start(program);
            drop(Load::open(server.port, 64));
            std::thread::sleep(Duration::from_millis(300));
            let before = server.resident();
            let peers: Vec<Peer> = (0..count).map(|_| Peer::connect(server.port).unwrap()).collect();
            std::thread::sleep(Duration::from_millis(500));
            let grown = server.resident().saturating_sub(before);
            drop(peers);
            grown as f64 / f64::from(count) / 1024.0
        };
        let reference = each(&Program::Reference(Flavour::Inline));
        let daemon = each(&self.program("warn", Duration::ZERO));
        let measured = format!("{daemon:.1} KiB (reference {reference:.1})");
        report.target("an idle connection, of 2,000", measured, "16 KiB", daemon <= 16.0);
    }

    /// From the start of the process to the first answer.
    pub fn first(&self, report: &mut Report) {
        let each = |program: &Program| {
            let mut times: Vec<f64> = (0..self.effort.tries)
                .map(|_| {
                    let began = Instant::now();
                    let server = Server::spawn(program, self.cores);
                    let mut peer = loop {
                        match Peer::connect(server.port) {
                            Ok(peer) => break peer,
                            Err(error) => assert!(began.elapsed().as_secs() < 10, "never up: {error}"),
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    };
                    peer.call(1);
                    began.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            median(&mut times)
        };
        let reference = each(&Program::Reference(Flavour::Inline));
        let daemon = each(&self.program("warn", Duration::ZERO));
        let measured = format!("{daemon:.1} ms (reference {reference:.1})");
        report.target("first answered call after the start", measured, "100 ms", daemon <= 100.0);
    }

    /// What stdin and stdout add.
    pub fn shim(&self, report: &mut Report) {
        let server = self.start(&self.program("warn", Duration::ZERO));
        let seen = shim::measure(self.daemon.as_deref(), server.port, self.effort.shim_calls);
        let (direct, through) = (seen.direct.as_secs_f64() * 1e6, seen.through.as_secs_f64() * 1e6);
        let added = through - direct;
        let measured = format!("{added:.0} µs ({through:.0} through it, {direct:.0} direct)");
        report.target("the shim adds, p50", measured, "1000 µs", added < 1000.0);
        let mebibytes = seen.resident as f64 / f64::from(1 << 20);
        report.target("the shim, resident", format!("{mebibytes:.1} MiB"), "8 MiB", mebibytes < 8.0);
    }

    /// What a call to a provider costs here beside a loop that only asks it.
    pub fn provider(&self, report: &mut Report) {
        let Some(binary) = self.daemon.clone() else { return };
        let model = self.start(&Program::Model);
        let behind = Behind::Model { port: model.port };
        let daemon = Program::Daemon { binary, log_level: "warn", behind };
        for connections in [1, 8] {
            let mut daemon = Contender::new("daemon, warn", self.start(&daemon), connections);
            let mut bare = Vec::new();
            for _ in 0..self.effort.rounds {
                bare.push(provider::bare(self.cores, model.port, connections, self.effort.round));
                daemon.closed_loop(Asks::Model, 1, self.effort.round);
            }
            println!(
                "\n{connections} at once, each a question to a model service on loopback that answers at once\n\n\
                 | who asks | calls/s | µs a call | p50 µs | p99 µs |\n|---|---|---|---|---|"
            );
            let of = |figure: fn(&provider::Bare) -> f64| bare.iter().map(figure).collect::<Vec<_>>();
            let (mut costs, mut p50s) = (of(|round| round.cost), of(|round| round.p50));
            let paired = |ours: &[f64], bare: &[f64], by: fn(f64, f64) -> f64| {
                median(&mut ours.iter().zip(bare).map(|(ours, bare)| by(*ours, *bare)).collect::<Vec<_>>())
            };
            let ratio = paired(&daemon.costs, &costs, |ours, bare| ours / bare);
            let added = paired(&daemon.p50s, &p50s, |ours, bare| ours - bare);
            let (rate, p99) = (median(&mut of(|round| round.rate)), median(&mut of(|round| round.p99)));
            let (cost, p50) = (median(&mut costs), median(&mut p50s));
            println!("| a bare reqwest loop | {rate:.0} | {cost:.1} | {p50:.0} | {p99:.0} |");
            let [rate, cost, p50, p99] =
                [&mut daemon.rates, &mut daemon.costs, &mut daemon.p50s, &mut daemon.p99s]
                    .map(|each| median(each));
            println!("| daemon, warn | {rate:.0} | {cost:.1} | {p50:.0} | {p99:.0} |");
            let what = format!("a provider call, {connections} at once, beside a bare reqwest loop");
            let measured = format!("{ratio:.2} × its processor time, p50 + {added:.0} µs");
            // A frame each way and the whole path come on top of the request; three times is more than both cost.
            report.target(&what, measured, "3.00 ×", ratio <= 3.0);
        }
    }
}
