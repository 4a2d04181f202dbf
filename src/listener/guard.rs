//! Who may speak to this daemon from inside a browser: `Host` and `Origin`.
//!
//! A page of a stranger can make a browser send requests to a loopback address. `Host` tells when it does so under
//! a name of its own (DNS rebinding), `Origin` which page it was.

use std::net::{IpAddr, SocketAddr};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HOST, ORIGIN};

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
    pub(super) fn host_matches(&self, request: &Request<Incoming>) -> bool {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| !self.loopback || is_loopback_name(host))
    }

    /// # Errors
    /// Why the request is refused.
    pub(super) fn check(&self, request: &Request<Incoming>) -> Result<(), &'static str> {
        if !self.host_matches(request) {
            return Err("`Host` must be localhost or a loopback address here");
        }
        let Some(origin) = request.headers().get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.origin_matches(&origin, host) {
            return Ok(());
        }
        Err("this `Origin` may not call the daemon; ALLOWED_ORIGINS lists those that may")
    }

    fn origin_matches(&self, origin: &str, host: &str) -> bool {
        let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        own || self.allowed_origins.iter().any(|allowed| allowed == origin)
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
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
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
