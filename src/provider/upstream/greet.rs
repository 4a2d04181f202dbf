//! The first words with a server: which era it speaks, and what it serves.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::deadline::Deadline;
use crate::provider::upstream::link::{Link, Param, Request};
use crate::provider::upstream::message::{self, CLIENT_INFO, Era};
use crate::provider::upstream::pipe::Failed;
use crate::provider::upstream::questions;

/// How long a server may take to say whether it knows the stateless era: an older one may not answer what it does not
/// know. Slower ones are taken for older ones, which newer ones are too where they serve both.
const PROBE: Duration = Duration::from_secs(5);
/// Revisions reached by `initialize` that are understood.
const HANDSHAKE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// What is shown of a server's own name.
const NAME_CHARS: usize = 64;

/// What a server said of itself.
#[derive(Debug, Clone)]
pub(super) struct Greeting {
    pub(super) era: Era,
    /// The revision.
    pub(super) version: Box<str>,
    /// Its name and version, as it gave them.
    pub(super) name: Box<str>,
    pub(super) serves: Serves,
}

/// Which of its capabilities are there.
#[expect(clippy::struct_excessive_bools, reason = "each is one of the protocol's, and they are independent")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Serves {
    pub(super) tools: bool,
    pub(super) resources: bool,
    pub(super) prompts: bool,
    pub(super) completions: bool,
    pub(super) logging: bool,
    /// It tells when a resource changes.
    pub(super) updates: bool,
}

/// Why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoGreeting {
    /// It ended when it was asked in the stateless era: some older ones do.
    EndedAtProbe,
    /// It failed.
    Failed(Failed),
    /// It speaks no revision that we do.
    Revision(Box<str>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    #[serde(borrow, default)]
    supported_versions: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    protocol_version: Cow<'a, str>,
    #[serde(borrow, default)]
    capabilities: Capabilities<'a>,
    #[serde(borrow, default)]
    server_info: Info<'a>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Meta<'a>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Info<'a>,
}

#[derive(Default, Deserialize)]
struct Info<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    logging: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    subscribe: bool,
}

/// Greets it; `known` is the era that it was found to speak before, `asks` whether it is told that it may ask.
pub(super) async fn greet(link: &Link, known: Option<Era>, asks: bool) -> Result<Greeting, NoGreeting> {
    if known != Some(Era::Handshake)
        && let Some(greeting) = discover(link).await?
    {
        return Ok(greeting);
    }
    initialize(link, asks).await
}

/// `None`: it does not speak the stateless era.
async fn discover(link: &Link) -> Result<Option<Greeting>, NoGreeting> {
    let request = Request::new("server/discover", &[]);
    let Ok(answer) = Deadline::after(PROBE).limit(link.ask(request, Era::Stateless)).await else {
        return Ok(None);
    };
    let result = match answer {
        Ok(result) => result,
        Err(Failed::Refused(_) | Failed::TooLarge | Failed::Status { .. }) => return Ok(None),
        Err(Failed::Gone | Failed::Broken(_)) => return Err(NoGreeting::EndedAtProbe),
        Err(failed @ Failed::NotSent(_)) => return Err(NoGreeting::Failed(failed)),
    };
    let said = serde_json::from_str::<Said<'_>>(&result).ok();
    let speaks =
        |said: &Said<'_>| said.supported_versions.iter().any(|version| version == message::STATELESS);
    Ok(said.filter(speaks).map(|said| said.greeting(Era::Stateless, message::STATELESS)))
}

async fn initialize(link: &Link, asks: bool) -> Result<Greeting, NoGreeting> {
    let params = [
        ("protocolVersion", Param::Text(message::HANDSHAKE)),
        ("capabilities", Param::Json(if asks { questions::DECLARED } else { "{}" })),
        ("clientInfo", Param::Json(CLIENT_INFO)),
    ];
    let request = Request::new("initialize", &params);
    let result = link.ask(request, Era::Handshake).await.map_err(NoGreeting::Failed)?;
    let nonsense = || NoGreeting::Failed(Failed::Broken("its answer to initialize makes no sense"));
    let said: Said<'_> = serde_json::from_str(&result).map_err(|_| nonsense())?;
    let version = said.protocol_version.chars().take(NAME_CHARS).collect::<String>();
    if !HANDSHAKE.contains(&&*version) {
        return Err(NoGreeting::Revision(version.into()));
    }
    if let Link::Http(session) = link {
        session.speaks(&version);
    }
    let initialized = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}".to_owned();
    link.notify(initialized).await.map_err(NoGreeting::Failed)?;
    Ok(said.greeting(Era::Handshake, &version))
}

impl Said<'_> {
    fn greeting(&self, era: Era, version: &str) -> Greeting {
        let info = if self.server_info.name.is_empty() { &self.meta.server_info } else { &self.server_info };
        let name = format!("{} {}", info.name, info.version);
        let shown = name.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect::<String>();
        let there = |capability: Option<&RawValue>| capability.is_some_and(|raw| raw.get() != "null");
        let capabilities = &self.capabilities;
        let offered =
            capabilities.resources.and_then(|raw| serde_json::from_str::<Resources>(raw.get()).ok());
        let serves = Serves {
            tools: there(capabilities.tools),
            resources: there(capabilities.resources),
            prompts: there(capabilities.prompts),
            completions: there(capabilities.completions),
            logging: there(capabilities.logging),
            updates: offered.is_some_and(|resources| resources.subscribe),
        };
        Greeting { era, version: version.into(), name: shown.into(), serves }
    }
}
