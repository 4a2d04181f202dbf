//! Servers that ask whoever called them: for a form, for a model's words, for roots.

use serde_json::{Value, json};

use crate::rig::{Client, Daemon, Setup, code, fake_with, kill, refusal, text};
use crate::support::{until, within};

fn everything() -> Value {
    json!({"elicitation": {}, "sampling": {}, "roots": {}})
}

fn alone() -> Value {
    fake_with(&[], &json!({"share": "session"}))
}

async fn daemon() -> Daemon {
    Daemon::of(alone()).await
}

/// A form, and what else stands in the question.
fn form(message: &str) -> Value {
    json!({"method": "elicitation/create", "params": {"message": message, "requestedSchema": {"type": "object"}}})
}

impl Client {
    /// The next question.
    async fn question(&mut self) -> Value {
        self.wire.find(|message| message.get("method").is_some() && message.get("id").is_some()).await
    }

    async fn says(&mut self, question: &Value, result: Value) {
        self.wire.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": result})).await;
    }
}

/// What the fake heard, which it answers its call with.
fn heard(answer: &Value) -> Value {
    serde_json::from_str(text(answer)).unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test]
async fn a_form_reaches_whoever_called_and_its_answer_the_server() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", form("how old?")).await;
    let question = client.question().await;
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"], form("how old?")["params"]);
    assert!(
        question["id"].as_str().unwrap().starts_with("q_"),
        "the server's own id goes nowhere: {question}"
    );
    client.says(&question, json!({"action": "accept", "content": {"age": 7}})).await;
    let answer = client.answer(id).await;
    assert_eq!(heard(&answer)["result"], json!({"action": "accept", "content": {"age": 7}}));
    assert_eq!(heard(&answer)["id"], 1);
    let request = &answer["result"]["_meta"]["inflightd/request_id"];
    let found = client.call("get_request", json!({"request_id": request})).await;
    assert!(text(&found).contains("\"asked\":"), "{found}");
}

#[tokio::test]
async fn a_models_words_and_roots_are_asked_for_and_texts_stay_as_they_were_written() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let odd = "{\"b\":1,\"a\":18446744073709551616,\"odd\":[1.50e+07,-0],\"maxTokens\":5}";
    let call = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":70,\"method\":\"tools/call\",\"params\":{{\"name\":\"fake__inquire\",\"arguments\":\
         {{\"method\":\"sampling/createMessage\",\"params\":{odd}}}}}}}"
    );
    client.wire.say(&call).await;
    let question = client.raw().await;
    assert!(question.contains(odd), "{question}");
    let id: Value = serde_json::from_str::<Value>(&question).unwrap()["id"].clone();
    let said = "{\"role\":\"assistant\",\"n\":18446744073709551617, \"f\":1E2}";
    client.wire.say(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{said}}}")).await;
    let answer = client.answer(json!(70).as_u64().unwrap()).await;
    assert!(text(&answer).contains(said), "{answer}");
    let id = client.begin("fake__inquire", json!({"method": "roots/list"})).await;
    let question = client.question().await;
    assert_eq!(question["method"], "roots/list");
    client.says(&question, json!({"roots": [{"uri": "file:///x"}]})).await;
    assert_eq!(heard(&client.answer(id).await)["result"]["roots"][0]["uri"], "file:///x");
    // An error is an answer too.
    let id = client.begin("fake__inquire", json!({"method": "sampling/createMessage"})).await;
    let question = client.question().await;
    let refused =
        json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "not today"}});
    client.wire.send(&refused).await;
    assert_eq!(heard(&client.answer(id).await)["error"], json!({"code": -1, "message": "not today"}));
}

