//! The name of a conversation that a caller may go on with.

use std::fmt;

/// Names a conversation of its principal: `conv_<16 hex>_<8 hex>`.
///
/// Callers that shared the call which opened it get one conversation each, with equal first parts: what one of them
/// says later, the others' have never heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContinuationId {
    base: u64,
    fork: u32,
}

impl ContinuationId {
    /// How long every name is, in bytes.
    pub const LENGTH: usize = 30;

    /// A fresh name, unlike any other of this daemon's life.
    pub fn mint() -> Self {
        Self { base: fastrand::u64(..), fork: 0 }
    }

    /// The conversation of one who shared the call that opened this one; `random` tells the sharers apart.
    #[must_use]
    pub fn fork(self, random: u64) -> Self {
        let fork = u32::try_from(random & u64::from(u32::MAX)).unwrap_or_default();
        Self { base: self.base, fork: fork.max(1) }
    }

    /// The conversation that this one was forked from, if it was.
    pub fn forked_from(self) -> Option<Self> {
        (self.fork != 0).then_some(Self { base: self.base, fork: 0 })
    }

    /// Reads a name as [`Display`](fmt::Display) writes it; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, fork) = text.strip_prefix("conv_")?.split_once('_')?;
        let digits =
            |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sound = digits(base, 16) && digits(fork, 8);
        let read = || {
            Some(Self {
                base: u64::from_str_radix(base, 16).ok()?,
                fork: u32::from_str_radix(fork, 16).ok()?,
            })
        };
        sound.then(read).flatten()
    }

    /// Its bits, for keys.
    pub fn bits(self) -> [u64; 2] {
        [self.base, u64::from(self.fork)]
    }
}

impl fmt::Display for ContinuationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conv_{:016x}_{:08x}", self.base, self.fork)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_written_and_nothing_else_is_one() {
        let id = ContinuationId::mint();
        for id in [id, id.fork(7), id.fork(u64::MAX), id.fork(0)] {
            assert_eq!(ContinuationId::parse(&id.to_string()), Some(id));
            assert_eq!(id.to_string().len(), ContinuationId::LENGTH);
        }
        assert_eq!((id.forked_from(), id.fork(1 << 40).forked_from()), (None, Some(id)));
        for wrong in ["", "new", "conv_", "conv_0123456789abcdef", "conv_+123456789abcdef_00000000"] {
            assert_eq!(ContinuationId::parse(wrong), None, "{wrong}");
        }
    }
}
