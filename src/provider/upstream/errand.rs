//! What is asked of a server for a caller: a call of a tool, or another request that is passed as it came. Where its
//! server asks before it answers, those who wait are asked.

use std::sync::Arc;

use crate::ids::PrincipalId;
use crate::provider::asking::Can;
use crate::provider::upstream::instance::{Instance, Live, State};
use crate::provider::upstream::link::{Link, Param, Request};
use crate::provider::upstream::message::{Era, Refusal, Spliced};
use crate::provider::upstream::mirror::{self, Mirrored};
use crate::provider::upstream::pipe::Failed;
use crate::provider::upstream::required::{Continued, Required};
use crate::provider::upstream::server::{InUse, Owner, Server};
use crate::provider::{Context, Fault, Level, Reply};

/// How often a server may ask while it works for one call.
const ROUNDS: usize = 16;

/// What is asked.
pub struct Errand {
    /// For whom.
    pub owner: Owner,
    /// Who asks.
    pub principal: PrincipalId,
    /// What it is.
    pub what: What,
    /// The earlier one that it goes on with.
    pub continued: Option<Continued>,
}

/// Kinds of it.
pub enum What {
    /// A call of a tool.
    Tool {
        /// By its server's own name.
        name: Arc<str>,
        /// The arguments, as the caller wrote them.
        arguments: Box<str>,
        /// Arguments that are also sent as headers.
        mirrored: Arc<[Mirrored]>,
    },
    /// Any other request.
    Method {
        /// Its method.
        name: &'static str,
        /// Its parameters, each as JSON text.
        params: Vec<(String, Box<str>)>,
    },
}

impl What {
    fn method(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tools/call",
            Self::Method { name, .. } => name,
        }
    }

    fn headers(&self) -> Vec<(String, String)> {
        match self {
            Self::Tool { arguments, mirrored, .. } => mirror::headers(mirrored, arguments),
            Self::Method { .. } => Vec::new(),
        }
    }

    /// The result for whoever asked.
    fn reply(&self, result: &str) -> Option<Spliced> {
        match self {
            Self::Tool { .. } => Spliced::of(result),
            Self::Method { .. } => serde_json::from_str(result).ok(),
        }
    }
}

impl InUse {
    /// Asks it. Dropping what is returned takes it back.
    ///
    /// # Errors
    /// The server is down, refuses, or breaks off.
    pub async fn run(self, mut errand: Errand, context: Context) -> Result<Reply, Fault> {
        let server = &**self.server();
        let broken = |reason| server.fault(Failed::Broken(reason));
        let instance = server.instance(errand.owner)?;
        let is_present = context.ask.is_some() || context.tell.log_level().is_some();
        let _under_way = is_present.then(|| instance.present.begins(context.ask.as_ref(), &context.tell));
        let state = errand.continued.as_ref().and_then(|continued| continued.state.as_deref());
        if state.is_some_and(|state| !server.given.is_of(errand.principal, state)) {
            return Err(server.not_yours());
        }
        for _ in 0..ROUNDS {
            let result = server.ask_once(&instance, &errand, &context).await?;
            let spliced = errand.what.reply(&result).ok_or_else(|| broken("its result is not an object"))?;
            if !spliced.asks {
                return Ok(Reply::spliced(spliced.members, spliced.content, spliced.is_error));
            }
            let asks = Required::read(&result).ok_or_else(|| broken("it asks what makes no sense"))?;
            let ask = context.ask.as_ref();
            let ask =
                ask.ok_or_else(|| broken("it asks something, and nobody was declared who could answer"))?;
            if ask.all_by_results(asks.needs()) {
                if let Some(state) = asks.state.as_deref() {
                    server.given.to(errand.principal, state);
                }
                return Ok(Reply::asking(spliced.members));
            }
            let continued = asks.ask(ask).await;
            errand.continued = Some(continued.map_err(|refusal| server.fault(Failed::Refused(refusal)))?);
        }
        Err(broken("it asks again and again"))
    }
}

impl Server {
    fn not_yours(&self) -> Fault {
        let message = "requestState names no call of yours here: call again without it".into();
        self.fault(Failed::Refused(Refusal { code: -32602, message, data: None }))
    }

    /// From which level on it is to log what it does for this call, where it is known whose log that is: over HTTP, and
    /// where its process is for one client session alone. One of the older era is told so before.
    async fn logs(&self, live: &Live, context: &Context) -> Option<Level> {
        let level = context.tell.log_level()?;
        let is_known_whose = matches!(live.link, Link::Http(_)) || self.config().may_ask();
        if !is_known_whose {
            return None;
        }
        if live.greeting.era == Era::Handshake && live.greeting.serves.logging && live.logs_less_than(level) {
            let params = [("level", Param::Text(level.name()))];
            // Where it does not want to, it logs what it likes to.
            let _ = live.link.ask(Request::new("logging/setLevel", &params), Era::Handshake).await;
        }
        Some(level)
    }

    /// Asks it once, over the connection that is there.
    async fn ask_once(
        &self,
        instance: &Instance,
        errand: &Errand,
        context: &Context,
    ) -> Result<Box<str>, Fault> {
        let Errand { owner, what, continued, .. } = errand;
        // Texts are sent as texts: over HTTP one of them is a header too.
        let texts: Vec<Option<String>> = match what {
            What::Tool { .. } => Vec::new(),
            What::Method { params, .. } => {
                params.iter().map(|(_, json)| serde_json::from_str(json).ok()).collect()
            }
        };
        let mut params = match what {
            What::Tool { name, arguments, .. } => {
                vec![("name", Param::Text(name)), ("arguments", Param::Json(arguments))]
            }
            What::Method { params, .. } => {
                let both = params.iter().zip(&texts);
                both.map(|((name, json), text)| {
                    (&**name, text.as_deref().map_or(Param::Json(json), Param::Text))
                })
                .collect()
            }
        };
        let (state, responses) =
            continued.as_ref().map_or((None, None), |it| (it.state.as_deref(), it.responses.as_deref()));
        params.extend(responses.map(|responses| ("inputResponses", Param::Json(responses))));
        params.extend(state.map(|state| ("requestState", Param::Text(state))));
        let headers = what.headers();
        let request = Request {
            deadline: Some(context.deadline),
            tell: Some(&context.tell),
            ask: context.ask.as_ref(),
            can: context.ask.as_ref().map_or(Can::NOTHING, |ask| ask.can()),
            headers: &headers,
            ..Request::new(what.method(), &params)
        };
        let mut live = self.live(*owner).await?;
        let log = self.logs(&live, context).await;
        let request = Request { log, ..request };
        if continued.is_some() && live.greeting.era != Era::Stateless {
            return Err(self.not_yours());
        }
        let mut answer = live.link.ask(request, live.greeting.era).await;
        if answer == Err(Failed::Gone) {
            // It was surely not sent. Whoever takes the connection's place may take it.
            instance.moved(&State::Ready(live)).await;
            live = self.live(*owner).await?;
            self.logs(&live, context).await;
            answer = live.link.ask(request, live.greeting.era).await;
        }
        answer.map_err(|failed| self.fault(failed))
    }
}
