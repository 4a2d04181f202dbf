//! Figures → a Markdown table that says the machine, the commit and the command.

use std::fs;
use std::process::Command;

use crate::process::Cores;

/// The middle value; the upper one of two.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share `at` of all is below.
pub fn quantile(values: &mut [f64], at: f64) -> f64 {
    assert!(!values.is_empty(), "a figure of nothing");
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * at) as usize;
    values[index.min(values.len() - 1)]
}

/// One line of the table of targets.
struct Target {
    what: String,
    measured: String,
    bound: String,
    met: bool,
}

/// What will be printed at the end.
#[derive(Default)]
pub struct Report {
    targets: Vec<Target>,
}

impl Report {
    /// Adds a target.
    pub fn target(&mut self, what: &str, measured: String, bound: &str, met: bool) {
        self.targets.push(Target { what: what.to_owned(), measured, bound: bound.to_owned(), met });
    }

    /// The table of targets.
    pub fn print(&self) {
        println!("\n| what | measured | target | |\n|---|---|---|---|");
        for Target { what, measured, bound, met } in &self.targets {
            println!("| {what} | {measured} | {bound} | {} |", if *met { "✓" } else { "✗" });
        }
        let met = self.targets.iter().filter(|target| target.met).count();
        println!("\n{met} of {} targets met.", self.targets.len());
    }
}

/// The machine, the commit and the command.
pub fn print_machine(cores: Cores, command: &str) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = cpu.lines().filter(|line| line.starts_with("processor")).count();
    println!("- machine: {count} × {}, Linux {}", model.trim_start_matches([' ', '\t', ':']), kernel.trim());
    println!("- pinned: {}", cores.describe());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    println!(
        "- load before it began: {load} (above 0.5 someone else is at work: calls/s and p99 say little then)"
    );
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("- commit: {}", commit.unwrap_or_else(|_| "unknown".to_owned()));
    println!("- command: `{command}`\n");
}
