//! Which tools a principal may call.

use super::Wrong;

/// The longest pattern: no tool's name is longer.
const PATTERN_CHARS: usize = 64;

/// Names of tools, in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPatterns(Box<[Box<str>]>);

impl ToolPatterns {
    /// Reads them.
    ///
    /// # Errors
    /// There is none, or one that no tool's name could fit.
    pub fn parse(texts: &[&str]) -> Result<Self, Wrong> {
        if texts.is_empty() {
            return Err(Wrong::Empty);
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*');
        let sound = |text: &str| (1..=PATTERN_CHARS).contains(&text.len()) && text.bytes().all(fits);
        if !texts.iter().all(|text| sound(text)) {
            return Err(Wrong::NotPattern);
        }
        Ok(Self(texts.iter().map(|text| Box::from(*text)).collect()))
    }

    /// Whether a tool of this name is among them.
    pub fn allow(&self, tool: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, tool))
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| &**pattern)
    }
}

/// Whether a name fits one pattern.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // Each part as far to the left as it goes leaves the most to the parts after it.
    for part in between.split('*') {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [
            ("chat", "chat"),
            ("*", "chat"),
            ("ch*", "ch"),
            ("*at", "chat"),
            ("c*t", "chat"),
            ("*__search", "web__search"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "abc"),
            ("*a*a", "aa"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("chat", "chats"),
            ("", "x"),
            ("ch*t", "cht_"),
            ("aba*aba", "ababa"),
            ("*a*a", "a"),
            ("CHAT", "chat"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_list_that_allows_nothing_is_refused() {
        assert_eq!(ToolPatterns::parse(&[]), Err(Wrong::Empty));
        for wrong in ["", "a b", "chät", "[a-z]", "?"] {
            assert_eq!(ToolPatterns::parse(&["chat", wrong]), Err(Wrong::NotPattern), "{wrong}");
        }
    }
}