#[tokio::test]
async fn where_nobody_declared_it_a_form_is_declined_and_whatever_else_is_an_error() {
    let daemon = daemon().await;
    let mut plain = daemon.client().await;
    let declined = plain.call("fake__inquire", form("x")).await;
    assert_eq!(heard(&declined)["result"], json!({"action": "decline"}));
    for method in ["sampling/createMessage", "roots/list"] {
        let refused = plain.call("fake__inquire", json!({"method": method})).await;
        assert_eq!(heard(&refused)["error"]["code"], -32601, "{refused}");
    }
    // Forms are no addresses, and a model without tools has none.
    let mut some = daemon.client_that(None, &json!({"elicitation": {}, "sampling": {}})).await;
    let address = json!({"method": "elicitation/create", "params": {"mode": "url"}});
    assert_eq!(heard(&some.call("fake__inquire", address).await)["result"]["action"], "decline");
    let tools = json!({"method": "sampling/createMessage", "params": {"tools": []}});
    assert_eq!(heard(&some.call("fake__inquire", tools).await)["error"]["code"], -32601);
    let unknown = some.call("fake__inquire", json!({"method": "sampling/other"})).await;
    assert_eq!(heard(&unknown)["error"]["code"], -32601);
}

#[tokio::test]
async fn only_a_process_of_one_session_is_told_that_it_may_ask() {
    let daemon = Daemon::with(json!({"own": alone(), "shared": fake_with(&[], &json!({}))})).await;
    let mut client = daemon.client_that(None, &everything()).await;
    for (server, declares) in [("own", true), ("shared", false)] {
        let about: Value =
            serde_json::from_str(&client.text(&format!("{server}__about"), json!({})).await).unwrap();
        let declared: Value = serde_json::from_str(about["declared"].as_str().unwrap()).unwrap();
        for what in ["elicitation", "sampling", "roots"] {
            assert_eq!(declared.get(what).is_some(), declares, "{server}: {declared}");
        }
    }
    let refused = client.call("shared__inquire", form("x")).await;
    assert_eq!(heard(&refused)["error"]["code"], -32601, "it asks all the same: {refused}");
}

#[tokio::test]
async fn equal_ids_of_two_clients_and_two_servers_never_meet() {
    let daemon = daemon().await;
    let mut clients =
        [daemon.client_that(None, &everything()).await, daemon.client_that(None, &everything()).await];
    let mut asked = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        let id = client.begin("fake__inquire", form(&format!("you, {n}?"))).await;
        asked.push((id, client.question().await));
    }
    // Ids of the calls and of the servers' questions are equal, those of the questions to the clients are not.
    assert_eq!(asked[0].0, asked[1].0);
    assert_ne!(asked[0].1["id"], asked[1].1["id"]);
    // One answers what the other was asked: nothing comes of it.
    let [one, two] = &mut clients;
    two.says(&asked[0].1, json!({"action": "accept", "content": {"who": "a stranger"}})).await;
    two.says(&asked[1].1, json!({"action": "accept", "content": {"who": "two"}})).await;
    assert_eq!(heard(&two.answer(asked[1].0).await)["result"]["content"]["who"], "two");
    one.says(&asked[0].1, json!({"action": "accept", "content": {"who": "one"}})).await;
    assert_eq!(heard(&one.answer(asked[0].0).await)["result"]["content"]["who"], "one");
}

#[tokio::test]
async fn a_second_answer_a_late_one_and_one_that_was_never_asked_for_go_nowhere() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", form("x")).await;
    let question = client.question().await;
    client.says(&json!({"id": "q_0123456789abcdef"}), json!({"action": "accept"})).await;
    client.says(&json!({"id": 1}), json!({"action": "accept"})).await;
    client.says(&question, json!({"action": "cancel"})).await;
    client.says(&question, json!({"action": "accept"})).await;
    assert_eq!(heard(&client.answer(id).await)["result"]["action"], "cancel");
    client.says(&question, json!({"action": "accept"})).await;
    let about: Value = serde_json::from_str(&client.text("fake__about", json!({})).await).unwrap();
    assert_eq!(about["answers"], json!([]), "the server heard one answer");
}

#[tokio::test]
async fn answers_that_are_none_are_an_error_for_the_server() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    for (answer, why) in [
        (json!({"result": [1]}), "not an object"),
        (json!({}), "a result or an error"),
        (json!({"result": {"x": "x".repeat(1024 * 1024)}}), "too large"),
    ] {
        let id = client.begin("fake__inquire", form("x")).await;
        let question = client.question().await;
        let mut answer = answer;
        answer["id"] = question["id"].clone();
        answer["jsonrpc"] = json!("2.0");
        client.wire.send(&answer).await;
        let heard = heard(&client.answer(id).await);
        assert!(heard["error"]["message"].as_str().unwrap().contains(why), "{heard}");
    }
    // So is a question that nobody can be expected to keep in mind.
    let large = form(&"x".repeat(1024 * 1024));
    assert_eq!(heard(&client.call("fake__inquire", large).await)["error"]["code"], -32601);
}

