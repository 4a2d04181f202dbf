//! Requests that are not calls of tools, passed to a server as they came.

use crate::provider::asking::Can;
use crate::provider::upstream::instance::State;
use crate::provider::upstream::link::{Param, Request};
use crate::provider::upstream::message::Spliced;
use crate::provider::upstream::pipe::Failed;
use crate::provider::upstream::server::{InUse, Owner};
use crate::provider::{Context, Fault, Reply};

/// A request to be passed.
pub struct Passed {
    /// For whom.
    pub owner: Owner,
    /// Its method.
    pub method: &'static str,
    /// Its parameters, each as JSON text.
    pub params: Vec<(String, Box<str>)>,
}

impl InUse {
    /// Passes a request. Dropping what is returned takes it back.
    ///
    /// # Errors
    /// The server is down, refuses, or breaks off.
    pub async fn pass(self, passed: Passed, context: Context) -> Result<Reply, Fault> {
        let server = &**self.server();
        // Texts are sent as texts: over HTTP one of them is a header too.
        let texts: Vec<Option<String>> =
            passed.params.iter().map(|(_, json)| serde_json::from_str(json).ok()).collect();
        let params = passed.params.iter().zip(&texts).map(|((name, json), text)| {
            let value = text.as_deref().map_or(Param::Json(json), Param::Text);
            (&**name, value)
        });
        let params: Vec<_> = params.collect();
        let request = Request {
            deadline: Some(context.deadline),
            tell: Some(&context.tell),
            can: Can::NOTHING,
            ..Request::new(passed.method, &params)
        };
        let mut live = server.live(passed.owner).await?;
        let mut answer = live.link.ask(request, live.greeting.era).await;
        if answer == Err(Failed::Gone) {
            // It was surely not sent. Whoever takes the connection's place may take it.
            server.instance(passed.owner)?.moved(&State::Ready(live)).await;
            live = server.live(passed.owner).await?;
            answer = live.link.ask(request, live.greeting.era).await;
        }
        let result = answer.map_err(|failed| server.fault(failed))?;
        let broken = |reason| server.fault(Failed::Broken(reason));
        let spliced =
            serde_json::from_str::<Spliced>(&result).map_err(|_| broken("its result is not an object"))?;
        if spliced.asks {
            return Err(broken("it asks something, and only calls of tools are asked"));
        }
        Ok(Reply::spliced(spliced.members, 0..0, false))
    }
}
