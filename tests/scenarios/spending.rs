//! What models' answers cost: told with each answer, added up, saved by sharing, and bounded.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::mcp::Mcp;
use crate::support::model::{Does, Model, Speaks, USAGE};
use crate::support::op::{self, Op};

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tool/tools.toml");

/// One answer of a model of the tests costs 3 x 1 + 5 x 10 millionths.
const PRICES: &str = "[prices]\n\"fake*\" = { input = 1, output = 10 }\n";
const ONE: f64 = 0.000_053;

async fn daemon(models: &[&Model], toml: &str) -> Daemon {
    let mut keys: Vec<_> = models.iter().flat_map(|model| model.keys()).collect();
    keys.push(("TOOLS_FILE".to_owned(), BUILT_IN.to_owned()));
    Daemon::with_toml(&keys, toml).await
}

fn tokens(found: &Value) -> (u64, u64) {
    let of = |name: &str| found[name].as_u64().unwrap();
    (of("prompt_tokens"), of("completion_tokens"))
}

fn cost(found: &Value) -> f64 {
    found["cost"].as_f64().unwrap()
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-12
}

#[tokio::test]
async fn statistics_add_up_what_every_provider_counted_and_what_sharing_saved() {
    let mut models = Vec::new();
    for speaks in Speaks::ALL {
        models.push(Model::open(speaks).await);
    }
    let daemon = daemon(&models.iter().collect::<Vec<_>>(), PRICES).await;
    let mut client = Op::connect(&daemon).await;
    let mut calls = 0;
    for (speaks, model) in Speaks::ALL.into_iter().zip(&models) {
        for (does, said) in [(Does::Answer, "a"), (Does::Whole, "b"), (Does::Halves, "c")] {
            model.does(does);
            let arguments = json!({"prompt": said, "provider": speaks.provider(), "model": "fake-asked"});
            client.call("r", "chat", &arguments).await;
            if does == Does::Halves {
                // Two join one that is in the air, over another door too.
                client.wire.find(|frame| frame["op"] == "progress").await;
                client.call("r2", "chat", &arguments).await;
                let mut other = Mcp::connect(&daemon).await;
                other.call(1, "chat", &arguments, &json!({})).await;
                daemon.has_waiters(3).await;
                model.go();
                let told = other.answer(json!(1)).await;
                let usage = &told["result"]["_meta"]["inflightd/usage"];
                assert_eq!((tokens(usage), near(cost(usage), ONE)), (USAGE, true), "{told}");
                client.answer("r2").await;
            }
            let answer = client.answer("r").await;
            let usage = &answer["metadata"]["usage"];
            assert_eq!((tokens(usage), near(cost(usage), ONE)), (USAGE, true), "{answer}");
            calls += 1;
        }
    }
    let usage = daemon.stats()["usage"].clone();
    let (input, output) = USAGE;
    assert_eq!((&usage["calls"], tokens(&usage)), (&json!(calls), (calls * input, calls * output)));
    assert!(near(cost(&usage), 9.0 * ONE), "{usage}");
    // Two followers for each wire.
    assert_eq!((&usage["saved"]["calls"], tokens(&usage["saved"])), (&json!(6), (6 * input, 6 * output)));
    assert!(near(cost(&usage["saved"]), 6.0 * ONE), "{usage}");
    let by_model = usage["by_model"].as_array().unwrap();
    assert_eq!(by_model.len(), 3);
    for each in by_model {
        assert_eq!((&each["model"], tokens(each)), (&json!("fake-asked"), (3 * input, 3 * output)));
    }
    assert_eq!(models.iter().map(|model| model.requests().len()).sum::<usize>(), 9);
}

#[tokio::test]
async fn what_was_counted_before_an_answer_broke_off_is_counted() {
    let model = Model::open(Speaks::Anthropic).await;
    model.does(Does::Cut);
    let daemon = daemon(&[&model], "").await;
    let mut client = Op::connect(&daemon).await;
    let answer = client.ask("r", "chat", &json!({"prompt": "p"})).await;
    assert_eq!(op::code(&answer), "PROVIDER_ERROR");
    let attempts = u64::try_from(model.requests().len()).unwrap();
    let usage = daemon.stats()["usage"].clone();
    assert_eq!(
        tokens(&usage),
        (attempts * USAGE.0, attempts),
        "its first event counts what goes in, and one token"
    );
    assert_eq!(usage["unpriced_calls"], json!(attempts));
}

