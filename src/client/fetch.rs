//! One plain GET: what a command asks that is no call of a tool.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::endpoint::{ConnectError, Endpoint};

/// The longest answer that is read.
const ANSWER_BYTES: usize = 16 << 20;

impl Endpoint {
    /// The body of the answer to a GET of `path`, within `budget`.
    pub fn get(&self, path: &str, budget: Duration) -> Result<String, ConnectError> {
        let until = Instant::now() + budget;
        let mut stream = self.reach(until)?;
        stream.set_write_timeout(Some(left(until)?)).map_err(ConnectError::Reach)?;
        stream.write_all(self.plain_request(path).as_bytes()).map_err(ConnectError::Reach)?;
        let answer = read_to_end(&mut stream, until)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(ConnectError::NotADaemon { status: 0 })?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        match status {
            200 => Ok(body.to_owned()),
            401 => Err(ConnectError::Unauthorized),
            403 => Err(ConnectError::Forbidden),
            503 => Err(ConnectError::Busy),
            status => Err(ConnectError::NotADaemon { status }),
        }
    }
}

fn left(until: Instant) -> Result<Duration, ConnectError> {
    Some(until.saturating_duration_since(Instant::now()))
        .filter(|left| !left.is_zero())
        .ok_or(ConnectError::Silent)
}

fn read_to_end(stream: &mut TcpStream, until: Instant) -> Result<String, ConnectError> {
    let mut answer = Vec::new();
    let mut piece = [0; 8192];
    loop {
        stream.set_read_timeout(Some(left(until)?)).map_err(ConnectError::Reach)?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(read) => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Err(ConnectError::Silent);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ConnectError::Reach(error)),
        }
        if answer.len() > ANSWER_BYTES {
            return Err(ConnectError::NotADaemon { status: 0 });
        }
    }
}
