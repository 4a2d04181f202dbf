//! Its prompts, and how their arguments are completed.

use serde_json::{Value, json};

use crate::asking::form;
use crate::tools::PNG;
use crate::{Call, No};

pub(crate) fn list(has_more: bool) -> Vec<Value> {
    let argument =
        |name: &str| json!({"name": name, "description": format!("The argument {name}"), "required": true});
    let prompt = |name: &str, arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|name| argument(name)).collect();
        json!({"name": name, "description": format!("The prompt {name}"), "arguments": arguments})
    };
    let mut all = vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
        prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
        prompt("test_prompt_with_image", &[]),
        prompt("test_input_required_result_prompt", &[]),
    ];
    if has_more {
        all.push(prompt("test_one_more_prompt", &[]));
    }
    all
}

pub(crate) fn get(call: &Call, name: &str) -> Result<Value, No> {
    let user = |content: Value| json!({"role": "user", "content": content});
    let text = |text: &str| user(json!({"type": "text", "text": text}));
    let messages = match name {
        "test_simple_prompt" => vec![text("This is a simple prompt for testing.")],
        "test_one_more_prompt" => vec![text("This prompt comes and goes.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (call.argument("arg1"), call.argument("arg2"));
            vec![text(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let uri = call.argument("resourceUri");
            let resource = json!({"uri": uri, "mimeType": "text/plain", "text": "Embedded resource content for testing."});
            vec![
                user(json!({"type": "resource", "resource": resource})),
                text("Please process the embedded resource above."),
            ]
        }
        "test_prompt_with_image" => vec![
            user(json!({"type": "image", "data": PNG, "mimeType": "image/png"})),
            text("Please analyze the image above."),
        ],
        "test_input_required_result_prompt" => {
            let properties = json!({"context": {"type": "string"}});
            let said =
                call.ask(&[form("user_context", "What context should the prompt use?", &properties)], None)?;
            vec![text(&format!("In the context {}.", said["user_context"]["content"]["context"]))]
        }
        _ => return Err(No::params("there is no such prompt")),
    };
    Ok(json!({"messages": messages}))
}

pub(crate) fn complete(call: &Call) -> Result<Value, No> {
    let begun = call.params["argument"]["value"].as_str().ok_or_else(|| No::params("argument is missing"))?;
    let words = ["paris", "park", "party", "test", "testing"];
    let values: Vec<_> = words.into_iter().filter(|word| word.starts_with(begun)).collect();
    Ok(json!({"completion": {"total": values.len(), "values": values, "hasMore": false}}))
}
