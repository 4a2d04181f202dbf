//! The path of a call, on paused time: gates instead of sleeps, and a stage on which each piece of work stands
//! until the test says how it ends.

pub(crate) mod rig;
pub(crate) mod stage;

mod asking;
mod caching;
mod composing;
mod ending;
mod falling;
mod inheriting;
mod joining;
mod leaving;
mod limits;
mod losing;
mod model;
mod rates;
mod resting;
mod retrying;
#[cfg(feature = "shuttle")]
mod scheduled;
mod stress;
mod unread;
