//! Text → value, strictly: what is not exactly a value of its kind is refused with the reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

/// The longest time that can be set: longer ones are slips.
pub(super) const LONGEST: Duration = Duration::from_hours(7 * 24);
/// Below, a token can be guessed.
pub(super) const TOKEN_CHARS: usize = 16;

/// Why a value cannot be taken. Never holds the value itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// Not a time.
    #[error("is not a number of seconds (digits, at most three decimals)")]
    NotSeconds,
    /// Not a time in milliseconds.
    #[error("is not a whole number of milliseconds")]
    NotMilliseconds,
    /// No time at all.
    #[error("must be longer than 0")]
    NoTime,
    /// A slip.
    #[error("is more than 7 days (604800 seconds)")]
    TooLong,
    /// Not a count.
    #[error("is not a whole number")]
    NotCount,
    /// A limit of zero would refuse everything.
    #[error("must be at least 1")]
    Zero,
    /// Above what can be served.
    #[error("is more than {most}")]
    TooMany {
        /// The highest that is taken.
        most: usize,
    },
    /// Not an address.
    #[error("is not an IP address with a port")]
    NotAddress,
    /// None of the words.
    #[error("is none of {words}")]
    NotChoice {
        /// The words.
        words: String,
    },
    /// Not a URL.
    #[error("is not an http or https URL")]
    NotUrl,
    /// A URL that may carry a secret where every log shows it.
    #[error("must not carry a user, a password, a query or a fragment")]
    UrlTooMuch,
    /// Not an origin.
    #[error("has an entry that is not an origin (scheme://host or scheme://host:port)")]
    NotOrigin,
    /// Cannot be sent in a header.
    #[error("holds a space or a character that no header can carry")]
    NotSendable,
    /// Can be guessed.
    #[error("is {chars} characters long, and {} are the least", TOKEN_CHARS)]
    ShortToken {
        /// How long it is.
        chars: usize,
    },
    /// One value in two places.
    #[error("names a file with a secret that is set already")]
    TwoSecrets,
    /// Everybody could call.
    #[error("is reachable from other machines, and neither INFLIGHTD_TOKEN nor a principal's token is set")]
    OpenToAll,
    /// Not a principal's name.
    #[error("is not a name of 1 to 64 of the characters a-z 0-9 _ -")]
    NotName,
    /// Nobody could be this principal.
    #[error("has no token")]
    NoToken,
    /// Not a token's hash.
    #[error("is not blake3: with 64 hexadecimal digits behind it")]
    NotHash,
    /// One token stands for one principal.
    #[error("is the hash that {place} has already")]
    SameToken {
        /// Where it stood first.
        place: String,
    },
    /// Two members for one thing.
    #[error("stands beside token_hashes")]
    HashTwice,
    /// Not an instant.
    #[error("is not a date, nor a time with its offset")]
    NotDate,
    /// There is no token.
    #[error("stands without any token that could expire")]
    NothingExpires,
    /// A queue before nothing.
    #[error("stands without the max_inflight that calls would wait for")]
    WaitsForNothing,
    /// A burst of what has no limit.
    #[error("stands without the number a minute of which it is a part")]
    BurstOfNothing,
    /// A list without entries.
    #[error("has no entry")]
    Empty,
    /// Fits no tool.
    #[error("has an entry that is not 1 to 64 of the characters A-Z a-z 0-9 _ - . *")]
    NotPattern,
    /// Not an amount of money.
    #[error("is not an amount (digits, at most six decimals)")]
    NotAmount,
    /// More than can be counted.
    #[error("is more than 18 million")]
    TooDear,
    /// Nothing could be spent.
    #[error("must be more than 0")]
    NoAmount,
    /// A member that must be there.
    #[error("is missing")]
    Missing,
    /// Two providers of one name.
    #[error("is the name of a provider that is there already")]
    NameTaken,
    /// Nobody would know what to ask it for.
    #[error("is set for a provider without a model")]
    NoModel,
    /// A file that is not there.
    #[error("is not a file that is there")]
    NoFile,
    /// A TOML value of the wrong type.
    #[error("is {found} in TOML")]
    TomlType {
        /// What it is.
        found: &'static str,
    },
    /// It has failed by then.
    #[error("cannot be asked instead of itself")]
    FallsBackToItself,
    /// The file cannot name itself.
    #[error("cannot stand in the file that it names")]
    NamesItself,
    /// Nothing would ever run.
    #[error("max_concurrent must be at least 1")]
    NoneAtOnce,
    /// Bytes that are no text.
    #[error("is not UTF-8")]
    NotUtf8,
}

