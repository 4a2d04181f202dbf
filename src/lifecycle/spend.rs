//! What models' answers cost: tokens and money, in all, by model, for each principal and day, and what sharing saved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::config::{Cost, PrincipalConfig};
use crate::ids::PrincipalId;

/// Models that are counted each on its own. Callers name models, so there must be a bound; what comes later is counted
/// together.
const MODELS: usize = 256;

/// The name under which models past the bound are counted.
const OTHERS: &str = "(others)";

/// The length of a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Tokens as the provider counted them, and what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What went in.
    pub prompt_tokens: u64,
    /// What came out.
    pub completion_tokens: u64,
    /// What that costs, where a price is known.
    pub cost: Option<Cost>,
}

impl Usage {
    /// Tokens without a price.
    pub fn tokens(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self { prompt_tokens, completion_tokens, cost: None }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let cost = match (self.cost, other.cost) {
            (Some(one), Some(other)) => Some(one.plus(other)),
            (one, other) => one.or(other),
        };
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cost,
        }
    }
}

/// A sum of usages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there were.
    pub calls: u64,
    /// Those of them without a price.
    pub unpriced: u64,
    /// See [`Usage`].
    pub prompt_tokens: u64,
    /// See [`Usage`].
    pub completion_tokens: u64,
    /// See [`Usage`].
    pub cost: Cost,
}

impl Tally {
    fn add(&mut self, usage: Usage) {
        self.calls += 1;
        self.unpriced += u64::from(usage.cost.is_none());
        self.prompt_tokens = self.prompt_tokens.saturating_add(usage.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(usage.completion_tokens);
        self.cost = self.cost.plus(usage.cost.unwrap_or_default());
    }
}

/// Who answers: a provider, and its model.
pub type Answerer = (Arc<str>, Arc<str>);

/// Everything that was counted, read at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// By model.
    pub models: BTreeMap<Answerer, Tally>,
    /// In all.
    pub total: Tally,
    /// What callers got without a call for it.
    pub saved: Tally,
}

/// What one principal may spend in a day, and has spent in the last one in which it spent anything.
#[derive(Debug, Clone)]
struct Purse {
    name: Arc<str>,
    limit: Option<Cost>,
    day: u64,
    spent: Cost,
}

#[derive(Debug, Default)]
struct Books {
    spent: Spent,
    purses: Vec<Purse>,
}

/// A principal with a limit on a day's spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Whose.
    pub principal: Arc<str>,
    /// The limit.
    pub limit: Cost,
    /// What it has spent this day.
    pub spent: Cost,
}

/// A principal has spent what it may in this day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// The limit.
    pub limit: Cost,
    /// When the next day begins.
    pub retry_after: Duration,
}

/// The daemon's books. They are not kept over a restart.
#[derive(Debug, Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

impl Ledger {
    /// Empty books for these principals.
    pub fn new(principals: &[PrincipalConfig]) -> Self {
        let ledger = Self::default();
        ledger.set_limits(principals);
        ledger
    }

    /// Other limits hold from here on; what was spent stays spent.
    pub fn set_limits(&self, principals: &[PrincipalConfig]) {
        let mut books = self.books.lock();
        let purses = principals.iter().map(|principal| {
            let before = books.purses.iter().find(|purse| *purse.name == *principal.name);
            let (day, spent) = before.map_or((0, Cost::default()), |purse| (purse.day, purse.spent));
            Purse { name: Arc::from(&*principal.name), limit: principal.daily_spend, day, spent }
        });
        books.purses = purses.collect();
    }

    /// Whether a principal may spend anything more in this day.
    ///
    /// # Errors
    /// It may not.
    pub fn may_spend(&self, who: PrincipalId) -> Result<(), Exhausted> {
        self.may_spend_at(who, now())
    }

    fn may_spend_at(&self, who: PrincipalId, now: Duration) -> Result<(), Exhausted> {
        let books = self.books.lock();
        let purse = usize::try_from(who.0).ok().and_then(|place| books.purses.get(place));
        let Some((purse, limit)) = purse.and_then(|purse| Some((purse, purse.limit?))) else { return Ok(()) };
        if purse.day != day(now) || purse.spent < limit {
            return Ok(());
        }
        let next = DAY * u32::try_from(day(now) + 1).unwrap_or(u32::MAX);
        Err(Exhausted { limit, retry_after: next.saturating_sub(now) })
    }

