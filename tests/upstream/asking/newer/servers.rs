//! Servers of the newer era, which ask by results, and clients of either.

use super::*;

fn stateless() -> Value {
    fake_with(&["--stateless"], &json!({}))
}

fn twice() -> Value {
    let mut form = form("how old?");
    form["times"] = json!(2);
    form
}

/// What a client brings back: the server's own state, and this for its only question.
fn back(asked: &Value, said: &Value) -> Value {
    json!({"requestState": asked["result"]["requestState"], "inputResponses": {"the question": said}})
}

#[tokio::test]
async fn a_newer_server_and_a_newer_client_speak_through_the_daemon_as_if_it_were_not_there() {
    let daemon = Daemon::of(stateless()).await;
    let mut client = daemon.client().await;
    let calls = daemon.hub.calls.clone();
    let asked = client.newer("fake__inquire", twice(), json!({})).await;
    let (name, question) = only_question(&asked);
    assert_eq!((&*name, &question), ("the question", &form("how old?")));
    assert_eq!((&asked["result"]["requestState"], &asked["result"]["x"]), (&json!("état 1"), &json!(1.5)));
    assert_eq!(calls.flights().executions(), 0, "nothing is kept for it");
    let more = json!({"action": "accept", "content": {"age": 7}});
    let asked = client.newer("fake__inquire", twice(), back(&asked, &more)).await;
    assert_eq!(asked["result"]["requestState"], "état 2");
    let answer = client.newer("fake__inquire", twice(), back(&asked, &more)).await;
    assert_eq!(answer["result"]["resultType"], "complete");
    let heard = heard(&answer);
    assert_eq!((&heard["responses"]["the question"], &heard["state"]), (&more, &json!("état 2")));
    let declared = &heard["meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(*declared, json!({"elicitation": {"form": {}}, "roots": {}, "sampling": {}}));
}

#[tokio::test]
async fn a_newer_server_asks_an_older_client_by_requests_of_the_daemon() {
    let daemon = Daemon::of(stateless()).await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", twice()).await;
    for age in [7, 8] {
        let question = client.question().await;
        assert_eq!(
            (&question["method"], &question["params"]),
            (&json!("elicitation/create"), &form("how old?")["params"])
        );
        client.says(&question, json!({"action": "accept", "content": {"age": age}})).await;
    }
    let answer = client.answer(id).await;
    let heard = heard(&answer);
    assert_eq!(heard["responses"]["the question"]["content"]["age"], 8);
    assert_eq!(heard["state"], "état 2");
    // Somebody who says no to something else than a form has no result to give: the call ends with that.
    let id = client.begin("fake__inquire", json!({"method": "sampling/createMessage"})).await;
    let question = client.question().await;
    let no = json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "not today"}});
    client.wire.send(&no).await;
    let refused = client.answer(id).await;
    assert_eq!(code(&refused), "PROVIDER_ERROR");
    assert_eq!(text(&refused), "fake answered with error -1: not today");
}

#[tokio::test]
async fn a_newer_server_is_told_what_its_caller_can_and_a_form_for_nobody_is_declined() {
    let daemon = Daemon::of(stateless()).await;
    let mut client = daemon.client().await;
    let heard = heard(&client.call("fake__inquire", form("x")).await);
    assert_eq!(heard["responses"]["the question"], json!({"action": "decline"}));
    assert_eq!(heard["meta"]["io.modelcontextprotocol/clientCapabilities"], json!({}));
    let asks_on = json!({"method": "elicitation/create", "times": 1000});
    assert_eq!(
        code(&client.call("fake__inquire", asks_on).await),
        "OUTCOME_UNKNOWN",
        "it asks again and again"
    );
}

#[tokio::test]
async fn where_an_older_client_waits_too_the_newer_one_is_asked_through_a_parked_run() {
    let daemon = Daemon::of(stateless()).await;
    let (mut newer, mut older) = (daemon.client().await, daemon.client().await);
    let gate = daemon.folder.path("gate");
    // Both wait for the same call before it asks.
    let first = newer.begin_newer("fake__wait_for", json!({"path": gate}), json!({})).await;
    daemon.has_waiters(1).await;
    let arguments = form("x");
    let asks = newer.begin_newer("fake__look", arguments.clone(), json!({})).await;
    daemon.has_waiters(2).await;
    let waits = older.begin("fake__look", arguments.clone()).await;
    daemon.has_waiters(3).await;
    daemon.folder.write("gate", "");
    newer.answer(first).await;
    let asked = newer.answer(asks).await;
    let (name, _) = only_question(&asked);
    assert!(asked["result"]["requestState"].as_str().unwrap().starts_with("inflightd_"), "{asked}");
    let said = json!({"action": "accept"});
    let more = json!({"requestState": asked["result"]["requestState"], "inputResponses": {name: said}});
    let answer = newer.newer("fake__look", arguments, more).await;
    assert_eq!(heard(&answer)["responses"]["the question"], said);
    assert_eq!(heard(&older.answer(waits).await)["responses"]["the question"], said, "they share it");
}

#[tokio::test]
async fn equal_continuations_run_each_for_itself() {
    let daemon = Daemon::of(stateless()).await;
    let mut client = daemon.client().await;
    let asked = client.newer("fake__look", form("x"), json!({})).await;
    let more = back(&asked, &json!({"action": "accept"}));
    let gate = daemon.folder.path("gate");
    let first = client.begin("fake__wait_for", json!({"path": gate})).await;
    daemon.has_waiters(1).await;
    let twins = [
        client.begin_newer("fake__look", form("x"), more.clone()).await,
        client.begin_newer("fake__look", form("x"), more).await,
    ];
    daemon.has_waiters(3).await;
    assert_eq!(daemon.hub.calls.flights().executions(), 3);
    daemon.folder.write("gate", "");
    client.answer(first).await;
    for twin in twins {
        assert_eq!(client.answer(twin).await["result"]["_meta"]["inflightd/role"], "leader");
    }
}

#[tokio::test]
async fn a_state_of_a_server_that_all_share_is_good_for_its_own_principal_only() {
    let shared = fake_with(&["--stateless"], &json!({"share": "all"}));
    let daemon = Daemon::start(json!({"fake": shared}), crate::sharing::two_principals()).await.unwrap();
    let [mut a, mut b] = [
        daemon.client_as(Some(crate::sharing::TOKENS[0])).await,
        daemon.client_as(Some(crate::sharing::TOKENS[1])).await,
    ];
    let asked = a.newer("fake__inquire", form("x"), json!({})).await;
    let said = json!({"action": "accept"});
    let stolen = b.newer("fake__inquire", form("x"), back(&asked, &said)).await;
    assert!(refusal(&stolen).contains("no call of yours"), "{stolen}");
    let answer = a.newer("fake__inquire", form("x"), back(&asked, &said)).await;
    assert_eq!(heard(&answer)["responses"]["the question"], said);
}

#[tokio::test]
async fn a_state_of_a_newer_server_means_nothing_to_an_older_one() {
    let daemon = daemon().await;
    let mut client = daemon.client().await;
    let more = json!({"requestState": "état 1", "inputResponses": {}});
    let refused = client.newer("fake__pid", json!({}), more).await;
    assert!(refusal(&refused).contains("no call of yours"), "{refused}");
}