#[tokio::test]
async fn a_principal_that_has_spent_its_day_is_refused_before_anything_is_sent() {
    let model = Model::open(Speaks::OpenAi).await;
    let toml = format!("{PRICES}[principals.local]\ndaily_spend = 0.0001\n");
    let daemon = daemon(&[&model], &toml).await;
    let mut client = Op::connect(&daemon).await;
    for prompt in ["a", "b"] {
        op::text(&client.ask("r", "chat", &json!({"prompt": prompt, "model": "fake"})).await);
    }
    let refused = client.ask("r", "chat", &json!({"prompt": "c", "model": "fake"})).await;
    assert_eq!(
        (op::code(&refused), &refused["error"]["retryable"]),
        ("RATE_LIMITED", &json!(true)),
        "{refused}"
    );
    let text =
        "Your models' answers have cost your limit of 0.0001 for this day; the next one begins at 00:00 UTC";
    assert_eq!(refused["error"]["message"], text);
    let after = refused["error"]["retry_after_ms"].as_u64().unwrap();
    assert!(after > 0 && after <= 24 * 3600 * 1000, "{after}");
    assert_eq!(model.requests().len(), 2);
    let doctor = daemon.hub.doctor();
    assert_eq!(doctor["spending"][0]["principal"], "local");
    assert!(near(doctor["spending"][0]["spent_today"].as_f64().unwrap(), 2.0 * ONE));
    // What costs nothing goes on.
    op::text(&client.ask("r", "echo", &json!({"text": "t"})).await);
    daemon.at_rest().await;
}

#[tokio::test]
async fn an_alias_asks_its_model_of_its_provider_and_any_other_name_is_left_as_it_is() {
    let models = [Model::open(Speaks::OpenAi).await, Model::open(Speaks::Anthropic).await];
    let toml = "[aliases]\nwise = { model = \"Claude/X\", provider = \"anthropic\" }\nbig = { model = \"B-1\" }\n\
        lost = { model = \"m\", provider = \"nobody\" }\n";
    let daemon = daemon(&[&models[0], &models[1]], toml).await;
    let mut client = Op::connect(&daemon).await;
    for (arguments, at, model) in [
        (json!({"prompt": "p", "model": "wise"}), 1, "Claude/X"),
        (json!({"prompt": "p", "model": "big"}), 0, "B-1"),
        (json!({"prompt": "p", "model": "big", "provider": "anthropic"}), 1, "B-1"),
        (json!({"prompt": "p", "model": "wise", "provider": "openai"}), 0, "wise"),
        (json!({"prompt": "p", "model": "WISE"}), 0, "WISE"),
    ] {
        op::text(&client.ask("r", "chat", &arguments).await);
        let sent: Value = serde_json::from_str(&models[at].requests().last().unwrap().body).unwrap();
        assert_eq!(sent["model"], model, "{arguments}");
    }
    let lost = client.ask("r", "chat", &json!({"prompt": "p", "model": "lost"})).await;
    assert_eq!(op::code(&lost), "VALIDATION_ERROR");
    assert!(lost["error"]["message"].as_str().unwrap().contains("nobody, which is not configured"), "{lost}");
    let listed = client.tell("listmodels", &json!({})).await;
    assert_eq!(listed["aliases"].as_array().unwrap().len(), 3, "{listed}");
    assert_eq!(listed["default_provider"], "openai");
    let about = |provider: &Value| {
        ["provider", "default_model", "max_inflight", "timeout_secs"].map(|member| provider[member].clone())
    };
    let providers: Vec<_> = listed["providers"].as_array().unwrap().iter().map(about).collect();
    let are = [["openai", "gpt-5-mini"], ["anthropic", "claude-sonnet-4-5"], ["offline", "offline-echo"]];
    assert_eq!(
        providers,
        are.map(|[name, model]| [json!(name), json!(model), json!(8), json!(180.0)]),
        "{listed}"
    );
}
