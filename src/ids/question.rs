//! The name of a question that a client is asked.

use std::fmt;

/// Names one question to one client: `q_<16 hex>`. The servers' own ids of their questions go nowhere: two of them never
/// meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionId(u64);

impl QuestionId {
    /// A fresh id, unlike any other of this daemon's life.
    pub fn mint() -> Self {
        Self(fastrand::u64(..))
    }

    /// Reads an id as [`Display`](fmt::Display) writes it; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("q_")?;
        let sound = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        sound.then(|| u64::from_str_radix(digits, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q_{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written_and_nothing_else_is_one() {
        let id = QuestionId::mint();
        assert_eq!(QuestionId::parse(&id.to_string()), Some(id));
        for wrong in ["", "q_", "q_0", "q_+123456789abcdef", "req_0123456789abcdef", "7"] {
            assert_eq!(QuestionId::parse(wrong), None, "{wrong}");
        }
    }
}