/// A positive time in seconds, `30` or `0.5`, to the millisecond.
pub(super) fn seconds(text: &str) -> Result<Duration, Wrong> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return Err(Wrong::NotSeconds);
    }
    // All digits: what does not fit is too long.
    let Ok(whole) = whole.parse::<u64>() else { return Err(Wrong::TooLong) };
    let Ok(millis) = format!("{decimals:0<3}").parse::<u64>() else { return Err(Wrong::NotSeconds) };
    let time = Duration::from_secs(whole).saturating_add(Duration::from_millis(millis));
    if time.is_zero() {
        return Err(Wrong::NoTime);
    }
    if time > LONGEST { Err(Wrong::TooLong) } else { Ok(time) }
}

/// A time in milliseconds, zero allowed.
pub(super) fn milliseconds(text: &str) -> Result<Duration, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotMilliseconds);
    }
    match text.parse().map(Duration::from_millis) {
        Ok(time) if time <= LONGEST => Ok(time),
        _ => Err(Wrong::TooLong),
    }
}

/// A whole number from 1 to `most`.
pub(super) fn count(text: &str, most: usize) -> Result<usize, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotCount);
    }
    match text.parse() {
        Ok(0) => Err(Wrong::Zero),
        Ok(number) if number <= most => Ok(number),
        _ => Err(Wrong::TooMany { most }),
    }
}

/// A whole number from 1 to `most`; `None` for `auto`.
pub(super) fn count_or_auto(text: &str, most: usize) -> Result<Option<usize>, Wrong> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    match count(text, most) {
        Err(Wrong::Zero) => Err(Wrong::NoneAtOnce),
        // Below zero is no count, and says the same.
        Err(Wrong::NotCount) if text.starts_with('-') => Err(Wrong::NoneAtOnce),
        count => count.map(Some),
    }
}

/// An address with a port; `localhost` is the IPv4 loopback address.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return port
            .parse()
            .map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(|_| Wrong::NotAddress);
    }
    text.parse().map_err(|_| Wrong::NotAddress)
}

/// The word as the table has it, whatever its case in the text.
pub(super) fn choice(text: &str, words: &[&'static str]) -> Result<&'static str, Wrong> {
    words
        .iter()
        .find(|word| word.eq_ignore_ascii_case(text))
        .copied()
        .ok_or_else(|| Wrong::NotChoice { words: words.join(", ") })
}

/// A base URL without its trailing slashes.
pub(super) fn url(text: &str) -> Result<String, Wrong> {
    let Ok(url) = reqwest::Url::parse(text) else { return Err(Wrong::NotUrl) };
    let too_much = !url.username().is_empty() || url.password().is_some();
    if too_much || url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::UrlTooMuch);
    }
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Wrong::NotUrl);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Texts with commas between.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// Origins with commas between, in lower case as browsers send them, without trailing slashes.
pub(super) fn origins(text: &str) -> Result<Vec<String>, Wrong> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(origin).collect()
}

