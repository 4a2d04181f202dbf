//! A composite's children wait in the class that it has, whoever joins it or leaves it while they wait.

use serde_json::{Value, json};

use crate::call::tests::rig::{Rig, end, settle};
use crate::call::tests::stage::Order;
use crate::call::{Caller, Options, Priority, Submitted, Waiter};

fn call(rig: &Rig, caller: &Caller, tool: &str, arguments: &Value, priority: Priority) -> Waiter {
    let options = Options { priority, ..Options::default() };
    match rig.submit(caller, tool, &arguments.to_string(), options) {
        Submitted::Waiting(waiter) => waiter,
        Submitted::Answered(answer) => panic!("answered at once: {:?}", answer.outcome),
    }
}

fn ask(rig: &Rig, session: u64, prompt: &str, priority: Priority) -> Waiter {
    let models = json!([{}]);
    call(rig, &rig.caller(0, session), "consensus", &json!({"prompt": prompt, "models": models}), priority)
}

fn chat(rig: &Rig, session: u64, prompt: &str, priority: Priority) -> Waiter {
    call(rig, &rig.caller(0, session), "chat", &json!({"prompt": prompt}), priority)
}

/// Two are at work, and a chat of the middle class waits before the child of a composite of the lowest.
async fn child_behind_a_chat(rig: &Rig) -> Vec<Waiter> {
    let busy = ["x", "y"].map(|prompt| chat(rig, 1, prompt, Priority::Medium));
    settle().await;
    let chat = chat(rig, 2, "chat", Priority::Medium);
    let composite = ask(rig, 3, "child", Priority::Low);
    settle().await;
    busy.into_iter().chain([chat, composite]).collect()
}

/// Who works once the first of those at work is done.
async fn next(rig: &Rig) -> String {
    rig.stage.order(rig.stage.find("x"), Order::answer("done"));
    settle().await;
    let running = rig.stage.running();
    running.into_iter().find(|label| label != "y").unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_anybody_who_joins_the_child_waits_in_the_class_of_its_composite() {
    let rig = Rig::new(&[]);
    let _waiters = child_behind_a_chat(&rig).await;
    assert_eq!(next(&rig).await, "chat");
}

#[tokio::test(start_paused = true)]
async fn a_high_caller_that_joins_a_composite_raises_its_child_that_waits() {
    let rig = Rig::new(&[]);
    let _waiters = child_behind_a_chat(&rig).await;
    let _high = ask(&rig, 4, "child", Priority::High);
    assert_eq!(next(&rig).await, "child");
}

#[tokio::test(start_paused = true)]
async fn when_the_high_caller_leaves_the_child_falls_back() {
    for left in ["taken back", "connection gone"] {
        let rig = Rig::new(&[]);
        let _waiters = child_behind_a_chat(&rig).await;
        let high = ask(&rig, 4, "child", Priority::High);
        settle().await;
        if left == "taken back" {
            high.cancel_handle().cancel();
        }
        drop(high);
        assert_eq!(next(&rig).await, "chat", "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_others_wait_for_falls_back_to_their_class_and_no_lower() {
    let rig = Rig::new(&[]);
    let _waiters = child_behind_a_chat(&rig).await;
    let _direct = chat(&rig, 5, "child", Priority::High);
    let joined = ask(&rig, 4, "child", Priority::High);
    settle().await;
    joined.cancel_handle().cancel();
    drop(joined);
    assert_eq!(next(&rig).await, "child");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_comes_after_the_high_caller_waits_as_high() {
    let rig = Rig::new(&[("CONSENSUS_MAX_INFLIGHT", "1")]);
    let mut before = ask(&rig, 6, "before", Priority::Medium);
    settle().await;
    let composite = ask(&rig, 3, "child", Priority::Low);
    let _high = ask(&rig, 4, "child", Priority::High);
    rig.stage.order(rig.stage.find("before"), Order::answer("done"));
    // Its slot comes free for the next composite while two others fill the provider.
    let _busy = ["x", "y"].map(|prompt| chat(&rig, 1, prompt, Priority::Medium));
    let _chat = chat(&rig, 2, "chat", Priority::Medium);
    end(&mut before).await;
    settle().await;
    let running = rig.stage.running();
    if !running.iter().any(|label| label == "child") {
        rig.stage.order(rig.stage.find(&running[0]), Order::answer("done"));
        settle().await;
    }
    assert!(rig.stage.running().iter().any(|label| label == "child"), "{:?}", rig.stage.running());
    drop(composite);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_has_ended_is_followed_no_more() {
    let rig = Rig::new(&[]);
    let arguments = json!({"prompt": "child", "models": [{}, {}]});
    let mut composite = call(&rig, &rig.caller(0, 3), "consensus", &arguments, Priority::Low);
    settle().await;
    assert_eq!(composite.seat().0.followers(), 2);
    rig.stage.order(rig.stage.find("child"), Order::answer("first"));
    settle().await;
    assert_eq!(composite.seat().0.followers(), 1);
    rig.stage.order(rig.stage.find("child"), Order::answer("second"));
    end(&mut composite).await;
    settle().await;
    assert_eq!(composite.seat().0.followers(), 0);
    rig.assert_at_rest();
}