#[tokio::test]
async fn a_question_whose_server_wants_to_know_no_more_is_taken_back() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", form("x")).await;
    let question = client.question().await;
    assert_eq!(client.text("fake__withdraw", json!({})).await, "withdrawn");
    assert_eq!(text(&client.answer(id).await), "never mind");
    let taken_back = client.wire.find(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
}

#[tokio::test]
async fn a_server_that_dies_while_it_asks_takes_its_question_back_and_its_call_ends_typed() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
    let id = client.begin("fake__inquire", form("x")).await;
    let question = client.question().await;
    kill(pid);
    assert_eq!(code(&client.answer(id).await), "OUTCOME_UNKNOWN");
    let taken_back = client.wire.find(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
    // The next one is asked as ever.
    let id = client.begin("fake__inquire", form("y")).await;
    let again = client.question().await;
    assert_ne!(again["id"], question["id"]);
    client.says(&again, json!({"action": "decline"})).await;
    assert_eq!(heard(&client.answer(id).await)["result"]["action"], "decline");
}

#[tokio::test]
async fn a_call_that_is_taken_back_while_its_caller_is_asked_ends_and_the_server_is_told() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", form("x")).await;
    let question = client.question().await;
    client.cancel(id).await;
    daemon.has_waiters(0).await;
    let taken_back = client.wire.find(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
    loop {
        let about: Value = serde_json::from_str(&client.text("fake__about", json!({})).await).unwrap();
        if about["cancelled"].as_array().unwrap().len() == 1 {
            break;
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_person_holds_its_servers_place_and_no_global_permit() {
    let setup = Setup { keys: vec![("GLOBAL_MAX_INFLIGHT", "1".into())], ..Setup::default() };
    let daemon = Daemon::start(json!({"fake": alone()}), setup).await.unwrap();
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__inquire", form("x")).await;
    let question = client.question().await;
    let calls = daemon.hub.calls.clone();
    until("the permit to be free", || calls.pools().0.in_use == 0).await;
    let server = |calls: &inflightd::call::Calls| {
        calls.pools().1.into_iter().find(|(name, _)| &**name == "server fake").unwrap().1.in_use
    };
    assert_eq!(server(&calls), 1);
    assert_eq!(client.text("echo", json!({"text": "meanwhile"})).await, "meanwhile");
    daemon.hub.health.look(&calls).await;
    assert!(!daemon.hub.health.broken(), "sums add up while somebody thinks");
    // The only permit is taken: the answer waits for its turn, and the others for theirs.
    let held = client.begin("fake__hold", json!({"key": "k"})).await;
    until("the permit to be taken", || calls.pools().0.in_use == 1).await;
    client.says(&question, json!({"action": "accept"})).await;
    until("the answer to wait for its turn", || calls.pools().0.queued == 1).await;
    client.cancel(held).await;
    assert_eq!(heard(&client.answer(id).await)["result"]["action"], "accept");
    until("all to be given back", || calls.pools().0.in_use == 0 && server(&calls) == 0).await;
}

#[tokio::test]
async fn who_never_answers_has_its_call_end_at_its_time_and_the_question_taken_back() {
    let daemon = Daemon::of(fake_with(&[], &json!({"share": "session", "timeout_secs": 0.3}))).await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__look", form("x")).await;
    let question = client.question().await;
    assert_eq!(code(&client.answer(id).await), "TIMEOUT");
    let taken_back = client.wire.find(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(taken_back["params"]["requestId"], question["id"]);
    until("all to be given back", || daemon.hub.calls.pools().0.in_use == 0).await;
}

#[tokio::test]
async fn a_storm_of_questions_is_bounded_and_holds_up_nobody() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let id = client.begin("fake__storm", json!({"times": 1000})).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(client.question().await);
    }
    assert_eq!(client.text("fake__echo", json!({"text": "meanwhile"})).await, "meanwhile");
    // What waits to be asked may go to the echo, which ends: then it was withdrawn.
    let told = client.wire.unasked();
    let is_open = |id: &Value| !told.iter().any(|message| message["params"]["requestId"] == *id);
    let more: Vec<_> = told.iter().filter(|message| message.get("id").is_some_and(is_open)).collect();
    assert!(more.is_empty(), "no more than 16 at once: {more:?}");
    for question in open {
        client.says(&question, json!({"action": "accept"})).await;
    }
    assert_eq!(client.text("fake__release", json!({"key": "storm"})).await, "1");
    assert_eq!(text(&client.answer(id).await), "released storm");
    let all_accepted = async {
        loop {
            let about: Value = serde_json::from_str(&client.text("fake__about", json!({})).await).unwrap();
            let answers = about["answers"].as_array().unwrap().iter();
            if answers.filter(|answer| answer.as_str().unwrap().contains("accept")).count() == 16 {
                break;
            }
        }
    };
    within("all answers at their server", all_accepted).await;
}

#[tokio::test]
async fn a_caller_that_goes_while_it_is_asked_leaves_nothing_behind() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
    client.begin("fake__look", form("x")).await;
    client.question().await;
    drop(client);
    // It lingers, with its question declined; then its session's process ends with it.
    until("the end of its process", || !crate::rig::lives(pid)).await;
    let calls = &daemon.hub.calls;
    until("all to be given back", || calls.pools().0.in_use == 0).await;
    assert_eq!(calls.flights().executions(), 0);
}

#[tokio::test]
async fn who_waits_for_a_person_when_the_daemon_goes_down_is_answered_at_once() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    let write = client.begin("fake__inquire", form("x")).await;
    let read = client.begin("fake__look", form("y")).await;
    client.question().await;
    client.question().await;
    let ended = tokio::spawn(daemon.ended());
    assert_eq!(code(&client.answer(write).await), "OUTCOME_UNKNOWN");
    assert_eq!(code(&client.answer(read).await), "SHUTTING_DOWN");
    assert!(!within("the end", ended).await.unwrap().timeout_reached);
}

