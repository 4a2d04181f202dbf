//! The three classes of calls, and how waiting raises a call through them.

use std::time::Duration;

use tokio::time::Instant;

/// Waiting so long raises a call by one class. Two steps of it stay well below the minute for which calls may
/// queue: the lowest class still gets its turn under a flood of the highest.
pub(super) const AGEING: Duration = Duration::from_secs(10);

/// The class of a call. The first is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// Where nothing is said.
    #[default]
    Medium,
    /// When nobody else waits, or after it has waited long enough.
    Low,
}

impl Priority {
    /// Reads a class by its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "high" => Some(Self::High),
            "medium" => Some(Self::Medium),
            "low" => Some(Self::Low),
            _ => None,
        }
    }

    fn above(self) -> Self {
        match self {
            Self::High | Self::Medium => Self::High,
            Self::Low => Self::Medium,
        }
    }

    /// As what a call of this class counts at `now` that waits since `since`, and when it rises next.
    pub(super) fn aged(self, since: Instant, now: Instant) -> (Self, Option<Instant>) {
        let (mut class, mut rises) = (self, since + AGEING);
        while class != Self::High {
            if now < rises {
                return (class, Some(rises));
            }
            class = class.above();
            rises += AGEING;
        }
        (class, None)
    }
}

/// One of something for each class.
#[derive(Debug, Clone, Default)]
pub(in crate::call) struct ByClass<T> {
    high: T,
    medium: T,
    low: T,
}

impl<T> ByClass<T> {
    /// All of them, the first class first.
    pub(in crate::call) fn each(&self) -> [(Priority, &T); 3] {
        [(Priority::High, &self.high), (Priority::Medium, &self.medium), (Priority::Low, &self.low)]
    }

    pub(in crate::call) fn get_mut(&mut self, class: Priority) -> &mut T {
        match class {
            Priority::High => &mut self.high,
            Priority::Medium => &mut self.medium,
            Priority::Low => &mut self.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_of_waiting_are_worth_a_class() {
        let since = Instant::now();
        let at = |class: Priority, secs| class.aged(since, since + Duration::from_secs(secs));
        let rises = |secs| Some(since + Duration::from_secs(secs));
        assert_eq!(at(Priority::Low, 9), (Priority::Low, rises(10)));
        assert_eq!(at(Priority::Low, 10), (Priority::Medium, rises(20)));
        assert_eq!(at(Priority::Low, 20), (Priority::High, None));
        assert_eq!(at(Priority::Medium, 0), (Priority::Medium, rises(10)));
        assert_eq!(at(Priority::Medium, 99), (Priority::High, None));
        assert_eq!(at(Priority::High, 0), (Priority::High, None));
    }
}
