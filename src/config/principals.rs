//! The `[principals.NAME]` tables of the TOML file: who may call, with which tokens, within which bounds.
//!
//! Without any token there is one principal, [`LOCAL`]; `INFLIGHTD_TOKEN` is its token.

use super::keys::{Kind, MANY};
use super::parse::{self, Wrong};
use super::problem::{Origin, Problem, Shown};
use super::tables::Member;
use super::{Cost, Secret, money, sources};

mod expiry;
mod patterns;
mod token;

pub use expiry::Expiry;
pub use patterns::ToolPatterns;
pub use token::TokenHash;

/// The principal of everybody where no token is configured, and of who brings `INFLIGHTD_TOKEN`.
pub const LOCAL: &str = "local";

/// The table that holds them.
pub(super) const TABLE: &str = "principals";

/// The longest name of a principal: it stands in every line of the call log.
const NAME_CHARS: usize = 64;

/// The highest class that a principal's calls get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// What is asked for.
    High,
    /// `high` becomes `medium`.
    Medium,
    /// Everything is `low`.
    Low,
}

/// A principal's own bounds, over all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLimits {
    /// Calls at work at once.
    pub max_inflight: usize,
    /// Calls that wait for their turn; `None`: as many as in any queue.
    pub max_queued: Option<usize>,
}

/// How often a principal may call, over all its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls a minute, at an even pace.
    pub per_minute: u32,
    /// Calls at once.
    pub burst: u32,
}

impl RateLimit {
    /// So many a minute, `burst` of them at once: all of them, where nothing is said. `None` without the first.
    pub(super) fn of(per_minute: Option<usize>, burst: Option<usize>) -> Option<Self> {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let per_minute = count(per_minute?);
        Some(Self { per_minute, burst: burst.map_or(per_minute, count) })
    }
}

/// One principal.
#[derive(Debug, Clone)]
pub struct PrincipalConfig {
    /// Its name in the log.
    pub name: Box<str>,
    /// What its tokens hash to. Only where no token is configured at all, there is a principal without one.
    pub tokens: Vec<TokenHash>,
    /// From when on its tokens are refused.
    pub expires: Option<Expiry>,
    /// Its own bounds; `None`: those of all.
    pub limits: Option<OwnLimits>,
    /// How often it may call; `None`: as often as it likes.
    pub rate: Option<RateLimit>,
    /// What its models' answers may cost in a day; `None`: whatever they cost.
    pub daily_spend: Option<Cost>,
    /// The highest class that its calls get.
    pub ceiling: Ceiling,
    /// The tools it may call; `None`: every tool.
    pub tools: Option<ToolPatterns>,
}

/// All of them, in the order in which they are shown.
pub(super) const MEMBERS: [Member; 10] = [
    Member {
        name: "token_hash",
        example: "\"blake3:…\"",
        help: "What the token hashes to; `inflightd token new NAME` makes both. The token itself stands nowhere.",
    },
    Member {
        name: "token_hashes",
        example: "[\"blake3:…\", \"blake3:…\"]",
        help: "Several instead of one, to rotate: add the new one, move the clients, take the old one out.",
    },
    Member {
        name: "expires",
        example: "\"2027-01-31\"",
        help: "From when on its tokens are refused: a date (from 00:00 UTC on), or a time as RFC 3339 has it. Unset, never.",
    },
    Member {
        name: "max_inflight",
        example: "8",
        help: "Its calls at work at once, over all its sessions; the next one waits. Unset, no bound of its own.",
    },
    Member {
        name: "max_queued",
        example: "100",
        help: "Its calls that wait for one of these places. Unset, `QUEUE_MAX`.",
    },
    Member {
        name: "rate_per_minute",
        example: "60",
        help: "Its calls a minute, over all its sessions; more are refused with when to come back. Unset, `RATE_LIMIT_PER_MINUTE`, and for `local` no limit.",
    },
    Member { name: "rate_burst", example: "10", help: "How many of them may come at once. Unset, all." },
    Member {
        name: "daily_spend",
        example: "5.00",
        help: "What its models' answers may cost in a day (UTC), in the currency of `[prices]`. Unset, no limit.",
    },
    Member {
        name: "priority_ceiling",
        example: "\"medium\"",
        help: "high, medium or low: what its calls ask for above this is lowered to it, silently. Unset, `high`.",
    },
    Member {
        name: "tools",
        example: "[\"chat\", \"code*\", \"get_request\"]",
        help: "The tools it may call; `*` stands for any characters. Every other tool looks to it as if it were not there. Unset, all.",
    },
];

