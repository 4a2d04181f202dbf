//! How the work of a composite calls tools itself: each child is a call of its own, through every stage of the path.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::provider::Reply;

/// One call that a composite makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Which tool; never another composite.
    pub tool: Arc<str>,
    /// Its arguments, as JSON text.
    pub arguments: String,
    /// How many equal children of this composite came before it. Equal ones never join each other; the first of
    /// them joins whoever makes the same call.
    pub ordinal: u32,
}

/// Why a child has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChildFailed {
    /// The error's code on the wire.
    pub code: &'static str,
    /// What its caller may read.
    pub message: String,
}

/// Takes a composite's children in.
pub trait Submit: Send + Sync {
    /// Hands a child over at once; what is returned waits for its end. Children have the composite's principal, class
    /// and deadline.
    ///
    /// Cancel safe: dropping it, before its first poll too, takes the child back.
    fn submit(&self, child: Child) -> BoxFuture<'static, Result<Arc<Reply>, ChildFailed>>;
}
