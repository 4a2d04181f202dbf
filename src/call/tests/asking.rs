//! Work that asks whoever waits for it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::rig::{Rig, code, end, pass, peek, secs, settle, text};
use crate::call::{Caller, Code, News, Options, Submitted, Waiter};
use crate::ids::QuestionId;
use crate::provider::asking::{Can, Method, Question, Said};
use crate::provider::{Context, Fault, Job, Reply};
use crate::tool::{Dedup, Effect, PlainWork, Worth};

/// Asks for a form as often as `times` says, and answers with what was said; the label `all at once` says how.
#[derive(Debug)]
struct Inquire;

struct Inquiry {
    times: usize,
    at_once: bool,
    panics: bool,
}

impl PlainWork for Inquire {
    fn job(&self, arguments: &Value) -> Box<dyn Job> {
        let times = arguments.get("times").and_then(Value::as_u64).unwrap_or(1);
        let is = |label: &str| arguments.get("k").and_then(Value::as_str) == Some(label);
        let times = usize::try_from(times).unwrap();
        Box::new(Inquiry { times, at_once: is("all at once"), panics: is("panics") })
    }
}

impl Job for Inquiry {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        async move {
            let ask = context.ask.unwrap();
            let question = Arc::new(Question::new(Method::Elicit, None));
            let each = (0..self.times).map(|_| ask.ask(Arc::clone(&question)));
            let said = if self.at_once {
                futures_util::future::join_all(each).await
            } else {
                let mut said = Vec::new();
                for one in each {
                    said.push(one.await);
                }
                said
            };
            assert!(!self.panics, "on purpose");
            let said = said.iter().map(|said| match said {
                Ok(said) => said.member(),
                Err(nobody) => nobody.to_string(),
            });
            Ok(Reply::text(&said.collect::<Vec<_>>().join(" ")))
        }
        .boxed()
    }

    fn asks(&self) -> bool {
        true
    }
}

fn rig(keys: &[(&str, &str)]) -> Rig {
    let rig = Rig::new(keys);
    let mut registry = (*rig.calls.registry()).clone();
    for (name, effect) in [("inquire", Effect::Read), ("order", Effect::Write)] {
        registry.add_custom(name, effect, Worth::Cheap, Box::new(Inquire), &rig.config.ladder).unwrap();
    }
    rig.calls.offer_anew(registry);
    rig
}

fn can(can: Can) -> Options {
    Options { can, dedup: Some(Dedup::Principal), ..Options::default() }
}

fn waits(rig: &Rig, caller: &Caller, options: Options) -> Waiter {
    rig.wait_with(caller, "inquire", "same", options)
}

/// The question that a caller is asked now, if it is.
fn asked(waiter: &mut Waiter) -> Option<QuestionId> {
    match std::future::poll_fn(|cx| waiter.poll_news(cx)).now_or_never()? {
        News::Question(id, question) => {
            assert_eq!(question.method, Method::Elicit);
            Some(id)
        }
        other => panic!("{other:?}"),
    }
}

fn accept(n: u32) -> Said {
    Said::Result(format!("{{\"n\":{n}}}").into())
}

