//! Its tools.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::asking::{form, roots, sample};
use crate::{Call, No};

/// One red pixel.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// No sound at all.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

const STEP: Duration = Duration::from_millis(50);

/// Those that take no arguments.
const PLAIN: [&str; 24] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_logging_tool",
    "test_error_handling",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "test_reconnection",
];

pub(crate) fn list(has_more: bool) -> Vec<Value> {
    let tool = |name: &str, schema: Value| json!({"name": name, "description": format!("The tool {name}"), "inputSchema": schema});
    let one = |name: &str, property: Value| {
        let mut schema = json!({"type": "object", "properties": {}, "required": [name]});
        schema["properties"][name] = property;
        schema
    };
    let mut all: Vec<_> =
        PLAIN.iter().map(|name| tool(name, json!({"type": "object", "properties": {}}))).collect();
    all.extend([
        tool("test_sampling", one("prompt", json!({"type": "string"}))),
        tool("test_elicitation", one("message", json!({"type": "string"}))),
        tool("test_x_mcp_header", one("region", json!({"type": "string", "x-mcp-header": "Region"}))),
        tool("json_schema_2020_12_tool", schema_2020_12()),
    ]);
    if has_more {
        all.push(tool("test_one_more_tool", json!({"type": "object"})));
    }
    all
}

fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

pub(crate) fn call(call: &Call, name: &str) -> Result<Value, No> {
    let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    let result = match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => json!({"content": [image]}),
        "test_audio_content" => json!({"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]}),
        "test_embedded_resource" => json!({"content": [{"type": "resource", "resource": {
            "uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content.",
        }}]}),
        "test_multiple_content_types" => json!({"content": [
            {"type": "text", "text": "Multiple content types test:"},
            image,
            {"type": "resource", "resource": {
                "uri": "test://mixed-content-resource", "mimeType": "application/json",
                "text": "{\"test\":\"data\",\"value\":123}",
            }},
        ]}),
        "test_error_handling" => {
            let mut result = text("This tool intentionally returns an error for testing");
            result["isError"] = json!(true);
            result
        }
        "test_tool_with_logging" | "test_logging_tool" => {
            call.log("info", "Tool execution started");
            sleep(STEP);
            call.log("info", "Tool processing data");
            sleep(STEP);
            call.log("info", "Tool execution completed");
            text("It was logged.")
        }
        "test_tool_with_progress" => {
            call.progress(0);
            sleep(STEP);
            call.progress(50);
            sleep(STEP);
            call.progress(100);
            text("It made progress.")
        }
        "test_x_mcp_header" => text(call.argument("region")),
        "json_schema_2020_12_tool" => text(&call.params["arguments"].to_string()),
        "test_one_more_tool" => text("This tool comes and goes."),
        "test_reconnection" => text("Nobody was cut off."),
        "test_trigger_tool_change" => {
            call.changes_tools();
            text("The tools have changed.")
        }
        "test_trigger_prompt_change" => {
            call.changes_prompts();
            text("The prompts have changed.")
        }
        _ => return asking(call, name),
    };
    Ok(result)
}

fn asking(call: &Call, name: &str) -> Result<Value, No> {
    let state = call.state()?;
    let name_of = |key, message| form(key, message, &json!({"name": {"type": "string"}}));
    let confirm = || form("confirm", "Please confirm", &json!({"ok": {"type": "boolean"}}));
    let all = match name {
        "test_sampling" => {
            let said = call.ask(&[sample("sampled", call.argument("prompt"), 100)], None)?;
            let said = said["sampled"]["content"]["text"].as_str().unwrap_or_default();
            return Ok(text(&format!("LLM response: {said}")));
        }
        "test_elicitation" => {
            let properties = json!({
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            });
            let said = call.ask(&[form("user", call.argument("message"), &properties)], None)?;
            return Ok(text(&format!("User response: {}", said["user"])));
        }
        "test_elicitation_sep1034_defaults" => {
            call.ask(&[form("all", "Please fill in", &with_defaults())], None)?
        }
        "test_elicitation_sep1330_enums" => {
            call.ask(&[form("all", "Please choose", &with_choices())], None)?
        }
        "test_missing_capability" => {
            if !call.can("sampling") {
                let data = json!({"requiredCapabilities": {"sampling": {}}});
                return Err(No::Error(-32021, "the client cannot sample".into(), Some(data)));
            }
            return Ok(text("The client can sample."));
        }
        "test_streaming_elicitation" | "test_input_required_result_elicitation" => {
            let said = call.ask(&[name_of("user_name", "What is your name?")], None)?;
            let who = said["user_name"]["content"]["name"].as_str().unwrap_or("whoever you are");
            return Ok(text(&format!("Hello, {who}!")));
        }
        "test_input_required_result_sampling" => {
            call.ask(&[sample("capital_question", "What is the capital of France?", 100)], None)?
        }
        "test_input_required_result_list_roots" => call.ask(&[roots("client_roots")], None)?,
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            call.ask(&[confirm()], Some("confirming"))?;
            if call.is_newer && state != Some("confirming") {
                return Err(No::params("requestState is missing"));
            }
            return Ok(text("state-ok"));
        }
        "test_input_required_result_multiple_inputs" => {
            let name = name_of("user_name", "What is your name?");
            let greeting = sample("greeting", "Generate a greeting", 50);
            call.ask(&[name, greeting, roots("client_roots")], Some("asked for all"))?
        }
        "test_input_required_result_multi_round" => {
            if !state.is_some_and(|state| state.starts_with("second")) {
                let said = call.ask(&[name_of("step1", "Step 1: What is your name?")], Some("first"))?;
                if call.is_newer && state != Some("first") {
                    return Err(No::params("requestState is missing"));
                }
                drop(said);
            }
            let color = json!({"color": {"type": "string"}});
            call.ask(&[form("step2", "Step 2: What is your favorite color?", &color)], Some("second"))?
        }
        "test_input_required_result_capabilities" => {
            let mut questions = Vec::new();
            if call.can("sampling") {
                questions.push(sample("sampled", "Say something", 50));
            }
            if call.can("elicitation") {
                questions.push(name_of("user_name", "What is your name?"));
            }
            call.ask(&questions, None)?
        }
        _ => return Err(No::params("there is no such tool")),
    };
    let said = all.get("all").unwrap_or(&Value::Null);
    if said.is_null() {
        return Ok(text(&format!("You said {}", Value::Object(all))));
    }
    let (action, content) = (said["action"].as_str().unwrap_or_default(), &said["content"]);
    Ok(text(&format!("Elicitation completed: action={action}, content={content}")))
}

fn with_defaults() -> Value {
    json!({
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": true},
    })
}

fn with_choices() -> Value {
    let titled = |titles: [&str; 3]| {
        let one = |(at, title): (usize, &&str)| json!({"const": format!("value{}", at + 1), "title": title});
        titles.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let plain = ["option1", "option2", "option3"];
    json!({
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"])},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled(["First Choice", "Second Choice", "Third Choice"])}},
    })
}
