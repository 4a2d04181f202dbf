//! Its resources.

use serde_json::{Value, json};

use crate::tools::PNG;
use crate::{Call, No};

const TEMPLATE: &str = "test://template/{id}/data";
/// What the older era says of a resource that is not there.
const NOT_FOUND: i64 = -32002;

pub(crate) fn list() -> Value {
    json!([
        {"uri": "test://static-text", "name": "static-text", "description": "Text that stays", "mimeType": "text/plain"},
        {"uri": "test://static-binary", "name": "static-binary", "description": "A picture that stays", "mimeType": "image/png"},
        {"uri": "test://watched-resource", "name": "watched-resource", "description": "Text to watch", "mimeType": "text/plain"},
    ])
}

pub(crate) fn templates() -> Value {
    json!([{"uriTemplate": TEMPLATE, "name": "template", "description": "Data of an id", "mimeType": "application/json"}])
}

pub(crate) fn read(call: &Call, uri: &str) -> Result<Value, No> {
    let text = |text: &str| json!({"uri": uri, "mimeType": "text/plain", "text": text});
    let contents = match uri {
        "test://static-text" => text("This is the content of the static text resource."),
        "test://watched-resource" => text("Nothing has changed yet."),
        "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
        _ => {
            let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
            let Some(id) = id.filter(|id| !id.is_empty() && !id.contains('/')) else {
                let code = if call.is_newer { -32602 } else { NOT_FOUND };
                return Err(No::Error(code, "Resource not found".into(), Some(json!({"uri": uri}))));
            };
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
        }
    };
    Ok(json!({"contents": [contents]}))
}
