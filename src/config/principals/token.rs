//! What a token hashes to. The token itself is forgotten once it is hashed.

use super::Wrong;

/// What the text of a hash begins with.
const PREFIX: &str = "blake3:";

/// The BLAKE3 hash of a token. Tokens are long and random, or a person's own choice: `Debug` prints nothing of it.
#[derive(Clone, Copy)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// What this token hashes to.
    pub fn of(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// Reads `blake3:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let digits = text.strip_prefix(PREFIX).ok_or(Wrong::NotHash)?;
        blake3::Hash::from_hex(digits).map(Self).map_err(|_| Wrong::NotHash)
    }

    /// Whether they are the same. Takes as long for any two.
    pub fn same(&self, other: &Self) -> bool {
        // blake3 compares its hashes in constant time.
        self.0 == other.0
    }

    /// As [`TokenHash::parse`] reads it.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", self.0.to_hex())
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_as_written() {
        let hash = TokenHash::of("0123456789abcdef");
        assert!(TokenHash::parse(&hash.text()).unwrap().same(&hash));
        assert!(!TokenHash::of("0123456789abcdee").same(&hash));
        let digits = hash.text().split_off(PREFIX.len());
        for wrong in ["", &digits, "sha256:00", "blake3:", "blake3:zz", &hash.text()[..70]] {
            assert_eq!(TokenHash::parse(wrong).unwrap_err(), Wrong::NotHash, "{wrong}");
        }
    }

    #[test]
    fn a_hash_is_not_shown_by_accident() {
        assert_eq!(format!("{:?}", TokenHash::of("hush")), "TokenHash(…)");
    }
}
