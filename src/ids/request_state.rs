//! The handle of a call that waits for its client to come back with answers.

use std::fmt;

/// 128 random bits that name a parked call: `inflightd_<32 hex>`. Whoever has it may go on with the call, if it is the
/// same principal, so `Debug` prints nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestState(u128);

impl RequestState {
    /// How every handle begins; what begins otherwise is a server's own.
    pub const PREFIX: &str = "inflightd_";

    /// A fresh one; `None` where the machine has no randomness.
    pub fn mint() -> Option<Self> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).ok()?;
        Some(Self(u128::from_le_bytes(bits)))
    }

    /// Reads a handle; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        let sound = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        sound.then(|| u128::from_str_radix(digits, 16).ok().map(Self)).flatten()
    }

    /// The handle as it travels, for the one place that must send it.
    pub fn reveal(self) -> String {
        format!("{}{:032x}", Self::PREFIX, self.0)
    }
}

impl fmt::Debug for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestState(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back_as_it_travels_and_shows_itself_nowhere_else() {
        let state = RequestState::mint().unwrap();
        assert_eq!(RequestState::parse(&state.reveal()), Some(state));
        assert_eq!(format!("{state:?}"), "RequestState(…)");
        assert_ne!(RequestState::mint(), Some(state));
        for wrong in ["", "inflightd_", "inflightd_0", "inflightd_+123456789abcdef0123456789abcdef"] {
            assert_eq!(RequestState::parse(wrong), None, "{wrong}");
        }
    }
}
