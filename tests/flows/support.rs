//! Waits with a bound, and the scenarios' daemon, clients and providers.

use std::future::Future;
use std::time::Duration;

#[path = "../scenarios/support/daemon.rs"]
#[allow(dead_code, reason = "the scenarios use all of it")]
pub mod daemon;
#[path = "../scenarios/support/mcp.rs"]
#[allow(dead_code, reason = "the scenarios use all of it")]
pub mod mcp;
#[path = "../scenarios/support/program.rs"]
#[allow(dead_code, reason = "the scenarios use all of it")]
pub mod program;
#[path = "../scenarios/support/provider.rs"]
#[allow(dead_code, reason = "the scenarios use all of it")]
pub mod provider;
#[path = "../scenarios/support/wire.rs"]
#[allow(dead_code, reason = "the scenarios use all of it")]
pub mod wire;

/// The bound of every wait: far above what a busy machine takes, so that reaching it is a failure.
pub const BOUND: Duration = Duration::from_secs(60);

/// Waits for something that must come.
pub async fn within<F: Future>(what: &str, work: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(BOUND, work).await else {
        panic!("{what} did not come within {BOUND:?}");
    };
    output
}

/// Looks again and again until `look` sees what must come.
pub async fn until(what: &str, mut look: impl FnMut() -> bool) {
    within(what, async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