fn origin(entry: &str) -> Result<String, Wrong> {
    let entry = entry.trim_end_matches('/').to_ascii_lowercase();
    let Some((scheme, host)) = entry.split_once("://") else { return Err(Wrong::NotOrigin) };
    let sound = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound(scheme) || !sound(host) || host.contains(['/', '?', '#', '@', '*']) {
        return Err(Wrong::NotOrigin);
    }
    Ok(entry)
}

/// A secret that a header can carry.
pub(super) fn secret(text: &str) -> Result<&str, Wrong> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(text) } else { Err(Wrong::NotSendable) }
}

/// A token that cannot be guessed soon.
pub(super) fn token(text: &str) -> Result<&str, Wrong> {
    let chars = text.chars().count();
    if chars < TOKEN_CHARS { Err(Wrong::ShortToken { chars }) } else { secret(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_digits_with_at_most_three_decimals() {
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("1.025"), Ok(Duration::from_millis(1025)));
        assert_eq!(seconds("604800"), Ok(LONGEST));
        for text in
            ["", ".", "5.", ".5", "-1", "+1", "1e3", "inf", "nan", "1,5", "30s", "0.0005", "1_000", "٣"]
        {
            assert_eq!(seconds(text), Err(Wrong::NotSeconds), "{text}");
        }
        for text in ["0", "0.0", "0.000"] {
            assert_eq!(seconds(text), Err(Wrong::NoTime), "{text}");
        }
        for text in ["604800.001", "604801", "99999999999999999999999"] {
            assert_eq!(seconds(text), Err(Wrong::TooLong), "{text}");
        }
    }

    #[test]
    fn zero_milliseconds_are_a_time() {
        assert_eq!(milliseconds("0"), Ok(Duration::ZERO));
        assert_eq!(milliseconds("1.5"), Err(Wrong::NotMilliseconds));
        assert_eq!(milliseconds("604800001"), Err(Wrong::TooLong));
    }

    #[test]
    fn zero_is_no_count() {
        assert_eq!(count("1", 5), Ok(1));
        assert_eq!(count("0", 5), Err(Wrong::Zero));
        assert_eq!(count("6", 5), Err(Wrong::TooMany { most: 5 }));
        for text in ["", "-1", "+1", "1.0", "many", "0x10"] {
            assert_eq!(count(text, 5), Err(Wrong::NotCount), "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(address("localhost:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert!(address("[::1]:8079").is_ok());
        for text in ["8079", ":8079", "127.0.0.1", "example.com:80", "localhost:", "localhost:99999"] {
            assert_eq!(address(text), Err(Wrong::NotAddress), "{text}");
        }
    }

    #[test]
    fn a_url_loses_its_trailing_slash_and_carries_no_secret() {
        assert_eq!(url("http://127.0.0.1:9/v1//").as_deref(), Ok("http://127.0.0.1:9/v1"));
        assert_eq!(url("https://api.openai.com").as_deref(), Ok("https://api.openai.com"));
        for text in ["api.openai.com/v1", "ftp://host/", "file:///etc/passwd", "https://", "data:,x"] {
            assert_eq!(url(text), Err(Wrong::NotUrl), "{text}");
        }
        for text in ["https://me:pw@host/v1", "https://host/v1?key=x", "https://host/#x"] {
            assert_eq!(url(text), Err(Wrong::UrlTooMuch), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(
            origins("https://App.example.com/, http://localhost:3000,").as_deref(),
            Ok(["https://app.example.com".to_owned(), "http://localhost:3000".to_owned()].as_slice())
        );
        for text in ["*", "example.com", "https://a/b", "https://*.example.com", "null"] {
            assert_eq!(origins(text), Err(Wrong::NotOrigin), "{text}");
        }
    }

    #[test]
    fn a_token_is_long_and_fits_a_header() {
        assert_eq!(token("0123456789abcdef"), Ok("0123456789abcdef"));
        assert_eq!(token("short"), Err(Wrong::ShortToken { chars: 5 }));
        assert_eq!(token("0123456789 abcdef"), Err(Wrong::NotSendable));
    }
}
