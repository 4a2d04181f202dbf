use super::*;
use crate::ids::{ClientSessionId, ToolId};
use crate::provider::Reply;

const HOUR: Duration = Duration::from_secs(3600);

fn key(principal: u32, digest: u128) -> CallKey {
    CallKey {
        principal: PrincipalId(principal),
        session: None,
        tool: ToolId(1),
        definition: 0,
        ordinal: 0,
        digest,
    }
}

fn cache(bytes: usize) -> OutcomeCache {
    OutcomeCache::new(bytes, Duration::ZERO)
}

fn keep(cache: &OutcomeCache, key: CallKey, arguments: &[u8], text: &str, ttl: Duration) {
    cache.fill(key, arguments, &Ok(Reply::text(text).into()), ttl);
}

fn text(cache: &OutcomeCache, key: CallKey, arguments: &[u8]) -> Option<String> {
    cache.find(&key, arguments).map(|outcome| outcome.unwrap().content().to_owned())
}

/// Bytes that are kept for a principal, once all that waits to be done is done.
fn weight_of(cache: &OutcomeCache, principal: u32) -> u64 {
    let of_one = cache.by_principal.read().get(&PrincipalId(principal)).cloned().unwrap();
    of_one.run_pending_tasks();
    of_one.weighted_size()
}

#[test]
fn a_result_answers_its_equal_calls_and_no_other() {
    let cache = cache(1 << 20);
    keep(&cache, key(1, 7), b"{}", "kept", HOUR);
    assert!(text(&cache, key(1, 7), b"{}").unwrap().contains("kept"));
    assert_eq!(text(&cache, key(1, 7), b"[]"), None, "equal digests of other arguments");
    let other = key(1, 7);
    for other in [
        key(2, 7),
        key(1, 8),
        CallKey { tool: ToolId(2), ..other },
        CallKey { definition: 1, ..other },
        CallKey { ordinal: 1, ..other },
        CallKey { session: Some(ClientSessionId(1)), ..other },
    ] {
        assert_eq!(text(&cache, other, b"{}"), None, "{other:?}");
    }
}

/// The cache goes by the machine's own clock, which nobody can move: it is looked at until the time is over.
#[test]
fn a_result_goes_when_its_own_time_is_over() {
    let cache = cache(1 << 20);
    keep(&cache, key(1, 1), b"", "long", HOUR);
    keep(&cache, key(1, 2), b"", "short", Duration::from_millis(1));
    let begun = Instant::now();
    while cache.find(&key(1, 2), b"").is_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is never let go of");
        std::thread::yield_now();
    }
    assert!(cache.find(&key(1, 1), b"").is_some());
    keep(&cache, key(1, 2), b"", "again", HOUR);
    assert!(cache.find(&key(1, 2), b"").is_some(), "one that is filled again has its new time");
}

#[test]
fn results_are_bounded_in_bytes_and_one_principals_push_out_nobody_elses() {
    const ROOM: usize = 64 * 1024;
    let cache = cache(ROOM);
    keep(&cache, key(1, 0), b"", "of another", HOUR);
    let long = "x".repeat(4096);
    for number in 0..1000 {
        keep(&cache, key(2, number), b"", &long, HOUR);
    }
    let kept = weight_of(&cache, 2);
    assert!(kept <= ROOM.try_into().unwrap(), "{kept} bytes");
    assert!(cache.entries() < 20, "{} entries", cache.entries());
    assert!(cache.find(&key(1, 0), b"").is_some());
    keep(&cache, key(2, 5000), b"", &"x".repeat(2 * ROOM), HOUR);
    weight_of(&cache, 2);
    assert!(cache.find(&key(2, 5000), b"").is_none(), "one larger than all the room is not kept");
    keep(&cache, key(3, 0), &vec![b'x'; 2 * ROOM], "short", HOUR);
    weight_of(&cache, 3);
    assert!(cache.find(&key(3, 0), &vec![b'x'; 2 * ROOM]).is_none(), "arguments count as well");
}

#[test]
fn what_failed_or_lacks_parts_is_never_kept() {
    let cache = cache(1 << 20);
    let mut failed = Reply::text("it failed");
    failed.is_error = true;
    let mut partial = Reply::text("half of it");
    partial.is_partial = true;
    for outcome in [
        Ok(failed.into()),
        Ok(partial.into()),
        Err(CallError::Lost.into()),
        Err(CallError::Cancelled.into()),
        Err(CallError::ShuttingDown.into()),
    ] {
        cache.fill(key(1, 1), b"", &outcome, HOUR);
        assert!(cache.find(&key(1, 1), b"").is_none(), "{outcome:?}");
    }
    // Nobody knows whether it was done: its twin within the guard window must not do it once more.
    let unknown = CallError::OutcomeUnknown { tool: Arc::from("post"), what: "was stopped" };
    cache.fill(key(1, 1), b"", &Err(unknown.into()), HOUR);
    assert!(cache.find(&key(1, 1), b"").is_some_and(|outcome| outcome.is_err()));
}