#[tokio::test(start_paused = true)]
async fn the_earliest_who_can_is_asked_and_then_the_next_and_then_nobody() {
    let rig = rig(&[]);
    let callers: Vec<_> = (0..4).map(|n| rig.caller(0, n)).collect();
    // It asks at its first poll, when nobody is there who can.
    let arguments = r#"{"k":"same"}"#;
    let Submitted::Answered(alone) = rig.submit(&callers[0], "inquire", arguments, can(Can::SAMPLING)) else {
        panic!("somebody is asked")
    };
    assert_eq!(text(&alone), "nobody is there who could answer");
    let mut opener = waits(&rig, &callers[3], can(Can::FORMS));
    let mut cannot = waits(&rig, &callers[0], can(Can::SAMPLING));
    let [mut first, mut second] = [1, 2].map(|n| waits(&rig, &callers[n], can(Can::FORMS.and(Can::ROOTS))));
    settle().await;
    let id = asked(&mut opener).unwrap();
    assert_eq!((asked(&mut first), asked(&mut second)), (None, None), "one at a time");
    assert_eq!(asked(&mut cannot), None);
    opener.cancel_handle().cancel();
    let next = asked(&mut first).unwrap();
    assert!(!opener.said(id, accept(1)), "who has left says nothing");
    assert!(!second.said(next, accept(2)), "who was not asked says nothing");
    drop(first);
    let last = asked(&mut second).unwrap();
    assert!(second.said(last, accept(3)) && !second.said(last, accept(4)), "once");
    assert_eq!(text(&end(&mut second).await), "\"result\":{\"n\":3}");
    assert_eq!(code(&end(&mut opener).await), Some(Code::Cancelled));
    assert_eq!(text(&end(&mut cannot).await), "\"result\":{\"n\":3}");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn where_the_last_who_could_has_left_the_others_get_their_answer() {
    let rig = rig(&[]);
    let mut opener = waits(&rig, &rig.caller(0, 1), can(Can::FORMS));
    let mut other = waits(&rig, &rig.caller(0, 2), can(Can::NOTHING));
    settle().await;
    assert!(asked(&mut opener).is_some());
    drop(opener);
    assert_eq!(text(&end(&mut other).await), "nobody is there who could answer");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn while_somebody_thinks_others_work_and_the_answer_waits_for_the_permit() {
    let rig = rig(&[("GLOBAL_MAX_INFLIGHT", "1")]);
    let global = || rig.calls.pools().0;
    let mut asks = waits(&rig, &rig.caller(0, 1), can(Can::FORMS));
    settle().await;
    let id = asked(&mut asks).unwrap();
    assert_eq!(global().in_use, 0);
    let held = rig.calls.leases().holders();
    assert!(held.len() == 1 && held[0].rests);
    let (mut works, piece) = rig.at_work("look", "a");
    let mut waits_behind = rig.wait(&rig.caller(0, 3), "look", "b");
    settle().await;
    asks.said(id, accept(1));
    settle().await;
    assert!(peek(&mut asks).is_none(), "nothing goes on without the permit");
    assert_eq!((global().in_use, global().queued), (1, 2));
    rig.stage.order(piece, super::stage::Order::answer("done"));
    assert_eq!(text(&end(&mut works).await), "done");
    // Who gave it back comes before who never had one.
    assert_eq!(text(&end(&mut asks).await), "\"result\":{\"n\":1}");
    settle().await;
    rig.stage.order(rig.stage.find("b"), super::stage::Order::answer("b"));
    assert_eq!(text(&end(&mut waits_behind).await), "b");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_run_goes_on_while_its_caller_thinks() {
    let rig = rig(&[("WORKFLOW_TOOL_TIMEOUT_SECS", "20")]);
    let mut asks = waits(&rig, &rig.caller(0, 1), can(Can::FORMS));
    settle().await;
    let id = asked(&mut asks).unwrap();
    pass(secs(20)).await;
    assert_eq!(code(&end(&mut asks).await), Some(Code::Timeout));
    assert!(!asks.said(id, accept(1)), "too late");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn several_questions_are_open_at_once_and_no_more_than_a_person_answers() {
    let rig = rig(&[]);
    let arguments = r#"{"k":"all at once","times":20}"#;
    let Submitted::Waiting(mut asks) = rig.submit(&rig.caller(0, 1), "inquire", arguments, can(Can::FORMS))
    else {
        panic!("it asks")
    };
    settle().await;
    let ids: Vec<_> = std::iter::from_fn(|| asked(&mut asks)).collect();
    assert_eq!(ids.len(), 16);
    for (n, id) in (0..16).zip(ids).rev() {
        assert!(asks.said(id, accept(n)));
        settle().await;
    }
    let text = text(&end(&mut asks).await);
    assert!(text.starts_with("\"result\":{\"n\":0} \"result\":{\"n\":1}"), "{text}");
    assert_eq!(text.matches("nobody").count(), 4, "{text}");
    rig.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn panic_cancel_and_the_end_of_the_daemon_give_everything_back() {
    let rig = rig(&[]);
    let caller = rig.caller(0, 1);
    let mut panics = rig.wait_with(&caller, "order", "panics", can(Can::FORMS));
    settle().await;
    let id = asked(&mut panics).unwrap();
    panics.said(id, accept(1));
    assert_eq!(code(&end(&mut panics).await), Some(Code::OutcomeUnknown));
    rig.assert_at_rest();
    let mut cancelled = rig.wait_with(&caller, "order", "a", can(Can::FORMS));
    settle().await;
    assert!(asked(&mut cancelled).is_some());
    cancelled.cancel_handle().cancel();
    assert_eq!(code(&end(&mut cancelled).await), Some(Code::Cancelled));
    settle().await;
    rig.assert_at_rest();
    let mut caught = rig.wait_with(&caller, "order", "b", can(Can::FORMS));
    settle().await;
    assert!(asked(&mut caught).is_some());
    rig.calls.start_draining();
    assert_eq!(code(&end(&mut caught).await), Some(Code::OutcomeUnknown));
    rig.assert_at_rest();
}

/// Many Runs that ask, answer, leave and work at random: no bound is passed, and all is given back.
#[tokio::test(start_paused = true)]
async fn whatever_people_do_no_bound_is_passed_and_nothing_is_left_behind() {
    let rig = rig(&[("GLOBAL_MAX_INFLIGHT", "2"), ("OFFLINE_MAX_INFLIGHT", "6")]);
    let mut chance = fastrand::Rng::with_seed(7);
    let mut waiting: Vec<(Waiter, Vec<QuestionId>)> = Vec::new();
    for round in 0..600_u64 {
        match chance.u8(0..6) {
            0 | 1 if waiting.len() < 30 => {
                let caller = rig.caller(chance.u32(0..3), round);
                let label = if chance.bool() { "all at once" } else { "same" };
                let arguments =
                    format!(r#"{{"k":"{label}","times":{},"n":{}}}"#, chance.u8(1..4), chance.u8(0..9));
                let tool = if chance.bool() { "inquire" } else { "order" };
                if let Submitted::Waiting(waiter) =
                    rig.submit(&caller, tool, &arguments, Options { can: Can::FORMS, ..Options::default() })
                {
                    waiting.push((waiter, Vec::new()));
                }
            }
            2 if !waiting.is_empty() => drop(waiting.swap_remove(chance.usize(0..waiting.len()))),
            3 if !waiting.is_empty() => waiting[chance.usize(0..waiting.len())].0.cancel_handle().cancel(),
            _ if !waiting.is_empty() => {
                let place = chance.usize(0..waiting.len());
                let (waiter, ids) = &mut waiting[place];
                if let Some(id) = ids.pop() {
                    waiter.said(id, accept(1));
                }
            }
            _ => {}
        }
        settle().await;
        waiting.retain_mut(|(waiter, ids)| {
            loop {
                match std::future::poll_fn(|cx| waiter.poll_news(cx)).now_or_never() {
                    Some(News::Question(id, _)) => ids.push(id),
                    Some(News::Answer(_)) => return false,
                    Some(_) => {}
                    None => return true,
                }
            }
        });
        let (global, providers) = rig.calls.pools();
        assert!(global.in_use <= 2, "round {round}");
        assert!(providers.iter().all(|(_, view)| view.in_use <= view.limit), "round {round}");
        let working = rig.calls.leases().holders().iter().filter(|holder| !holder.rests).count();
        assert!(working <= global.in_use, "round {round}");
    }
    drop(waiting);
    pass(secs(3)).await;
    pass(secs(400)).await;
    rig.assert_at_rest();
}

mod parked;
