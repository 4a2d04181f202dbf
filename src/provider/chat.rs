//! One question to a model, in the words all wires share.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::provider::{Context, Fault, Reply, Usage};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRole {
    /// The operator's instructions.
    System,
    /// The caller.
    User,
    /// The model, earlier in the conversation.
    Assistant,
}

impl ChatRole {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A picture in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// The picture itself.
    Data {
        /// Its kind, such as `image/png`.
        mime_type: Box<str>,
        /// Its bytes in base64, as the caller wrote them.
        data: Box<str>,
    },
    /// Where the provider finds it.
    Url(Box<str>),
}

impl Image {
    /// How much memory it takes, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Data { mime_type, data } => mime_type.len() + data.len(),
            Self::Url(url) => url.len(),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: ChatRole,
    /// What.
    pub text: String,
    /// With which pictures.
    pub images: Vec<Image>,
}

impl Message {
    /// A message of nothing but text.
    pub fn text(role: ChatRole, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), images: Vec::new() }
    }

    /// How much memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.images.iter().map(Image::bytes).sum::<usize>() + size_of::<Self>()
    }
}

/// What the caller set beside the messages: each value reaches the wire by its literal text.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// The sampling temperature; the provider's own default when absent.
    pub temperature: Option<Box<RawValue>>,
    /// The most tokens that an answer may have.
    pub max_tokens: Option<Box<RawValue>>,
    /// Members for the provider's own settings, under the names that it has for them.
    pub more: Vec<(String, Box<RawValue>)>,
}

/// A question. What the caller set reaches the wire as it was set.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// The model to ask.
    pub model: Arc<str>,
    /// The messages, in order; instructions come first.
    pub messages: Vec<Arc<Message>>,
    /// What else was set.
    pub parameters: Parameters,
    /// Where the provider tells what it counts.
    pub meter: Meter,
}

/// What a provider has counted so far, for whoever pays: known also of an answer that never came to its end.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Option<Usage>>>);

impl Meter {
    /// The provider has counted this so far.
    pub fn counted(&self, usage: Usage) {
        *self.0.lock() = Some(usage);
    }

    /// What it counted last.
    pub fn read(&self) -> Option<Usage> {
        *self.0.lock()
    }
}

/// A model provider.
pub trait ChatProvider: Send + Sync {
    /// Asks. Dropping the future closes the provider's connection.
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>>;

    /// The models that it lists; none, where it lists none.
    fn models(&self, _context: &Context) -> BoxFuture<'static, Result<Vec<String>, Fault>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}
