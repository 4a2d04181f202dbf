//! One question to a model, in the words all wires share.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::provider::{Context, Fault, Reply};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRole {
    /// The operator's instructions.
    System,
    /// The caller.
    User,
}

impl ChatRole {
    /// Its name on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// A question. What the caller set reaches the wire as it was set.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The model to ask.
    pub model: Arc<str>,
    /// The messages, in order.
    pub messages: Vec<(ChatRole, String)>,
    /// The sampling temperature, by its literal text; the provider's own default when absent.
    pub temperature: Option<serde_json::Number>,
}

/// A model provider.
pub trait ChatProvider: Send + Sync {
    /// Asks. Dropping the future closes the provider's connection.
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>>;
}
