//! The key by which a client finds its calls again after it lost its connection.

use std::fmt;

/// 128 bits that a client mints for itself and never shows anybody else: a secret, so `Debug` prints nothing of it
/// and `Display` does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u128);

impl SessionKey {
    /// The header that brings it, at every upgrade.
    pub const HEADER: &str = "inflightd-session";

    /// What is said to whoever brings something else.
    pub const FORM: &str = "a session key is 128 bits in 32 hexadecimal digits";

    /// The key of these bits.
    pub fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// Reads 32 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The key as it travels, for the one place that must send it.
    pub fn reveal(&self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_sent_and_nothing_else_is_one() {
        let key = SessionKey::new(0x0123_4567_89ab_cdef);
        assert_eq!(SessionKey::parse(&key.reveal()), Some(key));
        let long = "0".repeat(33);
        for wrong in ["", "0123456789abcdef", "+123456789abcdef0123456789abcdef", &long] {
            assert_eq!(SessionKey::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", SessionKey::new(7)), "SessionKey(…)");
    }
}
