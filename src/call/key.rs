//! What makes two calls the same call.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::call::canonical::{CanonicalError, canonical};
use crate::ids::{ClientSessionId, PrincipalId, ToolId};

/// Compared field by field: a digest can never make two principals or two tools meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKey {
    /// For whom.
    pub principal: PrincipalId,
    /// Within which client session, where only that may share it.
    pub session: Option<ClientSessionId>,
    /// Which tool.
    pub tool: ToolId,
    /// Content hash of the tool's definition with provider, base URL, model and prompt: a reload never mixes
    /// old and new.
    pub definition: u64,
    /// How many equal children of the same composite came before: those never join each other. The first has none, and
    /// so has every call that no composite makes.
    pub ordinal: u32,
    /// Over the canonical arguments. It does not resist collisions made on purpose, so whoever joins compares
    /// the arguments as well.
    pub digest: u128,
}

impl Hash for CallKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [low, high] = halves(self.digest);
        state.write_u64(
            low ^ high.rotate_left(32) ^ self.definition.rotate_left(17) ^ u64::from(self.principal.0),
        );
    }
}

fn halves(digest: u128) -> [u64; 2] {
    let low = u64::try_from(digest & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(digest >> 64).unwrap_or_default();
    [low, high]
}

/// The digest is already a hash, seeded at random: the map needs no second one.
#[derive(Debug, Default, Clone)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Builds [`KeyHasher`]s.
pub type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

/// A buffer larger than this is not kept for the next call.
const SPARE_BYTES: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Canonical arguments. The buffer that they are in serves the next call: most calls only compare.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<u8>);

impl Deref for Form {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
impl From<&str> for Form {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        if self.0.capacity() <= SPARE_BYTES {
            self.0.clear();
            SPARE.set(std::mem::take(&mut self.0));
        }
    }
}

/// Makes digests under a seed of this process, so that nobody outside can aim at one.
#[derive(Debug, Clone, Copy)]
pub struct Digester {
    seed: u64,
}

impl Default for Digester {
    fn default() -> Self {
        Self { seed: fastrand::u64(..) }
    }
}

impl Digester {
    /// The canonical form of the arguments and of whatever else distinguishes the call, and its digest.
    ///
    /// `extra` holds the request's `_meta` members that are not known to be inert, as one JSON object.
    pub fn digest(&self, arguments: &str, extra: Option<&str>) -> Result<(Form, u128), CanonicalError> {
        let mut form = Form(SPARE.take());
        // The closing commas rarely add more than this.
        form.0.reserve(arguments.len() + arguments.len() / 8 + 16);
        canonical(arguments, &mut form.0)?;
        if let Some(extra) = extra {
            form.0.push(b'#');
            canonical(extra, &mut form.0)?;
        }
        let digest = xxh3_128_with_seed(&form, self.seed);
        Ok((form, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_the_arguments_counts() {
        let digester = Digester::default();
        let of = |arguments, extra| digester.digest(arguments, extra).unwrap();
        assert_eq!(of(r#"{"b":1,"a":2}"#, None), of(r#"{ "a":2, "b":1 }"#, None));
        assert_ne!(of("{}", None).1, of("{}", Some(r#"{"acme/tenant":1}"#)).1);
        assert_ne!(of("{}", Some(r#"{"acme/tenant":2}"#)).1, of("{}", Some(r#"{"acme/tenant":1}"#)).1);
    }

    #[test]
    fn a_principal_a_session_a_tool_a_definition_and_an_ordinal_each_part_equal_digests() {
        let key = CallKey {
            principal: PrincipalId(1),
            session: None,
            tool: ToolId(1),
            definition: 7,
            ordinal: 0,
            digest: 42,
        };
        assert_ne!(key, CallKey { principal: PrincipalId(2), ..key });
        assert_ne!(key, CallKey { tool: ToolId(2), ..key });
        assert_ne!(key, CallKey { definition: 8, ..key });
        assert_ne!(key, CallKey { ordinal: 1, ..key });
        assert_ne!(key, CallKey { session: Some(ClientSessionId(3)), ..key });
    }
}
