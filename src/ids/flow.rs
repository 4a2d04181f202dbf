//! One run of a flow.

use std::fmt;

/// Names one run of a flow: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId(u128);

impl FlowId {
    /// A fresh id.
    pub fn mint() -> Self {
        Self(fastrand::u128(..))
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
