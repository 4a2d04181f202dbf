//! Where one service fails, another is asked, over every wire.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::{self, Mcp};
use crate::support::model::{Does, Model, Speaks, USAGE};
use crate::support::op::{self, Op};

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

/// `openai` is asked first, `anthropic` where it fails.
async fn daemon(models: &[&Model]) -> Daemon {
    let mut keys: Vec<_> = models.iter().flat_map(|model| model.keys()).collect();
    let more = [("TOOLS_FILE", BUILT_IN), ("RETRY_ATTEMPTS", "1"), ("OPENAI_TIMEOUT_SECS", "0.3")];
    keys.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let toml = "[fallbacks]\nopenai = [\"wise\", \"gemini\"]\n\
                [aliases]\nwise = { model = \"Claude/X\", provider = \"anthropic\" }\n\
                [prices]\n\"fake*\" = { input = 1, output = 10 }\n";
    Daemon::with_toml(&keys, toml).await
}

async fn pair() -> [Model; 2] {
    [Model::open(Speaks::OpenAi).await, Model::open(Speaks::Anthropic).await]
}

#[tokio::test]
async fn on_a_bad_day_of_any_kind_another_service_answers_and_is_paid() {
    for does in [
        Does::Refuse(429, None),
        Does::Refuse(500, None),
        Does::Cut,
        Does::Garbage,
        Does::GarbageStream,
        Does::Error,
        Does::Hang,
        Does::HangMidStream,
        Does::Drip,
    ] {
        let models = pair().await;
        models[0].does(does);
        let daemon = daemon(&[&models[0], &models[1]]).await;
        let mut client = Op::connect(&daemon).await;
        let answer = client.ask("r", "chat", &json!({"prompt": "p"})).await;
        assert_eq!(op::text(&answer), "answer 1 from here", "{does:?}");
        let metadata = &answer["metadata"];
        assert_eq!((&metadata["provider"], &metadata["model"]), (&json!("anthropic"), &json!("fake-1")));
        assert_eq!(metadata["usage"]["prompt_tokens"], USAGE.0);
        assert!(metadata["usage"]["cost"].is_number(), "{answer}");
        let sent: Value = serde_json::from_str(&models[1].requests()[0].body).unwrap();
        assert_eq!(sent["model"], "Claude/X", "{does:?}");
        assert_eq!((models[0].requests().len(), models[1].requests().len()), (1, 1));
        assert_eq!(daemon.stat("/resilience/openai/fallbacks"), 1);
        daemon.at_rest().await;
    }
}

#[tokio::test]
async fn a_refusal_that_is_the_callers_fault_goes_to_nobody_else() {
    for does in [Does::Refuse(400, None), Does::Refuse(401, None), Does::Refuse(404, None)] {
        let models = pair().await;
        models[0].does(does);
        let daemon = daemon(&[&models[0], &models[1]]).await;
        let answer = Op::connect(&daemon).await.ask("r", "chat", &json!({"prompt": "p"})).await;
        assert_eq!(op::code(&answer), "PROVIDER_ERROR", "{does:?}");
        assert!(models[1].requests().is_empty());
        daemon.at_rest().await;
    }
}

#[tokio::test]
async fn what_the_first_one_said_is_void_for_everybody_who_heard_it() {
    let models = pair().await;
    models[0].does(Does::Reset);
    let daemon = daemon(&[&models[0], &models[1]]).await;
    let (mut client, mut other) = (Op::connect(&daemon).await, Mcp::connect(&daemon).await);
    client.call_with("r", "chat", &json!({"prompt": "p"}), &json!({})).await;
    let piece = client.wire.find(|frame| frame["op"] == "progress").await;
    assert_eq!(piece["message"], "answer 1 ");
    other.call(1, "chat", &json!({"prompt": "p"}), &json!({})).await;
    daemon.has_waiters(2).await;
    models[0].go();
    let void = client.wire.find(|frame| frame["op"] == "progress").await;
    let note = "[openai failed: anthropic is asked instead, and what was said so far is void]";
    assert_eq!(void["message"], note);
    assert_eq!(op::text(&client.answer("r").await), "answer 1 from here");
    let answer = other.answer(json!(1)).await;
    assert_eq!(mcp::text(&answer), "answer 1 from here");
    daemon.at_rest().await;
}

#[tokio::test]
async fn doctor_tells_who_is_asked_where_a_provider_fails() {
    let models = pair().await;
    let daemon = daemon(&[&models[0], &models[1]]).await;
    let doctor = daemon.hub.doctor();
    // `gemini` has no key here.
    assert_eq!(doctor["providers"][0]["fallbacks"], json!(["anthropic/Claude/X"]), "{doctor}");
    assert_eq!(doctor["providers"][1].get("fallbacks"), None);
}

#[tokio::test]
async fn a_conversation_that_somebody_else_answered_goes_on_with_whom_it_began() {
    let models = pair().await;
    let daemon = daemon(&[&models[0], &models[1]]).await;
    let mut client = Op::connect(&daemon).await;
    models[0].does(Does::Refuse(500, None));
    let first = client.ask("r", "chat", &json!({"prompt": "one"})).await;
    let id = &first["metadata"]["continuation_id"];
    assert!(id.is_string(), "{first}");
    models[0].does(Does::Answer);
    let second = client.ask("r", "chat", &json!({"prompt": "two", "continuation_id": id})).await;
    assert_eq!(second["metadata"]["provider"], "openai");
    let sent = models[0].requests().pop().unwrap().body;
    assert!(sent.contains("answer 1 from here"), "{sent}");
    // Again it fails, at a later turn.
    models[0].does(Does::Refuse(500, None));
    let third = client.ask("r", "chat", &json!({"prompt": "three", "continuation_id": id})).await;
    assert_eq!(third["metadata"]["provider"], "anthropic");
    // A conversation that its caller began with somebody stays there.
    models[0].does(Does::Answer);
    let named = client.ask("r", "chat", &json!({"prompt": "one", "model": "M-1"})).await;
    models[0].does(Does::Refuse(500, None));
    let id = &named["metadata"]["continuation_id"];
    let failed = client.ask("r", "chat", &json!({"prompt": "two", "continuation_id": id})).await;
    assert_eq!(op::code(&failed), "PROVIDER_ERROR");
    assert_eq!(models[1].requests().len(), 2);
    daemon.at_rest().await;
}
