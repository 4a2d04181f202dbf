//! Conversations: what reaches the wire of a call that goes on with one, who may go on, and how far.

use inflightd::config::principals::TokenHash;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::model::{Does, Model, Speaks};
use crate::support::op::{self, Op};

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

async fn daemon(model: &Model, more: &[(&str, &str)]) -> Daemon {
    let keys = model.keys();
    let mut all: Vec<_> = keys.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.push(("TOOLS_FILE", BUILT_IN));
    all.extend(more);
    Daemon::offline(&all).await
}

/// The conversation that an answer of the op protocol names.
fn named(answer: &Value) -> String {
    let name = &answer["metadata"]["continuation_id"];
    name.as_str().unwrap_or_else(|| panic!("no conversation in {answer}")).to_owned()
}

/// What a model was asked last.
fn asked(model: &Model) -> Value {
    serde_json::from_str(&model.requests().last().unwrap().body).unwrap()
}

/// What was said in the request that an OpenAI-compatible model got last: one text each.
fn said(model: &Model) -> Vec<String> {
    let texts = asked(model)["messages"].as_array().unwrap().clone();
    texts.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

/// Question and answers of a conversation, as each wire writes them, in order.
fn written(speaks: Speaks, asked: &Value) -> Vec<(String, String)> {
    let list = if speaks == Speaks::Gemini { &asked["contents"] } else { &asked["messages"] };
    let text = |message: &Value| match speaks {
        Speaks::OpenAi => message["content"].as_str().map(str::to_owned),
        Speaks::Anthropic => {
            message["content"].as_str().or(message["content"][0]["text"].as_str()).map(str::to_owned)
        }
        Speaks::Gemini => message["parts"][0]["text"].as_str().map(str::to_owned),
    };
    let each = |message: &Value| {
        let role = message["role"].as_str().unwrap().to_owned();
        (role, text(message).unwrap_or_else(|| format!("{message}")))
    };
    list.as_array().unwrap().iter().map(each).filter(|(role, _)| role != "system").collect()
}

#[tokio::test]
async fn all_that_was_said_reaches_every_wire_again_with_its_model_and_its_instructions() {
    for speaks in Speaks::ALL {
        let model = Model::open(speaks).await;
        let daemon = daemon(&model, &[]).await;
        let mut client = Op::connect(&daemon).await;
        let first = json!({"prompt": "one", "model": "Own/Model-1", "system": "be brief"});
        let id = named(&client.ask("r", "chat", &first).await);
        let second = client.ask("r", "chat", &json!({"prompt": "two", "continuation_id": id})).await;
        assert_eq!(named(&second), id, "it goes on under its name");
        client.ask("r", "chat", &json!({"prompt": "three", "continuation_id": id})).await;
        let asked = asked(&model);
        let (me, it) = ("user", if speaks == Speaks::Gemini { "model" } else { "assistant" });
        let expected =
            [(me, "one"), (it, "answer 1 from here"), (me, "two"), (it, "answer 2 from here"), (me, "three")];
        let expected = expected.map(|(role, text)| (role.to_owned(), text.to_owned()));
        assert_eq!(written(speaks, &asked), expected, "{speaks:?}: {asked}");
        let request = model.requests().pop().unwrap();
        let place = if speaks == Speaks::Gemini { &request.head } else { &request.body };
        assert!(place.contains("Own/Model-1"), "{speaks:?}: the model goes on: {place}");
        assert_eq!(request.body.matches("be brief").count(), 1, "{speaks:?}: {asked}");
        daemon.at_rest().await;
    }
}

#[tokio::test]
async fn pictures_and_files_of_earlier_turns_are_carried_again_over_every_wire() {
    for speaks in Speaks::ALL {
        let model = Model::open(speaks).await;
        let daemon = daemon(&model, &[]).await;
        let mut client = Op::connect(&daemon).await;
        let first = json!({"prompt": "look", "files": [{"name": "a.rs", "text": "fn a() {}"}],
            "images": [{"mime_type": "image/png", "data": "iVBORw0KGgo="}]});
        let id = named(&client.ask("r", "chat", &first).await);
        client.ask("r", "chat", &json!({"prompt": "again", "continuation_id": id})).await;
        let [first, second] = &model.requests()[..] else { panic!("two requests") };
        for part in ["iVBORw0KGgo=", "File: a.rs\\n```\\nfn a() {}\\n```"] {
            let counts = [first, second].map(|request| request.body.matches(part).count());
            assert_eq!(counts, [1, 1], "{speaks:?}: {part}");
        }
    }
}

#[tokio::test]
async fn the_key_includes_the_turn() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    let again = json!({"prompt": "go on", "continuation_id": id});
    // Equal calls at one turn run once…
    model.does(Does::Halves);
    let mut twin = Mcp::connect(&daemon).await;
    client.call("a", "chat", &again).await;
    model.started(2).await;
    twin.call(1, "chat", &again, &json!({})).await;
    daemon.has_waiters(2).await;
    model.go();
    let leader = client.answer("a").await;
    let follower = twin.answer(json!(1)).await;
    assert_eq!(op::text(&leader), mcp::text(&follower));
    assert_eq!(mcp::role(&follower), "follower");
    assert_eq!(
        follower["result"]["_meta"]["inflightd/continuation_id"],
        json!(id),
        "one conversation, still"
    );
    // …and the same words at the next turn are another question.
    model.does(Does::Answer);
    let later = client.ask("b", "chat", &again).await;
    assert_eq!(later["metadata"]["role"], "leader");
    assert_eq!(model.requests().len(), 3);
    assert_eq!(said(&model), ["one", "answer 1 from here", "go on", "answer 2 from here", "go on"]);
}