impl PrincipalConfig {
    /// One without tokens or bounds of its own.
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.into(),
            tokens: Vec::new(),
            expires: None,
            limits: None,
            rate: None,
            daily_spend: None,
            ceiling: Ceiling::High,
            tools: None,
        }
    }
}

/// A name that fits a table of TOML and a line of the log without quotes.
///
/// # Errors
/// It is none.
pub fn name(text: &str) -> Result<&str, Wrong> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    let sound = (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(fits);
    if sound { Ok(text) } else { Err(Wrong::NotName) }
}

/// Reads every principal: `said` is the TOML file's `principals`, `token` is `INFLIGHTD_TOKEN`.
///
/// Says also whether somebody set a token at all, be it one that cannot be taken.
pub(super) fn read(
    said: Option<&toml::Value>,
    token: Option<&Secret>,
    token_set: bool,
    problems: &mut Vec<Problem>,
) -> (Vec<PrincipalConfig>, bool) {
    let nothing = toml::Table::new();
    let tables = match said {
        None => &nothing,
        Some(toml::Value::Table(tables)) => tables,
        Some(other) => {
            problems.push(not_a_table(TABLE, "ci", other));
            &nothing
        }
    };
    let mut reader = Reader { seen: Vec::new(), problems };
    let mut local = None;
    if let Some(token) = token {
        let hash = TokenHash::of(token.reveal());
        reader.seen.push((hash, "INFLIGHTD_TOKEN".to_owned()));
        local = Some(PrincipalConfig { tokens: vec![hash], ..PrincipalConfig::plain(LOCAL) });
    }
    let mut others = Vec::new();
    for (name, table) in tables {
        let Some((read, own_token_set)) = reader.principal(name, table) else { continue };
        // The one principal of an open daemon, and the one whose token stands in the environment.
        let needs_none = name == LOCAL && (token_set || tables.len() == 1);
        if !own_token_set && !needs_none {
            reader.refuse(&[name], Wrong::NoToken, without_token(name));
        }
        if !own_token_set && !token_set && read.expires.is_some() && needs_none {
            reader.refuse(&[name, "expires"], Wrong::NothingExpires, "set a token, or leave it out".into());
        }
        if name == LOCAL {
            let mut tokens = local.take().map(|local| local.tokens).unwrap_or_default();
            tokens.extend(&read.tokens);
            local = Some(PrincipalConfig { tokens, ..read });
        } else {
            others.push(read);
        }
    }
    let any_token_set = token_set || tables.values().any(sets_a_token);
    if local.is_none() && others.is_empty() {
        local = Some(PrincipalConfig::plain(LOCAL));
    }
    (local.into_iter().chain(others).collect(), any_token_set)
}

fn sets_a_token(table: &toml::Value) -> bool {
    ["token_hash", "token_hashes"].into_iter().any(|member| table.get(member).is_some())
}

fn without_token(name: &str) -> String {
    let made = format!("set token_hash to what `inflightd token new {name}` prints");
    if name == LOCAL { format!("set INFLIGHTD_TOKEN, or {made}") } else { made }
}

fn not_a_table(key: &str, name: &str, value: &toml::Value) -> Problem {
    let setting = Shown::without_value(key, Origin::Toml);
    let remedy = format!("[{TABLE}.{name}] with token_hash = \"blake3:…\" below it would do");
    Problem::Value { setting, wrong: Wrong::TomlType { found: sources::kind_of(value) }, remedy }
}