pub mod door;
mod http;
mod newer;

/// A message of a client of the older era to `/mcp`.
async fn posts(daemon: &Daemon, session: Option<&str>, message: &Value) -> reqwest::Response {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("http://{}/mcp", daemon.address)).json(message);
    let request = request.header("accept", "application/json, text/event-stream");
    let request = match session {
        Some(session) => request.header("mcp-session-id", session),
        None => request,
    };
    within("an answer", request.send()).await.unwrap()
}

async fn next_event(stream: &mut reqwest::Response) -> Value {
    let event = within("an event", stream.chunk()).await.unwrap().unwrap();
    let event = std::str::from_utf8(&event).unwrap();
    serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap()
}

#[tokio::test]
async fn over_http_a_question_comes_on_its_calls_own_stream_and_is_answered_by_a_post() {
    let daemon = daemon().await;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": everything(), "clientInfo": {"name": "t", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let hello = posts(&daemon, None, &hello).await;
    let session = hello.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "fake__inquire", "arguments": form("how old?")}});
    let mut stream = posts(&daemon, Some(&session), &call).await;
    let question = next_event(&mut stream).await;
    assert_eq!(
        (&question["method"], &question["params"]),
        (&json!("elicitation/create"), &form("how old?")["params"])
    );
    let says = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"age": 7}}});
    // Said twice, and by a stranger: both are taken, and go nowhere.
    let stranger = posts(
        &daemon,
        None,
        &json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}),
    )
    .await;
    assert_eq!(stranger.status(), 202);
    assert_eq!(posts(&daemon, Some(&session), &says).await.status(), 202);
    assert_eq!(posts(&daemon, Some(&session), &says).await.status(), 202);
    let answer = next_event(&mut stream).await;
    assert_eq!(heard(&answer)["result"], json!({"action": "accept", "content": {"age": 7}}));
    assert_eq!(within("the end", stream.chunk()).await.unwrap(), None);
}
