//! Upstream MCP servers: started once, shared by those who may share them, restarted when they end. Their results pass as
//! they were written.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Notify;

use crate::config::ServerConfig;
use crate::config::servers::Transport;
use crate::ids::PrincipalId;
use crate::tasks::Tasks;

mod child;
mod errand;
mod greet;
mod http;
mod instance;
mod lines;
mod link;
mod listing;
mod message;
mod mirror;
mod others;
mod pipe;
mod questions;
mod required;
mod server;
mod text;
mod watched;

use child::Program;
pub use errand::{Errand, What};
use http::Address;
use instance::{Reach, Terms};
pub use listing::{Listed, Listing};
pub use mirror::{Mirrored, of as mirrored};
pub use others::{Entry, Others};
pub use required::Continued;
pub use server::{InUse, Owner, Server};
pub use watched::{Watch, Watcher};

/// What a message may be longer than the result in it.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// Why a server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A header that cannot be sent.
    #[error("a header of the server {0} cannot be sent")]
    Header(Box<str>),
    /// The HTTP client.
    #[error("cannot set up the HTTP client of the server {0}")]
    Client(Box<str>, #[source] reqwest::Error),
}

/// What servers of one daemon have in common.
#[derive(Clone)]
pub struct Common {
    /// What a child's environment has of ours.
    pub environment: Vec<(String, String)>,
    /// Bytes of one result.
    pub result_bytes: usize,
    /// How long opening a connection may take.
    pub connect: Duration,
    /// The principal, where there is only one: what it calls may also list.
    pub sole: Option<PrincipalId>,
    /// Where tasks start.
    pub tasks: Tasks,
}

/// Sets a server up; nothing is started yet.
///
/// # Errors
/// A header that cannot be sent.
pub fn set_up(config: ServerConfig, common: &Common) -> Result<Arc<Server>, SetupError> {
    let reach = match &config.transport {
        Transport::Stdio { command, args, env, folder } => {
            let own = env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
            let usual = common.environment.iter().filter(|(name, _)| !env.contains_key(name)).cloned();
            let env = usual.chain(own).collect();
            Reach::Program(Program {
                command: command.clone(),
                args: args.clone(),
                env,
                folder: folder.clone(),
            })
        }
        Transport::Http { url, headers } => {
            let client = reqwest::Client::builder()
                .user_agent(concat!("inflightd/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(common.connect)
                // A redirect would carry arguments, perhaps a token, to somebody the operator did not name.
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .build()
                .map_err(|error| SetupError::Client(config.name.clone(), error))?;
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                let pair = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value.reveal()).ok());
                let (name, mut value) = pair.ok_or_else(|| SetupError::Header(config.name.clone()))?;
                value.set_sensitive(true);
                all.insert(name, value);
            }
            Reach::Address(Address { url: Arc::from(&**url), headers: all, client })
        }
    };
    let terms = Terms {
        name: Arc::from(&*config.name),
        reach,
        start: config.start_timeout,
        restart: config.restart,
        limit: common.result_bytes.saturating_add(ENVELOPE_BYTES),
        asks: config.may_ask(),
        era: instance::KnownEra::default(),
        changed: Arc::new(Notify::new()),
        tasks: common.tasks.clone(),
    };
    Ok(Arc::new(Server::new(config, terms, common.sole)))
}
