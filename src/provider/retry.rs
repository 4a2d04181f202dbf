//! When a call is worth another attempt, and how many of those a provider gets.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::RetryRules;
use crate::provider::Fault;
use crate::provider::recent::Recent;

/// The time over which attempts are counted.
const OVER: Duration = Duration::from_secs(10);

/// So many more attempts there may be in that time whatever else happens…
const FREE: u64 = 10;

/// …and one for so many calls: 20 %.
const CALLS_FOR_ONE: u64 = 5;

/// However often a call has failed, nobody learns more by waiting longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Longer than this nobody is left alone: a caller had better ask somebody else.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// What a `Retry-After` asks for, in seconds or as a date ([RFC 9110, 10.2.3]); a date that has passed asks for nothing.
///
/// [RFC 9110, 10.2.3]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
pub fn asked(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(asked.min(LONGEST_REST))
}

/// One provider's budget of further attempts: a provider that fails is not flooded with what it could not do before.
#[derive(Debug)]
pub struct RetryBudget {
    calls: Recent,
    retries: Mutex<Recent>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { calls: Recent::over(OVER), retries: Mutex::new(Recent::over(OVER)) }
    }
}

impl RetryBudget {
    /// A call is made for the first time.
    pub fn called(&self, now: Instant) {
        self.calls.add(now);
    }

    /// Takes one further attempt, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let retries = self.retries.lock();
        let there = retries.count(now) < FREE + self.calls.count(now) / CALLS_FOR_ONE;
        if there {
            retries.add(now);
        }
        there
    }
}

/// What comes after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it failed.
    GiveUp,
    /// Another attempt after so long, at the expense of the budget.
    Again(Duration),
    /// Another attempt after so long, as the provider asked: then it has said itself what it can take.
    AsAsked(Duration),
}

/// What comes after attempt number `attempt`, the first being 1, has failed so. `repeatable`: doing the work twice does
/// no harm. A call that may have been done, and must not be done twice, is never attempted again.
pub fn after(fault: &Fault, attempt: u32, repeatable: bool, rules: &RetryRules) -> Next {
    let was_asked = !matches!(fault, Fault::NotAsked(_));
    if !was_asked || !fault.retryable() || !(repeatable || fault.surely_not_done()) || rules.attempts <= 1 {
        return Next::GiveUp;
    }
    match fault.pause() {
        Some(asked) => Next::AsAsked(asked),
        None if attempt >= rules.attempts => Next::GiveUp,
        None => Next::Again(backoff(attempt, rules.backoff)),
    }
}

/// Twice as long after each attempt, half of it by chance, so that those who failed together do not come together again.
fn backoff(attempt: u32, first: Duration) -> Duration {
    let whole = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Cost;
    use crate::lifecycle::spend::Exhausted;
    use crate::provider::NotAsked;

    const RULES: RetryRules = RetryRules { attempts: 3, backoff: Duration::from_millis(400) };

    fn refused(status: u16, retry_after: Option<u64>) -> Fault {
        let retry_after = retry_after.map(Duration::from_secs);
        Fault::Refused { provider: Arc::from("kimi"), status, code: None, retry_after }
    }

    fn broken() -> Fault {
        Fault::Broken { provider: Arc::from("kimi"), reason: "on purpose" }
    }

    fn unreachable() -> Fault {
        Fault::Unreachable { provider: Arc::from("kimi"), reason: "on purpose" }
    }

    fn is_again(next: Next) -> bool {
        matches!(next, Next::Again(_))
    }

    #[test]
    fn what_may_be_done_twice_is_attempted_again_after_any_fault_that_may_pass() {
        for fault in [refused(500, None), refused(503, None), refused(429, None), broken(), unreachable()] {
            assert!(is_again(after(&fault, 1, true, &RULES)), "{fault}");
        }
        let exhausted = Exhausted { limit: Cost::default(), retry_after: Duration::from_secs(1) };
        let spent = Fault::NotAsked(NotAsked::Spent(exhausted));
        for fault in [refused(400, None), refused(401, None), refused(404, None), spent] {
            assert_eq!(after(&fault, 1, true, &RULES), Next::GiveUp, "{fault}");
        }
    }

    #[test]
    fn a_write_is_attempted_again_only_where_it_surely_was_not_begun() {
        for fault in [refused(503, None), refused(429, None), unreachable()] {
            assert!(is_again(after(&fault, 1, false, &RULES)), "{fault}");
        }
        for fault in [refused(500, None), refused(502, None), refused(504, None), broken()] {
            assert_eq!(after(&fault, 1, false, &RULES), Next::GiveUp, "{fault}");
        }
    }

    #[test]
    fn attempts_are_numbered_and_their_number_is_bounded() {
        let spans = |attempt| match after(&broken(), attempt, true, &RULES) {
            Next::Again(span) => span.as_millis(),
            other => panic!("{other:?}"),
        };
        for _ in 0..100 {
            assert!((200..=400).contains(&spans(1)), "half of it is by chance");
            assert!((400..=800).contains(&spans(2)));
        }
        assert_eq!(after(&broken(), 3, true, &RULES), Next::GiveUp);
        let once = RetryRules { attempts: 1, ..RULES };
        assert_eq!(after(&broken(), 1, true, &once), Next::GiveUp);
        assert!(backoff(40, Duration::from_secs(20)) <= LONGEST_BACKOFF);
    }

    #[test]
    fn a_provider_that_says_when_to_come_back_is_asked_then() {
        for status in [429, 503] {
            let asked = Next::AsAsked(Duration::from_secs(2));
            assert_eq!(after(&refused(status, Some(2)), 9, false, &RULES), asked);
        }
        let no_throttle = refused(500, Some(2));
        assert!(is_again(after(&no_throttle, 1, true, &RULES)), "an error that names a time is no pause");
    }

    #[test]
    fn when_to_come_back_is_a_number_of_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let secs = |secs| Some(Duration::from_secs(secs));
        for (text, expected) in [
            ("2", secs(2)),
            (" 0 ", secs(0)),
            ("86400", secs(3600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", secs(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", secs(30)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", secs(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", secs(3600)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            assert_eq!(asked(text, now), expected, "{text}");
        }
    }

    #[test]
    fn a_budget_is_ten_attempts_and_one_for_five_calls_in_ten_seconds() {
        let now = Instant::now();
        let budget = RetryBudget::default();
        let taken = |now| (0..100).filter(|_| budget.take(now)).count();
        assert_eq!(taken(now), 10);
        (0..50).for_each(|_| budget.called(now));
        assert_eq!(taken(now), 10, "20 % of 50 calls");
        let later = now + Duration::from_secs(11);
        assert_eq!(taken(later), 10, "those calls are over, and so are the attempts");
    }
}