#[tokio::test]
async fn one_call_at_a_time_goes_on_and_another_is_told_to_come_back() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    model.does(Does::Halves);
    client.call("a", "chat", &json!({"prompt": "two", "continuation_id": id})).await;
    model.started(2).await;
    let busy = client.ask("b", "chat", &json!({"prompt": "other", "continuation_id": id})).await;
    let error = &busy["error"];
    assert_eq!((op::code(&busy), &error["retryable"]), ("OVER_CAPACITY", &json!(true)), "{busy}");
    assert_eq!(error["retry_after_ms"], 1000);
    let text =
        "this conversation is answering another of your calls: send this one again when that has ended";
    assert_eq!(error["message"], text);
    model.go();
    client.answer("a").await;
    model.does(Does::Answer);
    op::text(&client.ask("b", "chat", &json!({"prompt": "other", "continuation_id": id})).await);
    assert_eq!(said(&model).last().unwrap(), "other");
    assert_eq!(model.requests().len(), 3, "the refused one was never sent");
    daemon.at_rest().await;
}

#[tokio::test]
async fn a_call_that_fails_or_is_taken_back_has_said_nothing() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    model.does(Does::Refuse(400, None));
    let failed = client.ask("r", "chat", &json!({"prompt": "refused", "continuation_id": id})).await;
    assert_eq!(op::code(&failed), "PROVIDER_ERROR");
    model.does(Does::Hang);
    client.call("c", "chat", &json!({"prompt": "cancelled", "continuation_id": id})).await;
    model.started(3).await;
    client.cancel("c").await;
    assert_eq!(op::code(&client.answer("c").await), "CANCELLED");
    daemon.at_rest().await;
    model.does(Does::Answer);
    op::text(&client.ask("r", "chat", &json!({"prompt": "two", "continuation_id": id})).await);
    assert_eq!(said(&model), ["one", "answer 1 from here", "two"]);
}

#[tokio::test]
async fn callers_that_shared_the_first_call_go_on_each_on_its_own() {
    let model = Model::open(Speaks::OpenAi).await;
    model.does(Does::Halves);
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let mut other = Mcp::connect(&daemon).await;
    let opening = json!({"prompt": "one", "continuation_id": "new"});
    client.call("a", "chat", &opening).await;
    model.started(1).await;
    other.call(1, "chat", &opening, &json!({})).await;
    daemon.has_waiters(2).await;
    model.go();
    let mine = client.answer("a").await;
    let id = named(&mine);
    let theirs = other.answer(json!(1)).await;
    let their_id = theirs["result"]["_meta"]["inflightd/continuation_id"].as_str().unwrap().to_owned();
    assert_ne!(id, their_id);
    // Who asked for its name is told where a model reads it, each its own.
    for (told, id) in
        [(&mine["outputs"][1]["text"], &id), (&theirs["result"]["content"][1]["text"], &their_id)]
    {
        let text = format!("To go on with this conversation, call again with continuation_id {id}");
        assert_eq!(*told, json!(text));
    }
    model.does(Does::Answer);
    client.ask("b", "chat", &json!({"prompt": "mine", "continuation_id": id})).await;
    other.call(2, "chat", &json!({"prompt": "theirs", "continuation_id": their_id}), &json!({})).await;
    mcp::text(&other.answer(json!(2)).await);
    assert_eq!(said(&model), ["one", "answer 1 from here", "theirs"], "it never heard of `mine`");
}

