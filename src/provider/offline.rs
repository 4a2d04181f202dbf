//! The provider that needs no key and no network: a deterministic text of its input, with adjustable latency
//! and bad days. It serves a fresh machine, first tries, benchmarks and tests, and says so in each answer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::config::OfflineConfig;
use crate::provider::chat::{ChatProvider, ChatRequest, ChatRole, Message};
use crate::provider::{Context, Fault, Reply, Usage};

mod bad_day;

use bad_day::{BadDay, Struck};

/// Its name.
pub const NAME: &str = "offline";
/// Its only model.
pub const MODEL: &str = "offline-echo";

/// The built-in provider.
#[derive(Debug, Clone)]
pub struct Offline {
    latency: Duration,
    bad_day: Option<Arc<BadDay>>,
}

impl Offline {
    /// The provider as configured.
    pub fn new(config: &OfflineConfig) -> Self {
        Self { latency: config.latency, bad_day: BadDay::new(config).map(Arc::new) }
    }

    /// Answers with `text`, after the configured latency, unless a fault is configured.
    pub fn echo(&self, text: String, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        if self.latency.is_zero() && self.bad_day.is_none() {
            return std::future::ready(Ok(Reply::text(&text))).boxed();
        }
        let (latency, struck) = (self.latency, self.struck());
        async move {
            pass(latency).await;
            if let Some(struck) = struck {
                struck.play(&text, &context).await?;
            }
            Ok(Reply::text(&text))
        }
        .boxed()
    }

    /// What this call meets.
    fn struck(&self) -> Option<Struck> {
        self.bad_day.as_ref()?.strike()
    }
}

async fn pass(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}

impl ChatProvider for Offline {
    fn chat(&self, request: ChatRequest, context: Context) -> BoxFuture<'static, Result<Reply, Fault>> {
        let (latency, struck) = (self.latency, self.struck());
        async move {
            let text = answer(&request);
            if let Some(struck) = struck {
                pass(latency).await;
                struck.play(&text, &context).await?;
            } else {
                for piece in text.split_inclusive('\n') {
                    context.tell.text(piece);
                }
                pass(latency).await;
            }
            let usage = Usage::tokens(words(&request), count_words(&text));
            request.meter.counted(usage);
            Ok(Reply::text(&text).answered_by(request.model, Some(usage)))
        }
        .boxed()
    }
}

fn count_words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

fn words(request: &ChatRequest) -> u64 {
    request.messages.iter().map(|message| count_words(&message.text)).sum()
}

/// The same question gives the same text; another question, another text.
fn answer(request: &ChatRequest) -> String {
    let mut text = String::from(
        "[offline] This is a stand-in answer: no model was asked. Set KIMI_API_KEY, GLM_API_KEY or \
         OPENAI_API_KEY and start inflightd again to ask a real model.\n",
    );
    let mut hash = blake3::Hasher::new();
    for message in &request.messages {
        hash.update(message.role.label().as_bytes())
            .update(&[0])
            .update(message.text.as_bytes())
            .update(&[0]);
    }
    let question = request.messages.iter().rev().find(|message| message.role == ChatRole::User);
    if let Some(Message { text: question, .. }) = question.map(|message| &**message) {
        let start: String = question.chars().take(200).collect();
        let cut = if start.len() < question.len() { "…" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "You sent {} lines, {} words, {} characters.\nIt begins: {start}{cut}\n",
            question.lines().count(),
            count_words(question),
            question.chars().count(),
        );
    }
    let _ = write!(text, "Digest of the whole question: {}", &hash.finalize().to_hex().as_str()[..16]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::chat::{Meter, Parameters};

    fn request(text: &str) -> ChatRequest {
        ChatRequest {
            model: Arc::from(MODEL),
            messages: vec![Arc::new(Message::text(ChatRole::User, text))],
            parameters: Parameters::default(),
            meter: Meter::default(),
        }
    }

    #[test]
    fn equal_questions_have_equal_answers_and_others_have_others() {
        assert_eq!(answer(&request("one")), answer(&request("one")));
        assert_ne!(answer(&request("one")), answer(&request("two")));
        let long = "é".repeat(500);
        assert!(answer(&request(&long)).contains('…'));
    }
}
