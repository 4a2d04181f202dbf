//! What models cost: the `[prices]` of the TOML file, and amounts that add up exactly.

use std::fmt;

use super::keys::Kind;
use super::parse::Wrong;
use super::problem::Problem;
use super::tables::{self, Member, Table};

/// The section of prices.
pub(super) const TABLE: &str = "prices";

/// An amount of whatever currency the prices are in, to the millionth of a millionth: a token of the cheapest model
/// costs some ten thousand of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cost(u64);

/// Parts of one.
const PARTS: u64 = 1_000_000_000_000;

impl Cost {
    /// One amount after the other; at 18 million it stays.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// As a number of JSON, with as many decimals as it needs.
    pub fn push_json(self, out: &mut String) {
        out.push_str(&self.to_string());
    }

    /// The same as a value.
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.to_string()).unwrap_or_default()
    }

    /// Digits with at most six decimals, as a price is written.
    fn parse(text: &str) -> Result<Self, Wrong> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(Wrong::NotAmount);
        }
        let millionths = format!("{whole}{decimals:0<6}").parse::<u64>().map_err(|_| Wrong::TooDear)?;
        millionths.checked_mul(PARTS / 1_000_000).map(Self).ok_or(Wrong::TooDear)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / PARTS, self.0 % PARTS);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{parts:012}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A token that goes in.
    input: Cost,
    /// One that comes out.
    output: Cost,
}

impl Price {
    /// So many tokens.
    pub fn of(self, prompt_tokens: u64, completion_tokens: u64) -> Cost {
        let times = |price: Cost, tokens: u64| Cost(price.0.saturating_mul(tokens));
        times(self.input, prompt_tokens).plus(times(self.output, completion_tokens))
    }
}

/// Prices by patterns of models' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices(Vec<(Box<str>, Price)>);

impl Prices {
    /// What this model costs there: the longest pattern that its name fits, alone or behind its provider's.
    pub fn find(&self, provider: &str, model: &str) -> Option<Price> {
        let at_provider = format!("{provider}/{model}");
        let fits = |pattern: &str| fits(pattern, model) || fits(pattern, &at_provider);
        let fitting = self.0.iter().filter(|(pattern, _)| fits(pattern));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map(|(_, price)| *price)
    }
}

/// Whether a name fits a pattern whose `*` stand for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = name.split_once(part) else { return false };
        name = after;
    }
    name.ends_with(last)
}

/// The members of a price.
pub(super) const MEMBERS: [Member; 2] = [
    Member { name: "input", example: "0.60", help: "What a million tokens that go in cost." },
    Member { name: "output", example: "2.50", help: "What a million tokens that come out cost." },
];

/// Reads the prices.
pub(super) fn read(said: Option<&toml::Value>, problems: &mut Vec<Problem>) -> Prices {
    let remedy = "\"kimi-k2*\" = { input = 0.60, output = 2.50 } below [prices] would do";
    let mut prices = Vec::new();
    for (pattern, members) in tables::each(TABLE, said, remedy, problems) {
        let path = format!("{TABLE}.{}", tables::shown(pattern));
        let mut table = Table::new(path, members, &MEMBERS, problems);
        let [input, output] = ["input", "output"].map(|member| table.need(member, Kind::Text, per_token));
        prices.extend(input.zip(output).map(|(input, output)| (Box::from(pattern), Price { input, output })));
    }
    Prices(prices)
}

/// A price for a million tokens, for one.
fn per_token(text: &str) -> Result<Cost, Wrong> {
    Cost::parse(text).map(|million| Cost(million.0 / 1_000_000))
}

/// The most that somebody may spend.
pub(super) fn limit(text: &str) -> Result<Cost, Wrong> {
    let limit = Cost::parse(text)?;
    if limit == Cost::default() { Err(Wrong::NoAmount) } else { Ok(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(toml: &str) -> Prices {
        let mut problems = Vec::new();
        let prices = read(toml.parse::<toml::Table>().unwrap().get(TABLE), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        prices
    }

    #[test]
    fn the_longest_pattern_that_fits_is_the_price() {
        let prices = prices(
            "[prices]\n\"*\" = { input = 9, output = 9 }\n\"gpt-5*\" = { input = 1.25, output = 10 }\n\
             \"gpt-5-mini*\" = { input = \"0.25\", output = 2.0 }\n\"ollama/*\" = { input = 0, output = 0 }",
        );
        let of =
            |provider: &str, model: &str| prices.find(provider, model).unwrap().of(1_000_000, 0).to_string();
        assert_eq!(of("openai", "gpt-5"), "1.25");
        assert_eq!(of("openai", "gpt-5-mini-2026"), "0.25");
        assert_eq!(of("ollama", "llama"), "0");
        assert_eq!(of("x", "llama"), "9");
        assert_eq!(Prices::default().find("x", "y"), None);
    }

    #[test]
    fn amounts_add_up_exactly() {
        let price = prices("[prices]\nm = { input = 0.1, output = 0.000001 }").find("p", "m").unwrap();
        let mut sum = Cost::default();
        for _ in 0..10 {
            sum = sum.plus(price.of(1, 1));
        }
        assert_eq!(sum.to_string(), "0.00000100001");
        assert_eq!(price.of(10_000_000, 0).to_string(), "1");
        assert_eq!(price.of(u64::MAX, u64::MAX).to_string(), "18446744.073709551615");
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in ["", "-1", "1e3", ".5", "1.", "0.1234567", "free"] {
            assert_eq!(Cost::parse(text), Err(Wrong::NotAmount), "{text}");
        }
        assert_eq!(Cost::parse("18446745"), Err(Wrong::TooDear));
        assert_eq!(limit("0.00"), Err(Wrong::NoAmount));
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, holds) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*b*", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("", "a", false),
            ("a", "a", true),
        ] {
            assert_eq!(fits(pattern, name), holds, "{pattern} {name}");
        }
    }
}