#[tokio::test]
async fn a_conversation_is_its_principals_own() {
    let model = Model::open(Speaks::OpenAi).await;
    let mut keys = model.keys();
    keys.push(("TOOLS_FILE".to_owned(), BUILT_IN.to_owned()));
    let tokens = ["anna-token-0123456789", "ben-token-0123456789"];
    let [anna, ben] = tokens.map(|token| TokenHash::of(token).text());
    let toml =
        format!("[principals.anna]\ntoken_hash = \"{anna}\"\n[principals.ben]\ntoken_hash = \"{ben}\"\n");
    let daemon = Daemon::with_toml(&keys, &toml).await;
    let mut clients = Vec::new();
    for token in tokens {
        let mut client = Op::silent(&daemon).await;
        assert_eq!(client.hello(&json!({"op": "hello", "token": token})).await["ok"], true);
        clients.push(client);
    }
    let id = named(&clients[0].ask("r", "chat", &json!({"prompt": "secret"})).await);
    let stolen = clients[1].ask("r", "chat", &json!({"prompt": "p", "continuation_id": id})).await;
    let never = json!({"prompt": "p", "continuation_id": "conv_0123456789abcdef_00000000"});
    let unknown = clients[1].ask("r", "chat", &never).await;
    assert_eq!(op::code(&stolen), "VALIDATION_ERROR");
    assert_eq!(stolen["error"], unknown["error"], "another's looks like none");
    assert_eq!(stolen["error"]["details"]["argument"], "continuation_id");
    op::text(&clients[0].ask("r", "chat", &json!({"prompt": "p", "continuation_id": id})).await);
    assert_eq!(model.requests().len(), 2);
}

#[tokio::test]
async fn conversations_are_bounded_and_the_one_not_used_for_longest_makes_room() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[("CONVERSATIONS_MAX", "2"), ("CONVERSATION_BYTES", "3000")]).await;
    let mut client = Op::connect(&daemon).await;
    let mut ids = Vec::new();
    for prompt in ["one", "two", "three"] {
        ids.push(named(&client.ask("r", "chat", &json!({"prompt": prompt})).await));
    }
    assert_eq!(daemon.stat("/conversations/kept"), 2);
    let gone = client.ask("r", "chat", &json!({"prompt": "p", "continuation_id": ids[0]})).await;
    let text = "argument `continuation_id`: no such conversation of yours is kept any more; leave it out, or say \
        \"new\", to begin one";
    assert_eq!((op::code(&gone), &gone["error"]["message"]), ("VALIDATION_ERROR", &json!(text)));
    for id in &ids[1..] {
        op::text(&client.ask("r", "chat", &json!({"prompt": "p", "continuation_id": id})).await);
    }
    // One that has grown too large is answered, and named no more.
    let long = json!({"prompt": "x".repeat(4000), "continuation_id": ids[2]});
    let last = client.ask("r", "chat", &long).await;
    assert!(last["metadata"].get("continuation_id").is_none() && !op::text(&last).is_empty(), "{last}");
    assert!(daemon.stat("/conversations/bytes") <= 3000);
}

#[tokio::test]
async fn what_was_not_used_for_long_is_forgotten() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[("CONVERSATION_SECS", "0.001"), ("HEALTH_INTERVAL_SECS", "0.02")]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    daemon.shows("/conversations/kept", 0).await;
    let gone = client.ask("r", "chat", &json!({"prompt": "p", "continuation_id": id})).await;
    assert_eq!(op::code(&gone), "VALIDATION_ERROR");
}

/// The model of the first call answers a stream within 300 s; one that goes on has its own class.
#[tokio::test]
async fn a_call_that_goes_on_has_the_timeout_of_its_class() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[("CONTINUATION_TIMEOUT_SECS", "0.2")]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    model.does(Does::HangMidStream);
    let late = client.ask("r", "chat", &json!({"prompt": "p", "continuation_id": id})).await;
    assert_eq!(op::code(&late), "TIMEOUT");
    let text = "openai provider timeout after 0.2s";
    assert!(late["error"]["message"].as_str().unwrap().starts_with(text), "{late}");
    model.sees_hang_up(1).await;
    daemon.at_rest().await;
}

#[tokio::test]
async fn every_prompt_tool_goes_on_with_any_conversation() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let id = named(&client.ask("r", "chat", &json!({"prompt": "one"})).await);
    let mut turns = 3;
    for (tool, argument) in [
        ("analyze", "text"),
        ("codereview", "code"),
        ("debug", "problem"),
        ("thinkdeep", "question"),
        ("planner", "goal"),
        ("chat", "prompt"),
    ] {
        let answer = client.ask("r", tool, &json!({argument: "more", "continuation_id": id})).await;
        assert_eq!(named(&answer), id, "{tool}");
        let said = written(Speaks::OpenAi, &asked(&model));
        assert_eq!(said.len(), turns, "{tool}");
        turns += 2;
    }
}

#[tokio::test]
async fn what_a_consensus_asks_opens_no_conversation() {
    let model = Model::open(Speaks::OpenAi).await;
    let daemon = daemon(&model, &[]).await;
    let mut client = Op::connect(&daemon).await;
    let models = json!([{"provider": "openai"}, {"provider": "openai", "model": "m"}]);
    let answer = client.ask("r", "consensus", &json!({"prompt": "p", "models": models})).await;
    assert!(answer["metadata"].get("continuation_id").is_none(), "{answer}");
    assert_eq!((model.requests().len(), daemon.stat("/conversations/kept")), (2, 0));
}
