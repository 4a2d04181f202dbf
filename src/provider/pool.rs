//! The connections to one provider: kept for the next request, counted, opened within a bound.
//!
//! hyper-util's client below is the one that reqwest is made of; reqwest itself does not show its connections.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyDataStream, Full};
use hyper::body::Incoming;
use hyper::http::{Request, response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

mod connect;

pub use connect::TlsError;
use connect::{Connector, NoConnection};

/// How long a connection that nobody uses is kept: shorter than the services' own 60 to 120 seconds would be a
/// handshake for nothing, longer a request into a connection that they have closed.
const KEPT_IDLE: Duration = Duration::from_secs(55);

/// How a pool is set up.
#[derive(Debug, Clone, Copy)]
pub struct PoolRules {
    /// Connections kept while nobody uses them.
    pub idle: usize,
    /// What opening one may take, name and TLS included.
    pub connect: Duration,
}

/// What the connections of a pool are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolView {
    /// Requests that use one now.
    pub active: usize,
    /// Connections that are open and that nobody uses.
    pub idle: usize,
    /// Connections that could not be opened, or that broke under a request, since the daemon started.
    pub failed: u64,
}

/// Counts of a pool, for whoever watches it.
#[derive(Debug, Default)]
pub struct Gauges {
    open: AtomicUsize,
    active: AtomicUsize,
    failed: AtomicU64,
}

impl Gauges {
    /// The counts now.
    pub fn view(&self) -> PoolView {
        let active = self.active.load(Ordering::Acquire);
        let open = self.open.load(Ordering::Acquire);
        PoolView { active, idle: open.saturating_sub(active), failed: self.failed.load(Ordering::Acquire) }
    }

    fn failed(&self) {
        self.failed.fetch_add(1, Ordering::AcqRel);
    }
}

/// A request that uses a connection, until it is dropped.
#[derive(Debug)]
struct Using(Arc<Gauges>);

impl Using {
    fn new(gauges: &Arc<Gauges>) -> Self {
        gauges.active.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(gauges))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was never sent: there is no connection.
    Unreachable(&'static str),
    /// It may have been read.
    Broken,
}

/// The connections to one provider.
#[derive(Clone)]
pub(super) struct Pool {
    client: Client<Connector, Full<Bytes>>,
    gauges: Arc<Gauges>,
}

impl Pool {
    /// Sets the pool of `url`'s service up; nothing is connected yet.
    pub(super) fn new(url: &str, rules: PoolRules) -> Result<Self, TlsError> {
        let gauges = Arc::new(Gauges::default());
        let connector = Connector::new(url, rules.connect, Arc::clone(&gauges))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(rules.idle)
            .build(connector);
        Ok(Self { client, gauges })
    }

    /// Its counts.
    pub(super) fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// Sends a request. Dropping the future, or the answer's body, closes the connection under it.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(response::Parts, Body), NoAnswer> {
        let using = Using::new(&self.gauges);
        match self.client.request(request).await {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok((head, Body { data: BodyDataStream::new(body), using }))
            }
            Err(error) if error.is_connect() => {
                self.gauges.failed();
                let why = error.source().and_then(|cause| cause.downcast_ref::<NoConnection>());
                Err(NoAnswer::Unreachable(why.copied().unwrap_or(NoConnection::Tcp).reason()))
            }
            Err(_) => {
                self.gauges.failed();
                Err(NoAnswer::Broken)
            }
        }
    }
}

/// The bytes of an answer, as they come.
pub(super) struct Body {
    data: BodyDataStream<Incoming>,
    using: Using,
}

impl Stream for Body {
    type Item = Result<Bytes, hyper::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.data).poll_next(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.using.0.failed();
        }
        polled
    }
}
