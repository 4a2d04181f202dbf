//! What the machine has left: looked at in the background, so that asking costs no waiting.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio_util::sync::CancellationToken;

use crate::config::GateRules;
use crate::sync::Mutex;

/// Between two looks. What processors do is told of the time between them.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Bytes of a GB, as people count memory.
const GB: f64 = 1_073_741_824.0;

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// How busy all processors together were, in percent.
    pub cpu_percent: f64,
    /// Memory in all; what a container may take counts.
    pub total_bytes: u64,
    /// Memory that is still to be had.
    pub available_bytes: u64,
}

/// The machine that the daemon runs on.
#[derive(Debug, Default)]
pub struct Machine {
    latest: Mutex<Sample>,
}

impl Machine {
    /// A machine of which memory is known, and its processors' work once it was watched for a while.
    pub fn new() -> Arc<Self> {
        let machine = Self::default();
        if let Ok(mut system) = System::new() {
            machine.see(look(&mut system));
        }
        Arc::new(machine)
    }

    /// Looks every second until told to stop.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        // Where the system cannot be asked, memory and processors stay unknown, which stops nothing.
        let Ok(mut system) = System::new_with_specifics(RefreshKind::nothing().with_cpu(usage())) else {
            return;
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_LOOKS) => self.see(look(&mut system)),
            }
        }
    }

    /// This is how it is now.
    pub fn see(&self, sample: Sample) {
        *self.latest.lock() = sample;
    }

    /// The latest look.
    pub fn latest(&self) -> Sample {
        *self.latest.lock()
    }

    /// Why nothing more is to be started, where too little is left. Processors come first; what is equal passes.
    pub fn refusal(&self, rules: &GateRules) -> Option<String> {
        const SAYS: &str = "Insufficient system resources";
        let sample = self.latest();
        if sample.cpu_percent > rules.cpu_percent {
            let (is, most) = (sample.cpu_percent, rules.cpu_percent);
            return Some(format!("{SAYS}: CPU usage too high: {is:.1}% (threshold: {most:.1}%)"));
        }
        let available = gigabytes(sample.available_bytes);
        (available < rules.memory_gb).then(|| {
            format!(
                "{SAYS}: Insufficient memory: {available:.1}GB available (required: {:.1}GB)",
                rules.memory_gb
            )
        })
    }
}

impl Sample {
    /// As `get_system_stats` tells it.
    pub fn shown(&self) -> Value {
        let used = self.total_bytes.saturating_sub(self.available_bytes);
        let percent = if self.total_bytes == 0 { 0.0 } else { 100.0 * float(used) / float(self.total_bytes) };
        json!({
            "cpu_percent": tenths(self.cpu_percent),
            "memory_total_gb": hundredths(gigabytes(self.total_bytes)),
            "memory_available_gb": hundredths(gigabytes(self.available_bytes)),
            "memory_used_percent": tenths(percent),
        })
    }
}

fn usage() -> CpuRefreshKind {
    CpuRefreshKind::nothing().with_usage()
}

fn look(system: &mut System) -> Sample {
    system.refresh_cpu_specifics(usage());
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let (mut total, mut available) = (system.total_memory(), system.available_memory());
    if let Some(limits) = system.cgroup_limits() {
        total = total.min(limits.total_memory);
        available = available.min(limits.free_memory);
    }
    let cpu_percent = f64::from(system.global_cpu_usage());
    let cpu_percent = if cpu_percent.is_finite() { cpu_percent } else { 0.0 };
    Sample { cpu_percent, total_bytes: total, available_bytes: available }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "of a machine's memory, bytes are not told"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

fn gigabytes(bytes: u64) -> f64 {
    float(bytes) / GB
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: GateRules = GateRules { cpu_percent: 80.0, memory_gb: 4.0 };

    fn refusal(cpu_percent: f64, available_gb: u64) -> Option<String> {
        let machine = Machine::default();
        let available_bytes = available_gb << 30;
        machine.see(Sample { cpu_percent, total_bytes: 8 << 30, available_bytes });
        machine.refusal(&RULES)
    }

    #[test]
    fn what_is_equal_passes_and_processors_come_first() {
        assert_eq!(refusal(80.0, 4), None);
        let cpu = "Insufficient system resources: CPU usage too high: 95.0% (threshold: 80.0%)";
        let memory = "Insufficient system resources: Insufficient memory: 2.0GB available (required: 4.0GB)";
        assert_eq!(refusal(95.0, 2).as_deref(), Some(cpu));
        assert_eq!(refusal(80.0, 2).as_deref(), Some(memory));
    }

    #[test]
    fn a_look_sees_memory_at_once_and_is_told_in_gigabytes() {
        let sample = Machine::new().latest();
        assert!(sample.total_bytes > 0 && sample.available_bytes <= sample.total_bytes, "{sample:?}");
        let half = Sample { cpu_percent: 12.34, total_bytes: 8 << 30, available_bytes: 6 << 30 };
        let shown = json!({"cpu_percent": 12.3, "memory_total_gb": 8.0, "memory_available_gb": 6.0, "memory_used_percent": 25.0});
        assert_eq!(half.shown(), shown);
        assert_eq!(Sample::default().shown()["memory_used_percent"], 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_watched_until_told_to_stop() {
        let (machine, stop) = (Arc::new(Machine::default()), CancellationToken::new());
        let seen = async {
            while machine.latest() == Sample::default() {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            stop.cancel();
        };
        tokio::join!(Arc::clone(&machine).watch(stop.clone()), seen);
    }
}
