//! The names of things: minted by the daemon, never taken from a client, but for the key of a client's session.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

mod continuation;
mod flow;
mod question;
mod request_state;
mod session_key;

pub use continuation::ContinuationId;
pub use flow::FlowId;
pub use question::QuestionId;
pub use request_state::RequestState;
pub use session_key::SessionKey;

/// The name by which the commands introduce themselves.
pub const CLI_NAME: &str = "inflightd-cli";

/// Names one waiter: `req_<16 hex>_<epoch ms>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    random: u64,
    minted_ms: u64,
}

impl RequestId {
    /// A fresh id, unlike any other of this daemon's life.
    pub fn mint() -> Self {
        Self { random: fastrand::u64(..), minted_ms: epoch_ms() }
    }

    /// Reads an id as [`Display`](fmt::Display) writes it; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (random, minted) = text.strip_prefix("req_")?.split_once('_')?;
        if random.len() != 16 {
            return None;
        }
        Some(Self { random: u64::from_str_radix(random, 16).ok()?, minted_ms: minted.parse().ok()? })
    }

    /// Its random part, unlike any other's but for a chance of 1 in 2^64.
    pub fn random(&self) -> u64 {
        self.random
    }

    /// When it was minted, in milliseconds since 1970.
    pub fn minted_ms(&self) -> u64 {
        self.minted_ms
    }

    /// Appends the id to `out` without going through a formatter.
    pub fn write_to(&self, out: &mut String) {
        out.push_str("req_");
        push_hex(out, self.random, 16);
        out.push('_');
        out.push_str(itoa::Buffer::new().format(self.minted_ms));
    }
}

/// The random part alone: maps by request id need no further hashing.
impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.random);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:016x}_{}", self.random, self.minted_ms)
    }
}

/// Names one Execution, the isolated session in which one Run works: `session_<12 hex>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutionId(u64);

impl ExecutionId {
    /// A fresh id.
    pub fn mint() -> Self {
        Self(fastrand::u64(..) >> 16)
    }

    /// Appends the id to `out` without going through a formatter.
    pub fn write_to(&self, out: &mut String) {
        out.push_str("session_");
        push_hex(out, self.0, 12);
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session_{:012x}", self.0)
    }
}

/// Names whom a call is made for. Equal calls of two principals never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrincipalId(pub u32);

/// Names one client session: a connection, or what stands for one over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientSessionId(pub u64);

/// Names one tool, whatever else is offered beside it, before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolId(pub u64);

impl ToolId {
    /// The tool of this name. No two names have one id, unless by a chance of 1 in 2^64: none can be made to.
    pub fn of(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        Self(hash.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes))
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock stands before that.
pub fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Appends the last `digits` hexadecimal digits of `value`.
fn push_hex(out: &mut String, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        let nibble = u32::try_from((value >> (place * 4)) & 0xf).unwrap_or_default();
        out.push(char::from_digit(nibble, 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_reads_back_as_written() {
        let id = RequestId::mint();
        assert_eq!(RequestId::parse(&id.to_string()), Some(id));
        for wrong in [
            "",
            "req_",
            "req_12_34",
            "req_0123456789abcdef",
            "session_0123456789ab",
            "req_zzzzzzzzzzzzzzzz_1",
        ] {
            assert_eq!(RequestId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_quick_writers_agree_with_display() {
        let (request, execution) = (RequestId::mint(), ExecutionId::mint());
        let mut text = String::new();
        request.write_to(&mut text);
        assert_eq!(text, request.to_string());
        text.clear();
        execution.write_to(&mut text);
        assert_eq!(text, execution.to_string());
    }
}
