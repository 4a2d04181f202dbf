use std::thread;

use super::*;
use crate::phase::{ExecutionEnd, Phase, Stages};

fn record(terminal: Terminal, total: Duration) -> Record {
    Record {
        request: RequestId::mint(),
        execution: Some(ExecutionId::mint()),
        principal: PrincipalId(1),
        tool: Arc::from("echo"),
        provider: Some(Arc::from("offline")),
        model: None,
        role: Some(Role::Leader),
        terminal,
        code: None,
        refusal: (terminal == Terminal::Rejected).then_some(Refusal::Queue),
        spent: Spent { total, ..Spent::default() },
        seen: None,
    }
}

#[test]
fn the_last_4096_are_found_by_their_own_principal_and_older_ones_are_forgotten() {
    let lifecycle = Lifecycle::new(CallLog::off());
    let requests: Vec<_> = (0..=KEPT_RECORDS)
        .map(|_| {
            let record = record(Terminal::Completed, Duration::ZERO);
            let request = record.request;
            lifecycle.ended(record);
            request
        })
        .collect();
    let [oldest, second, .., newest] = &*requests else { panic!("there are more than three") };
    let found = |request| lifecycle.find(PrincipalId(1), request).map(|record| record.request);
    assert_eq!([*oldest, *second, *newest].map(found), [None, Some(*second), Some(*newest)]);
    assert!(lifecycle.find(PrincipalId(2), *newest).is_none());
}

#[test]
fn each_call_counts_under_its_one_end_and_what_was_refused_took_no_time() {
    let lifecycle = Lifecycle::new(CallLog::off());
    let took = Duration::from_millis(8);
    for terminal in
        [Terminal::Completed, Terminal::Timeout, Terminal::Error, Terminal::Cancelled, Terminal::Rejected]
    {
        lifecycle.ended(record(terminal, took));
    }
    let totals = lifecycle.totals();
    let ends = [totals.completed, totals.timeout, totals.error, totals.cancelled, totals.rejected];
    assert_eq!((totals.calls, ends), (5, [1; 5]));
    assert_eq!(totals.refusals.iter().sum::<u64>(), 1);
    assert_eq!(totals.refusals[Refusal::Queue.index()], 1);
    let durations = lifecycle.durations();
    assert_eq!((durations.count, durations.p50, durations.average), (4, took, took));
}

#[test]
fn the_last_thousand_executions_are_summed_up_as_if_added_anew() {
    let executions = Executions::new(1);
    let marks = Stages::new(Instant::now()).marks();
    assert_eq!(executions.read(), (ExecutionTotals::default(), Recent::default()));
    for nth in 1..=1500_u64 {
        let end = if nth.is_multiple_of(3) { ExecutionEnd::Timeout } else { ExecutionEnd::Completed };
        executions.ended(end, &marks, Duration::from_micros(nth));
    }
    let (totals, recent) = executions.read();
    assert_eq!((totals.of(ExecutionEnd::Completed), totals.of(ExecutionEnd::Timeout)), (1000, 500));
    assert_eq!((totals.of(ExecutionEnd::Error), totals.finished()), (0, 1500));
    assert_eq!((totals.rate(ExecutionEnd::Timeout), totals.rate(ExecutionEnd::Error)), (0.333_333, 0.0));
    assert_eq!(totals.average, Duration::from_nanos(750_500));
    let last: Vec<u64> = (501..=1500).collect();
    let completed = last.iter().filter(|nth| !nth.is_multiple_of(3)).count();
    assert_eq!((recent.executions, recent.successful), (1000, completed));
    assert_eq!(recent.average, Duration::from_nanos(last.iter().sum::<u64>()));
}

#[test]
fn the_peak_stays_when_executions_go() {
    let executions = Executions::new(2);
    assert_eq!([executions.open(), executions.open(), executions.open()], [true, true, false]);
    executions.close();
    executions.close();
    assert!(executions.open());
    assert_eq!((executions.active(), executions.read().0.peak), (1, 2));
}

#[test]
fn a_hundred_writers_all_finish_while_everything_is_read_all_the_time() {
    const WRITERS: u64 = 100;
    const EACH: u64 = 200;
    let lifecycle = Lifecycle::new(CallLog::off());
    let executions = Executions::new(100);
    let started = Instant::now();
    let over = AtomicBool::new(false);
    let reads = [AtomicU64::new(0), AtomicU64::new(0)];
    let write = || {
        for _ in 0..EACH {
            let stages = Stages::new(started);
            stages.mark(Phase::SessionReleased, started);
            assert!(executions.open());
            lifecycle.opened();
            executions.ended(ExecutionEnd::Completed, &stages.marks(), Duration::from_micros(20));
            executions.close();
            let record = record(Terminal::Completed, Duration::from_micros(20));
            let request = record.request;
            lifecycle.ended(record);
            // Others may have filled the whole ring meanwhile.
            let found = lifecycle.find(PrincipalId(1), request);
            assert!(found.is_none_or(|found| found.request == request));
        }
    };
    let read = |reads: &AtomicU64| {
        let mut before = 0;
        // At least once after the last writer.
        loop {
            let last = over.load(Ordering::Acquire);
            let (totals, durations) = (lifecycle.totals(), lifecycle.durations());
            assert!(totals.calls >= before && durations.count <= WRITERS * EACH);
            before = totals.calls;
            let (ended, recent) = executions.read();
            assert!(recent.executions <= 1000 && ended.finished() <= WRITERS * EACH);
            reads.fetch_add(1, Ordering::Relaxed);
            if last {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for reads in &reads {
            scope.spawn(|| read(reads));
        }
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        let finished: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Release);
        assert!(finished.iter().all(Result::is_ok), "a writer died");
    });
    let totals = lifecycle.totals();
    assert_eq!(
        (totals.calls, totals.executions, totals.completed),
        (WRITERS * EACH, WRITERS * EACH, WRITERS * EACH)
    );
    let (ended, recent) = executions.read();
    assert_eq!((ended.finished(), recent.executions, recent.successful), (WRITERS * EACH, 1000, 1000));
    assert_eq!((ended.events, executions.active()), (WRITERS * EACH, 0));
    assert_eq!(lifecycle.durations().count, WRITERS * EACH);
    assert!(reads.iter().all(|reads| reads.load(Ordering::Relaxed) > 0), "readers were held up");
}
