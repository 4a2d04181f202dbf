//! Opens connections: straight or through the proxy that the environment names, with TLS where the URL asks for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::deadline::Deadline;
use crate::provider::pool::Gauges;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection that goes silent for so long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// TLS cannot be set up on this machine.
#[derive(Debug, thiserror::Error)]
#[error("set up TLS with this machine's certificates")]
pub struct TlsError(#[source] io::Error);

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("no connection")]
    Tcp,
    #[error("the proxy has not let it through")]
    Proxy,
    #[error("the TLS handshake failed")]
    Tls,
    #[error("connecting took too long")]
    TooLate,
}

impl NoConnection {
    /// What a caller may read.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Tcp => "no connection",
            Self::Proxy => "the proxy has not let it through",
            Self::Tls => "the TLS handshake failed",
            Self::TooLate => "connecting took too long",
        }
    }
}

/// Opens a connection within a bound, and says which step failed.
#[derive(Clone)]
pub(super) struct Connector {
    inner: Inner,
    limit: Duration,
}

/// Without `https` no certificate is read: that takes longer than all the rest of a start.
#[derive(Clone)]
enum Inner {
    Plain(Route),
    Tls(HttpsConnector<Route>),
}

impl Connector {
    pub(super) fn new(url: &str, limit: Duration, gauges: Arc<Gauges>) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        let route = Route { tcp, proxies: Arc::new(Matcher::from_env()), gauges };
        let inner = if url.starts_with("https:") {
            let tls = HttpsConnectorBuilder::new().try_with_platform_verifier();
            let tls = tls.map_err(|error| TlsError(io::Error::other(error)))?;
            Inner::Tls(tls.https_or_http().enable_all_versions().wrap_connector(route))
        } else {
            Inner::Plain(route)
        };
        Ok(Self { inner, limit })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Counted>;
    type Error = NoConnection;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let deadline = Deadline::after(self.limit);
        let mut inner = self.inner.clone();
        Box::pin(async move {
            let opening = async {
                match &mut inner {
                    Inner::Plain(route) => route.call(to).await.map(MaybeHttpsStream::Http),
                    Inner::Tls(tls) => tls.call(to).await.map_err(|error| step(&error)),
                }
            };
            deadline.limit(opening).await.unwrap_or(Err(NoConnection::TooLate))
        })
    }
}

/// What is not the route's failure is TLS's.
fn step(error: &BoxError) -> NoConnection {
    error.downcast_ref::<NoConnection>().copied().unwrap_or(NoConnection::Tls)
}

/// The way to a service, below TLS.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
    gauges: Arc<Gauges>,
}

impl Service<Uri> for Route {
    type Response = Counted;
    type Error = NoConnection;
    type Future = BoxFuture<'static, Result<Counted, NoConnection>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), NoConnection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let gauges = Arc::clone(&self.gauges);
        // A proxy for the outside cannot reach this machine.
        let proxy = self.proxies.intercept(&to).filter(|_| !is_loopback(&to));
        Box::pin(async move {
            let Some(proxy) = proxy else {
                let io = tcp.call(to).await.map_err(|_| NoConnection::Tcp)?;
                return Ok(Counted::new(io, gauges, false));
            };
            if to.scheme_str() == Some("https") {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(HeaderValue::clone(auth));
                }
                let io = tunnel.call(to).await.map_err(|_| NoConnection::Proxy)?;
                return Ok(Counted::new(io, gauges, false));
            }
            let io = tcp.call(proxy.uri().clone()).await.map_err(|_| NoConnection::Proxy)?;
            Ok(Counted::new(io, gauges, true))
        })
    }
}

fn is_loopback(to: &Uri) -> bool {
    let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A connection that is counted for as long as it is open.
#[derive(Debug)]
pub(super) struct Counted {
    io: TokioIo<TcpStream>,
    gauges: Arc<Gauges>,
    is_proxy: bool,
}

impl Counted {
    fn new(io: TokioIo<TcpStream>, gauges: Arc<Gauges>, is_proxy: bool) -> Self {
        gauges.open.fetch_add(1, Ordering::AcqRel);
        Self { io, gauges, is_proxy }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauges.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxy)
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, from)
    }
}