    /// A model's answer for a principal was counted.
    pub fn counted(&self, who: PrincipalId, answerer: Answerer, usage: Usage) {
        self.counted_at(who, answerer, usage, now());
    }

    fn counted_at(&self, who: PrincipalId, answerer: Answerer, usage: Usage, now: Duration) {
        let mut books = self.books.lock();
        let Books { spent, purses } = &mut *books;
        spent.total.add(usage);
        if spent.models.len() < MODELS || spent.models.contains_key(&answerer) {
            spent.models.entry(answerer).or_default().add(usage);
        } else {
            spent.models.entry((Arc::from(OTHERS), Arc::from(OTHERS))).or_default().add(usage);
        }
        let purse = usize::try_from(who.0).ok().and_then(|place| purses.get_mut(place));
        if let Some((purse, cost)) = purse.zip(usage.cost) {
            if purse.day != day(now) {
                (purse.day, purse.spent) = (day(now), Cost::default());
            }
            purse.spent = purse.spent.plus(cost);
        }
    }

    /// A caller got an answer that another one's call, or an earlier one, was charged for.
    pub fn saved(&self, usage: Usage) {
        self.books.lock().spent.saved.add(usage);
    }

    /// What was counted so far.
    pub fn spent(&self) -> Spent {
        self.books.lock().spent.clone()
    }

    /// The principals with a limit, and where they are in this day.
    pub fn allowances(&self) -> Vec<Allowance> {
        let today = day(now());
        let books = self.books.lock();
        let limited = books.purses.iter().filter_map(|purse| {
            let spent = if purse.day == today { purse.spent } else { Cost::default() };
            Some(Allowance { principal: Arc::clone(&purse.name), limit: purse.limit?, spent })
        });
        limited.collect()
    }
}

/// Since 1970, UTC.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn day(now: Duration) -> u64 {
    now.as_secs() / DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Price, Prices, Sources, resolve};

    fn price() -> (Price, Vec<PrincipalConfig>) {
        let toml = "[prices]\nm = { input = 1, output = 2 }\n[principals.local]\ndaily_spend = 0.000006";
        let config = resolve(Sources { toml: toml.parse().unwrap(), ..Sources::default() });
        let config = config.unwrap_or_else(|problems| panic!("{problems}")).config;
        let prices: Prices = config.prices;
        (prices.find("p", "m").unwrap(), config.principals)
    }

    fn answerer(model: &str) -> Answerer {
        (Arc::from("p"), Arc::from(model))
    }

    #[test]
    fn a_principal_that_has_spent_its_day_waits_for_the_next_and_no_other_does() {
        let (price, principals) = price();
        let ledger = Ledger::new(&principals);
        let (who, noon) = (PrincipalId(0), DAY * 20_000 + DAY / 2);
        let usage = Usage { cost: Some(price.of(2, 1)), ..Usage::tokens(2, 1) };
        assert_eq!(ledger.may_spend_at(who, noon), Ok(()));
        ledger.counted_at(who, answerer("m"), usage, noon);
        assert_eq!(ledger.may_spend_at(who, noon), Ok(()), "4 of 6 millionths");
        ledger.counted_at(who, answerer("m"), usage, noon);
        let exhausted = ledger.may_spend_at(who, noon).unwrap_err();
        assert_eq!((exhausted.retry_after, exhausted.limit.to_string().as_str()), (DAY / 2, "0.000006"));
        assert_eq!(ledger.may_spend_at(PrincipalId(1), noon), Ok(()));
        assert_eq!(ledger.may_spend_at(who, noon + DAY / 2), Ok(()), "midnight, UTC");
        ledger.set_limits(&principals);
        assert!(ledger.may_spend_at(who, noon).is_err(), "a reload forgets nothing");
        assert_eq!(ledger.spent().total.cost.to_string(), "0.000008");
    }

    #[test]
    fn models_that_callers_make_up_do_not_grow_the_books_without_bound() {
        let ledger = Ledger::default();
        for model in 0..2 * MODELS {
            ledger.counted(PrincipalId(0), answerer(&model.to_string()), Usage::tokens(1, 1));
        }
        let spent = ledger.spent();
        assert_eq!(spent.models.len(), MODELS + 1);
        let sum: u64 = spent.models.values().map(|tally| tally.calls).sum();
        let all = u64::try_from(2 * MODELS).unwrap();
        assert_eq!((sum, spent.total.calls, spent.total.unpriced), (all, all, all));
    }
}
