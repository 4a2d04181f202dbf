//! Who the clients are, how long each waits for an answer, and which of them would give up before the daemon does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::ids::epoch_ms;
use crate::telemetry::push_timestamp;

mod known;

/// How long before its client's limit a call is answered that is still running.
const MARGIN: Duration = Duration::from_secs(5);

/// When shims give up that can take nothing but one frame for each request.
const SIMPLE_LIMIT: Duration = Duration::from_secs(60);

/// Clients remembered. A machine has a few; who makes names up gets no more than this.
const SEEN: usize = 256;

/// The longest introduction whose words are kept.
const WORDS_BYTES: usize = 1024;

/// What is kept of a name or version, in characters.
const NAME_CHARACTERS: usize = 64;

/// Why a limit is taken to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The client said so.
    Declared,
    /// Clients of its name have it.
    Known,
}

/// How long a client waits for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patience {
    /// Nobody knows.
    #[default]
    Unknown,
    /// As long as it takes.
    Unlimited,
    /// So long.
    Limited {
        /// The limit.
        after: Duration,
        /// Whether it counts from the last progress on.
        progress_resets: bool,
        /// Why it is taken to be one.
        basis: Basis,
    },
}

impl Patience {
    /// What a client says of itself, or is known for. Of two limits that it declares, the shorter one ends its wait.
    fn of(name: &str, declared: &[Option<Duration>]) -> Self {
        match declared.iter().flatten().min() {
            Some(after) => Self::Limited { after: *after, progress_resets: false, basis: Basis::Declared },
            None => known::patience(name),
        }
    }
}

/// Whether a client gives up on a call that the daemon still works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GivesUpFirst {
    No,
    /// Only on calls for which it wants no progress.
    WithoutProgress,
    Yes,
}

impl GivesUpFirst {
    fn label(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::WithoutProgress => "without_progress",
            Self::Yes => "yes",
        }
    }
}

/// One client by name and version.
#[derive(Debug)]
struct Seen {
    name: Box<str>,
    version: Box<str>,
    patience: Patience,
    /// In which words it introduced itself first; empty where they are not kept.
    words: Box<str>,
    last_ms: AtomicU64,
}

/// A client that has introduced itself, for as long as its connection lives.
#[derive(Debug)]
pub struct Met {
    seen: Arc<Seen>,
}

impl Met {
    /// How long it waits.
    pub fn patience(&self) -> Patience {
        self.seen.patience
    }
}

impl Drop for Met {
    fn drop(&mut self) {
        self.seen.last_ms.store(epoch_ms(), Ordering::Relaxed);
    }
}

/// All clients of this daemon's life, as far as they are remembered.
#[derive(Debug)]
pub struct Clients {
    daemon: Duration,
    unknown: Duration,
    seen: Mutex<Vec<Arc<Seen>>>,
}

impl Clients {
    /// None yet. `daemon` is when the daemon gives up on a call, `unknown` when a client does of whom nothing is known.
    pub fn new(daemon: Duration, unknown: Duration) -> Self {
        Self { daemon, unknown, seen: Mutex::default() }
    }

    /// One that introduces itself in the words in which it did before: they need not be read.
    pub fn met_again(&self, words: &str) -> Option<Met> {
        let seen = self.seen.lock();
        let known = seen.iter().find(|each| !words.is_empty() && *each.words == *words)?;
        known.last_ms.store(epoch_ms(), Ordering::Relaxed);
        Some(Met { seen: Arc::clone(known) })
    }

    /// A client introduces itself in these words, and declares nothing.
    pub fn meet_in_words(&self, words: &str, name: &str, version: &str) -> Met {
        self.meet_whom(words, name, version, &[])
    }

    /// A client introduces itself, and may declare after what it gives up. One that would give up first is warned
    /// about, once for each version.
    pub fn meet(&self, name: &str, version: &str, declared: &[Option<Duration>]) -> Met {
        self.meet_whom("", name, version, declared)
    }

    fn meet_whom(&self, words: &str, name: &str, version: &str, declared: &[Option<Duration>]) -> Met {
        let patience = Patience::of(name, declared);
        let now = epoch_ms();
        let mut seen = self.seen.lock();
        let is_it =
            |each: &Seen| each.name.chars().eq(shown(name)) && each.version.chars().eq(shown(version));
        if let Some(known) = seen.iter().find(|each| each.patience == patience && is_it(each)) {
            known.last_ms.store(now, Ordering::Relaxed);
            return Met { seen: Arc::clone(known) };
        }
        let gives_up = |patience| self.gives_up_first(patience) == GivesUpFirst::Yes;
        let warned = seen.iter().any(|each| is_it(each) && gives_up(each.patience));
        let (name, version) = (shown(name).collect(), shown(version).collect());
        let words = if words.len() <= WORDS_BYTES { words } else { "" }.into();
        let new = Arc::new(Seen { name, version, patience, words, last_ms: AtomicU64::new(now) });
        let has_room = seen.len() < SEEN || forget_one(&mut seen);
        if has_room {
            seen.push(Arc::clone(&new));
        }
        drop(seen);
        // One that is not remembered would be warned about again and again.
        if has_room && !warned && gives_up(patience) {
            self.warn(&new);
        }
        Met { seen: new }
    }

