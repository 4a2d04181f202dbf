//! Clients of the newer era: they are asked by results, and come back with the answers.

use super::*;

impl Client {
    /// A stateless call, perhaps one that goes on with another.
    pub(super) async fn newer(&mut self, tool: &str, arguments: Value, more: Value) -> Value {
        let id = self.begin_newer(tool, arguments, more).await;
        self.answer(id).await
    }

    pub(super) async fn begin_newer(&mut self, tool: &str, arguments: Value, more: Value) -> u64 {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": everything()});
        let mut params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.send("tools/call", &params).await
    }
}

/// The only question of a result, with its name.
pub(super) fn only_question(answer: &Value) -> (String, Value) {
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer}");
    let questions = result["inputRequests"].as_object().unwrap();
    assert_eq!(questions.len(), 1, "{answer}");
    questions.iter().map(|(name, question)| (name.clone(), question.clone())).next().unwrap()
}

/// What brings this answer to the only question.
fn back(asked: &Value, said: &Value) -> Value {
    let (name, _) = only_question(asked);
    json!({"requestState": asked["result"]["requestState"], "inputResponses": {name: said}})
}

#[tokio::test]
async fn an_older_server_and_a_newer_client_speak_through_a_parked_run() {
    let daemon = daemon().await;
    let mut client = daemon.client().await;
    let asked = client.newer("fake__inquire", form("how old?"), json!({})).await;
    let (_, question) = only_question(&asked);
    assert_eq!(question, form("how old?"));
    assert!(asked["result"]["_meta"]["inflightd/request_id"].is_string(), "{asked}");
    let calls = daemon.hub.calls.clone();
    until("the permit to be free", || calls.pools().0.in_use == 0).await;
    assert_eq!((calls.flights().executions(), calls.watch().active()), (1, 0));
    let said = json!({"action": "accept", "content": {"age": 7}});
    let answer = client.newer("fake__inquire", form("how old?"), back(&asked, &said)).await;
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(heard(&answer)["result"], said);
    let again = client.newer("fake__inquire", form("how old?"), back(&asked, &said)).await;
    assert!(refusal(&again).contains("requestState"), "{again}");
    assert_eq!(calls.flights().executions(), 0);
}

#[tokio::test]
async fn what_a_newer_client_has_not_declared_it_is_not_asked() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    // It declared everything when it initialized; this request says otherwise.
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"roots": {}}});
    let params = json!({"name": "fake__inquire", "arguments": form("x"), "_meta": meta});
    let answer = client.ask("tools/call", &params).await;
    assert_eq!(heard(&answer)["result"], json!({"action": "decline"}));
}

#[tokio::test]
async fn another_principal_cannot_go_on_with_a_parked_run() {
    let server = json!({"fake": alone()});
    let daemon = Daemon::start(server, crate::sharing::two_principals()).await.unwrap();
    let [mut a, mut b] = [
        daemon.client_as(Some(crate::sharing::TOKENS[0])).await,
        daemon.client_as(Some(crate::sharing::TOKENS[1])).await,
    ];
    let asked = a.newer("fake__inquire", form("x"), json!({})).await;
    let said = json!({"action": "accept"});
    let stolen = b.newer("fake__inquire", form("x"), back(&asked, &said)).await;
    assert!(refusal(&stolen).contains("requestState"), "{stolen}");
    let answer = a.newer("fake__inquire", form("x"), back(&asked, &said)).await;
    assert_eq!(heard(&answer)["result"], said);
}

#[tokio::test]
async fn a_call_whose_caller_never_comes_back_holds_no_other_up() {
    let daemon = daemon().await;
    let mut client = daemon.client_that(None, &everything()).await;
    client.newer("fake__inquire", form("and then?"), json!({})).await;
    let id = client.begin("fake__inquire", form("how old?")).await;
    let question = client.question().await;
    assert_eq!(question["params"]["message"], "how old?", "{question}");
    client.says(&question, json!({"action": "accept"})).await;
    assert_eq!(heard(&client.answer(id).await)["result"], json!({"action": "accept"}));
}

#[tokio::test]
async fn a_parked_call_and_the_process_of_its_session_outlive_the_connection() {
    let daemon = daemon().await;
    let mut client = daemon.client().await;
    let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
    let asked = client.newer("fake__inquire", form("x"), json!({})).await;
    drop(client);
    let mut again = daemon.client().await;
    let said = json!({"action": "accept"});
    let answer = again.newer("fake__inquire", form("x"), back(&asked, &said)).await;
    assert_eq!(heard(&answer)["result"], said);
    // Nothing is left to be done for it.
    until("the end of its process", || !crate::rig::lives(pid)).await;
}

#[tokio::test]
async fn a_server_that_dies_while_its_call_is_parked_is_told_of_when_the_caller_comes_back() {
    let daemon = daemon().await;
    let mut client = daemon.client().await;
    let pid: u32 = client.text("fake__pid", json!({})).await.parse().unwrap();
    let asked = client.newer("fake__inquire", form("x"), json!({})).await;
    kill(pid);
    until("the end of the call", || daemon.hub.calls.flights().executions() == 0).await;
    let answer = client.newer("fake__inquire", form("x"), back(&asked, &json!({"action": "accept"}))).await;
    assert_eq!(code(&answer), "OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn a_daemon_that_goes_down_does_not_wait_for_parked_calls() {
    let daemon = daemon().await;
    let mut client = daemon.client().await;
    client.newer("fake__inquire", form("x"), json!({})).await;
    let ended = within("the end", daemon.ended()).await;
    assert!(!ended.timeout_reached && ended.is_clean());
}

mod servers;
