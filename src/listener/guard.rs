//! Who may speak to this daemon from inside a browser: `Host` and `Origin`.
//!
//! A page of a stranger can make a browser send requests to a loopback address. `Host` tells when it does so under
//! a name of its own (DNS rebinding), `Origin` which page it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::header::{HOST, ORIGIN};
use hyper::{Request, StatusCode};

/// The rules of one listener.
pub(super) struct Gate {
    loopback: bool,
    allowed_origins: Vec<String>,
}

impl Gate {
    /// The rules of a listener at `address`.
    pub(super) fn new(address: SocketAddr, allowed_origins: Vec<String>) -> Self {
        Self { loopback: address.ip().to_canonical().is_loopback(), allowed_origins }
    }

    /// Whether `Host` is one that this listener goes by.
    pub(super) fn host_matches<B>(&self, request: &Request<B>) -> bool {
        named(request).is_ok_and(|host| self.goes_by(host))
    }

    fn goes_by(&self, host: &str) -> bool {
        !self.loopback || is_loopback_name(host)
    }

    /// # Errors
    /// Why the request is refused, and with which status.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
        let host = named(request).map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
        if !self.goes_by(host) {
            return Err((StatusCode::FORBIDDEN, "`Host` must be localhost or a loopback address here"));
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(()) };
        if origins.next().is_some() {
            return Err((StatusCode::BAD_REQUEST, "one `Origin` at most"));
        }
        let origin = origin.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
        if self.origin_matches(&origin, host) {
            return Ok(());
        }
        let reason = "this `Origin` may not call the daemon; ALLOWED_ORIGINS lists those that may";
        Err((StatusCode::FORBIDDEN, reason))
    }

    fn origin_matches(&self, origin: &str, host: &str) -> bool {
        let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        own || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }
}

/// The name by which the request reached the daemon: `Host`, exactly once, and the same in a target in absolute form
/// (RFC 9112, section 3.2).
///
/// # Errors
/// It has none that can be relied on.
fn named<B>(request: &Request<B>) -> Result<&str, &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err("exactly one `Host` is needed") };
    let host = host.to_str().map_err(|_| "`Host` is no host")?;
    match request.uri().authority() {
        Some(authority) if !authority.as_str().eq_ignore_ascii_case(host) => {
            Err("the request's target names another host than `Host`")
        }
        Some(_) | None => Ok(host),
    }
}

/// `localhost`, or a loopback address, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        return is_loopback && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    is_loopback && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts_of_a_loopback_listener() {
        for right in [
            "localhost",
            "LOCALHOST:8079",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:8079",
            "[::1]",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback_name(right), "{right}");
        }
        for wrong in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "localhost:x",
            "[::2]",
            "[::1",
            "::1",
        ] {
            assert!(!is_loopback_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_request_says_exactly_once_by_which_name_it_came() {
        let named = |target: &str, hosts: &[&str]| {
            let start = Request::builder().uri(target);
            let request = hosts.iter().fold(start, |request, host| request.header(HOST, *host));
            super::named(&request.body(()).unwrap()).map(str::to_owned)
        };
        assert_eq!(named("/x", &["localhost:1"]).unwrap(), "localhost:1");
        assert_eq!(named("http://LocalHost:1/x", &["localhost:1"]).unwrap(), "localhost:1");
        for (target, hosts) in [
            ("/x", [].as_slice()),
            ("/x", &["localhost", "localhost"]),
            ("/x", &["localhost", "evil.example"]),
            ("http://evil.example/x", &["localhost"]),
            ("http://localhost/x", &["localhost:1"]),
            ("http://me@localhost/x", &["localhost"]),
        ] {
            assert!(named(target, hosts).is_err(), "{target} {hosts:?}");
        }
    }

    #[test]
    fn an_origin_must_be_the_daemons_own_or_listed() {
        let gate = Gate::new("127.0.0.1:8079".parse().unwrap(), vec!["https://app.example".into()]);
        assert!(gate.origin_matches("http://localhost:8079", "localhost:8079"));
        assert!(gate.origin_matches("https://app.example", "localhost:8079"));
        for wrong in ["null", "", "http://localhost:3000", "http://evil.example", "https://app.example.evil"]
        {
            assert!(!gate.origin_matches(wrong, "localhost:8079"), "{wrong}");
        }
    }
}
