//! The one budget for waiting: slot, queue and permits share it, and the work has none of it.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::caller::Caller;
use crate::call::flight::Flight;
use crate::call::outcome::CallError;
use crate::call::queue::{Claim, Permit, Pool};
use crate::deadline::Deadline;

/// What one Run may wait, and as whom it waits.
pub(super) struct Budget<'a> {
    /// Whose Run it is: its class is the highest of its waiters', whenever they come.
    pub(super) flight: &'a Flight,
    /// Its opener.
    pub(super) caller: &'a Caller,
    /// When the waiting began.
    pub(super) since: Instant,
    /// When it must be over.
    pub(super) until: Deadline,
    /// The drain has begun. Providers' pools are closed then; those of sessions are not the path's to close.
    pub(super) closing: &'a CancellationToken,
    /// It had its permits before, and gave them back to come again.
    pub(super) returns: bool,
}

impl Budget<'_> {
    /// A permit of this pool, and when it was had: `now`, where there was no wait.
    pub(super) async fn turn(&self, pool: &Arc<Pool>, now: Instant) -> Result<(Permit, Instant), CallError> {
        if let Some(permit) = pool.try_take() {
            return Ok((permit, now));
        }
        let waiting = pool.queue(&self.claim())?;
        self.flight.waits_at(waiting.place());
        let had = tokio::select! {
            biased;
            had = self.until.limit(waiting) => had,
            () = self.closing.cancelled() => Ok(Err(CallError::ShuttingDown)),
        };
        self.flight.waits_at(None);
        let permit = had.unwrap_or_else(|_| {
            Err(CallError::QueueTimeout {
                name: Arc::clone(pool.name()),
                waited: self.since.elapsed(),
                retry_after: pool.retry_after(&Claim { since: Instant::now(), ..self.claim() }),
            })
        })?;
        Ok((permit, Instant::now()))
    }

    /// The same, where there is such a pool.
    pub(super) async fn turn_if(
        &self,
        pool: Option<&Arc<Pool>>,
        now: Instant,
    ) -> Result<(Option<Permit>, Instant), CallError> {
        let Some(pool) = pool else { return Ok((None, now)) };
        let (permit, at) = self.turn(pool, now).await?;
        Ok((Some(permit), at))
    }

    fn claim(&self) -> Claim {
        let (class, of_use_until) = self.flight.claims();
        Claim {
            principal: self.caller.principal.id,
            session: self.caller.session.id,
            class,
            since: self.since,
            until: of_use_until.map_or(self.until, |until| until.min(self.until)),
            returns: self.returns,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::call::{
        Answer, Call, Caller, Calls, ClientSession, Code, Options, Principal, Priority, Submitted, Waiter,
    };
    use crate::config::{self, PrincipalConfig, Sources};
    use crate::ids::{ClientSessionId, PrincipalId};
    use crate::lifecycle::Lifecycle;
    use crate::provider::catalog::Catalog;
    use crate::tasks::Tasks;
    use crate::telemetry::CallLog;
    use crate::tool::Registry;

    /// A provider that does one call at a time, each in a second.
    fn calls() -> Calls {
        let flags = [("OFFLINE_MAX_INFLIGHT", "1"), ("OFFLINE_LATENCY_MS", "1000")];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = config::resolve(Sources { flags, ..Sources::default() }).unwrap().config;
        let registry = Registry::new(Catalog::new(&config).unwrap(), &[], &config.ladder).unwrap();
        Calls::new(&config, registry, std::sync::Arc::new(Lifecycle::new(CallLog::off())), Tasks::default())
    }

    fn submit(calls: &Calls, text: &str, options: Options) -> Submitted {
        let session = ClientSession::new(ClientSessionId(1), 8, 100).into();
        let principal = Principal::new(PrincipalId(0), &PrincipalConfig::plain("somebody"), 1).into();
        let arguments = format!(r#"{{"text":"{text}"}}"#);
        let call = Call { id: None, tool: "echo", arguments: &arguments, extra: None, options };
        calls.submit(&Caller { principal, session, attachment: None }, call)
    }

    fn wait(calls: &Calls, text: &str, priority: Priority) -> Waiter {
        match submit(calls, text, Options { priority, ..Options::default() }) {
            Submitted::Waiting(waiter) => waiter,
            Submitted::Answered(answer) => panic!("{text}: {:?}", answer.outcome),
        }
    }

    async fn seconds(mut waiter: Waiter) -> u64 {
        waiter.answer().await.spent.total.as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_flight_joined_by_a_high_caller_is_served_as_high() {
        let calls = calls();
        let first = wait(&calls, "first", Priority::Medium);
        let low = wait(&calls, "low", Priority::Low);
        let medium = wait(&calls, "medium", Priority::Medium);
        tokio::task::yield_now().await;
        let joined = wait(&calls, "low", Priority::High);
        let ends = tokio::join!(seconds(first), seconds(low), seconds(joined), seconds(medium));
        assert_eq!(ends, (1, 2, 2, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_counts_as_its_highest_waiter_only_while_that_one_waits() {
        let calls = calls();
        let first = wait(&calls, "first", Priority::Medium);
        let low = wait(&calls, "low", Priority::Low);
        let medium = wait(&calls, "medium", Priority::Medium);
        tokio::task::yield_now().await;
        wait(&calls, "low", Priority::High).cancel_handle().cancel();
        let ends = tokio::join!(seconds(first), seconds(low), seconds(medium));
        assert_eq!(ends, (1, 3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_its_caller_cannot_wait_for_is_refused_at_once() {
        let calls = calls();
        for round in 0..8 {
            assert_eq!(seconds(wait(&calls, &round.to_string(), Priority::Medium)).await, 1);
        }
        let waiters: Vec<_> =
            ["a", "b", "c", "d", "e", "f"].map(|text| wait(&calls, text, Priority::Medium)).into();
        let within = |secs| Options { timeout: Some(Duration::from_secs(secs)), ..Options::default() };
        assert!(matches!(submit(&calls, "g", within(3)), Submitted::Waiting(_)), "that may still come");
        let Submitted::Answered(Answer { outcome, .. }) = submit(&calls, "h", within(1)) else {
            panic!("it waits in vain")
        };
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.retry_after_ms()), (Code::OverCapacity, Some(7_000)), "{error}");
        drop(waiters);
    }
}