    fn warn(&self, client: &Seen) {
        let Patience::Limited { after, .. } = client.patience else { return };
        tracing::warn!(
            client = &*client.name,
            version = &*client.version,
            limit_secs = after.as_secs_f64(),
            daemon_secs = self.daemon.as_secs_f64(),
            "a client gives up before the daemon does: its calls are answered shortly before, and get_request \
             collects their outcomes; raise its limit, or lower DAEMON_TIMEOUT_SECS"
        );
    }

    /// How long a call of such a client may go without its answer; none: as long as it takes. `gets_progress`: its
    /// client hears of the call meanwhile.
    pub fn answer_within(&self, patience: Patience, gets_progress: bool) -> Option<Duration> {
        let limit = match patience {
            Patience::Unlimited => return None,
            Patience::Unknown | Patience::Limited { progress_resets: true, .. } if gets_progress => {
                return None;
            }
            Patience::Unknown => self.unknown,
            Patience::Limited { after, .. } => after,
        };
        // A limit below ten seconds leaves no room for five.
        Some(limit.saturating_sub(MARGIN.min(limit / 2)))
    }

    /// The same for a shim that takes one frame for each request. It gives up after a minute whoever it stands before, unless
    /// its hello says otherwise.
    pub fn answer_simply_within(&self, patience: Patience) -> Option<Duration> {
        let within = self.answer_within(patience, false);
        match patience {
            Patience::Limited { basis: Basis::Declared, .. } => within,
            Patience::Unknown | Patience::Unlimited | Patience::Limited { .. } => {
                let minute = SIMPLE_LIMIT.saturating_sub(MARGIN);
                Some(within.map_or(minute, |within| within.min(minute)))
            }
        }
    }

    fn gives_up_first(&self, patience: Patience) -> GivesUpFirst {
        match patience {
            Patience::Unknown if self.unknown <= self.daemon => GivesUpFirst::WithoutProgress,
            Patience::Limited { after, progress_resets, .. } if after <= self.daemon => {
                if progress_resets {
                    GivesUpFirst::WithoutProgress
                } else {
                    GivesUpFirst::Yes
                }
            }
            Patience::Unknown | Patience::Unlimited | Patience::Limited { .. } => GivesUpFirst::No,
        }
    }

    /// Every client that is remembered, the one that was there last first.
    pub fn report(&self) -> Vec<Value> {
        let seen = self.seen.lock();
        let now = epoch_ms();
        // One reference is the list's, the others are connections.
        let mut rows: Vec<_> =
            seen.iter().map(|each| (Arc::strong_count(each).saturating_sub(1), each)).collect();
        let last = |connections: usize, client: &Seen| match connections {
            0 => client.last_ms.load(Ordering::Relaxed),
            _ => now,
        };
        rows.sort_by_key(|(connections, each)| {
            std::cmp::Reverse((*connections > 0, last(*connections, each)))
        });
        let described = |(connections, each): (usize, &Arc<Seen>)| {
            self.described(each, connections, last(connections, each))
        };
        rows.into_iter().map(described).collect()
    }

    fn described(&self, client: &Seen, connections: usize, last_ms: u64) -> Value {
        let (limit, basis, progress_resets) = match client.patience {
            Patience::Unknown => (Some(self.unknown), "assumed", true),
            Patience::Unlimited => (None, "known", true),
            Patience::Limited { after, progress_resets, basis: Basis::Known } => {
                (Some(after), "known", progress_resets)
            }
            Patience::Limited { after, progress_resets, basis: Basis::Declared } => {
                (Some(after), "declared", progress_resets)
            }
        };
        let mut last_seen = String::new();
        push_timestamp(&mut last_seen, last_ms);
        json!({
            "name": &*client.name,
            "version": &*client.version,
            "connections": connections,
            "last_seen": last_seen,
            "limit_secs": limit.map(|limit| limit.as_secs_f64()),
            "basis": basis,
            "progress_resets": progress_resets,
            "gives_up_first": self.gives_up_first(client.patience).label(),
        })
    }
}

/// Makes room by forgetting who was away longest; false where everybody is connected.
fn forget_one(seen: &mut Vec<Arc<Seen>>) -> bool {
    let away = seen.iter().enumerate().filter(|(_, each)| Arc::strong_count(each) == 1);
    let longest = away.min_by_key(|(_, each)| each.last_ms.load(Ordering::Relaxed)).map(|(at, _)| at);
    let Some(longest) = longest else { return false };
    seen.swap_remove(longest);
    true
}

/// A client's own text as it may be shown to others: bounded, and without what moves a cursor.
fn shown(text: &str) -> impl Iterator<Item = char> {
    let kept = text.chars().take(NAME_CHARACTERS);
    kept.map(|each| if each.is_control() { '?' } else { each })
}

#[cfg(test)]
mod tests;