/// A sound name near to one that is none.
fn sound_name(text: &str) -> String {
    let sound = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-') { c } else { '-' };
    let name: String = text.to_lowercase().chars().take(NAME_CHARS).map(sound).collect();
    if name.is_empty() { "ci".to_owned() } else { name }
}

struct Reader<'a> {
    /// Every hash so far, and where it stands.
    seen: Vec<(TokenHash, String)>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// One table, and whether it sets a token. `None` where it is no table, or has no name to go by.
    fn principal(&mut self, name: &str, table: &toml::Value) -> Option<(PrincipalConfig, bool)> {
        if let Err(wrong) = self::name(name) {
            self.refuse(&[name], wrong, format!("[{TABLE}.{}] would do", sound_name(name)));
            return None;
        }
        let toml::Value::Table(members) = table else {
            self.problems.push(not_a_table(&format!("{TABLE}.{name}"), name, table));
            return None;
        };
        for member in members.keys() {
            if !MEMBERS.iter().any(|known| known.name == member) {
                let names: Vec<_> = MEMBERS.iter().map(|known| known.name.to_owned()).collect();
                let mut problem = sources::unknown(member, Origin::Toml, &names);
                if let Problem::Unknown { name: shown, .. } = &mut problem {
                    *shown = format!("{TABLE}.{name}.{member}");
                }
                self.problems.push(problem);
            }
        }
        let tokens = self.tokens(name, members);
        let max_inflight = self.count(name, members, "max_inflight");
        let max_queued = self.count(name, members, "max_queued");
        if max_queued.is_some() && !members.contains_key("max_inflight") {
            let remedy = "max_inflight = 8 beside it would do".to_owned();
            self.refuse(&[name, "max_queued"], Wrong::WaitsForNothing, remedy);
        }
        let rate_per_minute = self.count(name, members, "rate_per_minute");
        let rate_burst = self.count(name, members, "rate_burst");
        if rate_burst.is_some() && !members.contains_key("rate_per_minute") {
            let remedy = "rate_per_minute = 60 beside it would do".to_owned();
            self.refuse(&[name, "rate_burst"], Wrong::BurstOfNothing, remedy);
        }
        let read = PrincipalConfig {
            name: name.into(),
            tokens,
            expires: self.expires(name, members),
            limits: max_inflight.map(|max_inflight| OwnLimits { max_inflight, max_queued }),
            rate: RateLimit::of(rate_per_minute, rate_burst),
            daily_spend: self.value(name, members, "daily_spend", Kind::Text, money::limit),
            ceiling: self.ceiling(name, members),
            tools: self.tools(name, members),
        };
        Some((read, sets_a_token(table)))
    }

    fn tokens(&mut self, name: &str, members: &toml::Table) -> Vec<TokenHash> {
        let made = || format!("`inflightd token new {name}` prints one");
        if let (Some(_), Some(_)) = (members.get("token_hash"), members.get("token_hashes")) {
            let remedy = "leave token_hash out, and put its hash into token_hashes".to_owned();
            self.refuse(&[name, "token_hash"], Wrong::HashTwice, remedy);
        }
        let mut tokens = Vec::new();
        if let Some(value) = members.get("token_hash") {
            tokens.extend(self.token(name, "token_hash", value));
        }
        match members.get("token_hashes") {
            None => {}
            Some(toml::Value::Array(hashes)) if hashes.is_empty() => {
                self.refuse(&[name, "token_hashes"], Wrong::Empty, made());
            }
            Some(toml::Value::Array(hashes)) => {
                for value in hashes {
                    tokens.extend(self.token(name, "token_hashes", value));
                }
            }
            Some(other) => {
                let wrong = Wrong::TomlType { found: sources::kind_of(other) };
                self.refuse(&[name, "token_hashes"], wrong, "token_hashes = [\"blake3:…\"] would do".into());
            }
        }
        tokens
    }

    fn token(&mut self, name: &str, member: &str, value: &toml::Value) -> Option<TokenHash> {
        let made = format!("`inflightd token new {name}` prints one");
        let hash = match value {
            toml::Value::String(text) => TokenHash::parse(text),
            other => Err(Wrong::TomlType { found: sources::kind_of(other) }),
        };
        let hash = match hash {
            Ok(hash) => hash,
            Err(wrong) => {
                self.refuse(&[name, member], wrong, made);
                return None;
            }
        };
        if let Some((_, place)) = self.seen.iter().find(|(seen, _)| seen.same(&hash)) {
            let wrong = Wrong::SameToken { place: place.clone() };
            self.refuse(&[name, member], wrong, made);
            return None;
        }
        self.seen.push((hash, format!("{TABLE}.{name}.{member}")));
        Some(hash)
    }

    fn count(&mut self, name: &str, members: &toml::Table, member: &str) -> Option<usize> {
        let kind = Kind::Count { most: MANY };
        self.value(name, members, member, kind, |text| parse::count(text, MANY))
    }

    fn expires(&mut self, name: &str, members: &toml::Table) -> Option<Expiry> {
        if let Some(date @ toml::Value::Datetime(_)) = members.get("expires") {
            // TOML has dates of its own: `expires = 2027-01-31` means the same.
            let date = toml::Value::String(date.to_string());
            let members = toml::Table::from_iter([("expires".to_owned(), date)]);
            return self.value(name, &members, "expires", Kind::Text, Expiry::parse);
        }
        self.value(name, members, "expires", Kind::Text, Expiry::parse)
    }

    fn ceiling(&mut self, name: &str, members: &toml::Table) -> Ceiling {
        let read = |text: &str| match parse::choice(text, &["high", "medium", "low"])? {
            "medium" => Ok(Ceiling::Medium),
            "low" => Ok(Ceiling::Low),
            _ => Ok(Ceiling::High),
        };
        self.value(name, members, "priority_ceiling", Kind::Text, read).unwrap_or(Ceiling::High)
    }

    fn tools(&mut self, name: &str, members: &toml::Table) -> Option<ToolPatterns> {
        let value = members.get("tools")?;
        let texts: Option<Vec<&str>> =
            value.as_array().and_then(|entries| entries.iter().map(toml::Value::as_str).collect());
        let read = match texts {
            Some(texts) => ToolPatterns::parse(&texts),
            None if value.is_array() => {
                Err(Wrong::TomlType { found: "an array of something else than strings" })
            }
            None => Err(Wrong::TomlType { found: sources::kind_of(value) }),
        };
        read.map_err(|wrong| self.refuse(&[name, "tools"], wrong, example("tools"))).ok()
    }

    /// A member that is one text or number.
    fn value<T>(
        &mut self,
        name: &str,
        members: &toml::Table,
        member: &str,
        kind: Kind,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = match sources::text(members.get(member)?, kind) {
            Ok(text) => text,
            Err(found) => {
                self.refuse(&[name, member], Wrong::TomlType { found }, example(member));
                return None;
            }
        };
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let setting = Shown::with_value(&format!("{TABLE}.{name}.{member}"), &text, Origin::Toml);
                self.problems.push(Problem::Value { setting, wrong, remedy: example(member) });
                None
            }
        }
    }

    /// Takes down what is wrong at this place, without its value: it may be a token that was put there by mistake.
    fn refuse(&mut self, place: &[&str], wrong: Wrong, remedy: String) {
        let place: Vec<_> =
            place.iter().map(|part| part.escape_debug().take(80).collect::<String>()).collect();
        let setting = Shown::without_value(&format!("{TABLE}.{}", place.join(".")), Origin::Toml);
        self.problems.push(Problem::Value { setting, wrong, remedy });
    }
}

fn example(member: &str) -> String {
    let example = MEMBERS.iter().find(|known| known.name == member).map_or("…", |known| known.example);
    format!("{member} = {example} would do")
}

#[cfg(test)]
mod tests;
