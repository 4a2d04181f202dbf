//! Canonical arguments: one text for all spellings of the same JSON value, and only for those.
//!
//! Members are sorted by name, strings unescaped as far as JSON allows, white space dropped; numbers keep
//! their literal text, since 1 and 1.0, or 2^53 and 2^53+1, are different arguments. The walk goes over the raw
//! bytes and builds no second document: arguments that are already canonical are copied once.

use std::cell::Cell;

/// How deep arguments may nest. `serde_json`, which every door uses, stops at 128 as well.
pub const MAX_DEPTH: usize = 128;

/// Why arguments have no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A name occurs twice in one object: which one counts would be anybody's guess.
    #[error("the member name `{0}` occurs twice in one object")]
    DuplicateName(String),
    /// Deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not JSON, or a string that is no Unicode text (a lone surrogate).
    #[error("not valid JSON text")]
    Malformed,
}

/// Appends the canonical form of the JSON text `raw` to `out`.
///
/// The form is made to be compared and hashed, not parsed: each member and element ends in a comma.
pub fn canonical(raw: &str, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let mut walk = Walk { input: raw.as_bytes(), at: 0, out, members: MEMBERS.take() };
    let walked = walk.value(0);
    walk.space();
    let ended = walk.at == walk.input.len();
    let mut members = walk.members;
    if members.capacity() <= SPARE_MEMBERS {
        members.clear();
        MEMBERS.set(members);
    }
    walked.and(if ended { Ok(()) } else { Err(CanonicalError::Malformed) })
}

/// A list longer than this is not kept for the next walk.
const SPARE_MEMBERS: usize = 1024;

thread_local! {
    /// For the next walk.
    static MEMBERS: Cell<Vec<Member>> = const { Cell::new(Vec::new()) };
}

/// One member of an object that is being walked, as positions in the output.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

struct Walk<'a> {
    input: &'a [u8],
    at: usize,
    out: &'a mut Vec<u8>,
    /// Members of all open objects, the innermost last: one allocation for the whole walk.
    members: Vec<Member>,
}

impl Walk<'_> {
    fn peek(&self) -> Result<u8, CanonicalError> {
        self.input.get(self.at).copied().ok_or(CanonicalError::Malformed)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.input.get(self.at) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), CanonicalError> {
        if self.peek()? != byte {
            return Err(CanonicalError::Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.space();
        match self.peek()? {
            b'{' if depth < MAX_DEPTH => self.object(depth + 1),
            b'[' if depth < MAX_DEPTH => self.array(depth + 1),
            b'{' | b'[' => Err(CanonicalError::TooDeep),
            b'"' => self.string(),
            _ => self.scalar(),
        }
    }

    /// A number, `true`, `false` or `null`, by its literal text.
    fn scalar(&mut self) -> Result<(), CanonicalError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let ends =
            |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':' | b'"' | b' ' | b'\t' | b'\n' | b'\r');
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        if length == 0 {
            return Err(CanonicalError::Malformed);
        }
        self.out.extend_from_slice(rest.get(..length).unwrap_or_default());
        self.at += length;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        self.out.push(b'[');
        self.space();
        if self.peek()? != b']' {
            loop {
                self.value(depth)?;
                self.out.push(b',');
                self.space();
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.expect(b']')?;
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        self.out.push(b'{');
        let first = self.members.len();
        self.space();
        if self.peek()? != b'}' {
            loop {
                self.member(depth)?;
                self.space();
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.expect(b'}')?;
        self.sort(first)?;
        self.members.truncate(first);
        self.out.push(b'}');
        Ok(())
    }

    fn member(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.space();
        if self.peek()? != b'"' {
            return Err(CanonicalError::Malformed);
        }
        let start = self.out.len();
        self.string()?;
        let name_end = self.out.len();
        self.space();
        self.expect(b':')?;
        self.out.push(b':');
        self.value(depth)?;
        self.out.push(b',');
        self.members.push(Member { start, name_end, end: self.out.len() });
        Ok(())
    }

    /// Puts the members from `first` on in order of their names, and refuses a name that occurs twice.
    fn sort(&mut self, first: usize) -> Result<(), CanonicalError> {
        let out = &mut *self.out;
        let name = |member: &Member| out.get(member.start..member.name_end).unwrap_or_default();
        let members = self.members.get_mut(first..).unwrap_or_default();
        if members.is_sorted_by(|a, b| name(a) < name(b)) {
            return Ok(());
        }
        let begin = members.first().map_or(out.len(), |member| member.start);
        members.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if let Some([twin, _]) = members.array_windows().find(|[a, b]| name(a) == name(b)) {
            let quoted = name(twin);
            let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            let shown = String::from_utf8_lossy(plain).chars().take(64).collect();
            return Err(CanonicalError::DuplicateName(shown));
        }
        let mut sorted = Vec::with_capacity(out.len() - begin);
        for member in &*members {
            sorted.extend_from_slice(out.get(member.start..member.end).unwrap_or_default());
        }
        out.truncate(begin);
        out.extend_from_slice(&sorted);
        Ok(())
    }

    /// A string between its quotes; stretches without escapes are copied whole.
    fn string(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        self.out.push(b'"');
        loop {
            let rest = self.input.get(self.at..).unwrap_or_default();
            let stop = memchr::memchr2(b'"', b'\\', rest).ok_or(CanonicalError::Malformed)?;
            self.out.extend_from_slice(rest.get(..stop).unwrap_or_default());
            self.at += stop;
            if self.peek()? == b'"' {
                self.at += 1;
                self.out.push(b'"');
                return Ok(());
            }
            self.at += 1;
            self.escape()?;
        }
    }

    /// What follows a backslash. Each character has one spelling here: itself where JSON lets it stand, else
    /// the short escape, else `\u00xx`.
    fn escape(&mut self) -> Result<(), CanonicalError> {
        let kind = self.peek()?;
        self.at += 1;
        let character = match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return Err(CanonicalError::Malformed),
        };
        match character {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\u{8}' => self.out.extend_from_slice(b"\\b"),
            '\u{c}' => self.out.extend_from_slice(b"\\f"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            control if control < ' ' => {
                self.out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
            }
            plain => self.out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        Ok(())
    }

    fn unicode(&mut self) -> Result<char, CanonicalError> {
        let unit = self.hex4()?;
        if !(0xd800..0xe000).contains(&unit) {
            return char::from_u32(unit).ok_or(CanonicalError::Malformed);
        }
        self.expect(b'\\')?;
        self.expect(b'u')?;
        let low = self.hex4()?;
        if unit >= 0xdc00 || !(0xdc00..0xe000).contains(&low) {
            return Err(CanonicalError::Malformed);
        }
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(CanonicalError::Malformed)
    }

    fn hex4(&mut self) -> Result<u32, CanonicalError> {
        let digits = self.input.get(self.at..self.at + 4).ok_or(CanonicalError::Malformed)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(CanonicalError::Malformed)?;
            Ok(value * 16 + digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn of(raw: &str) -> Result<String, CanonicalError> {
        let mut out = Vec::new();
        canonical(raw, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn same(a: &str, b: &str) -> bool {
        of(a).unwrap() == of(b).unwrap()
    }

    #[test]
    fn member_order_white_space_and_escapes_do_not_matter() {
        assert!(same(
            r#"{"a":1,"b":{"y":[1, 2],"x":null}}"#,
            "{ \"b\" : {\"x\":null,\"y\":[1,2]},\r\n\t\"a\":1 }"
        ));
        assert!(same(r#""\u0041\/\ud83d\ude00\u00e9\u000a""#, "\"A/😀é\\n\""));
        assert!(same(r#"{"\u0061":1}"#, r#"{"a":1}"#));
        assert!(same(r#""\u0001\u001F\u007f""#, "\"\\u0001\\u001f\u{7f}\""));
    }

    #[test]
    fn every_value_matters() {
        let all = [
            "1",
            "1.0",
            "1e0",
            "10",
            "-1",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551616",
            "18446744073709551617",
            "\"1\"",
            "true",
            "null",
            "[]",
            "{}",
            "[[]]",
            "[1]",
            "[1,1]",
            "[11]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#""a\"b""#,
            r#""a\\\"b""#,
            r#""é""#,
            "\"e\u{301}\"",
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert!(!same(a, b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused_however_it_is_spelt() {
        let twice = CanonicalError::DuplicateName("a".into());
        assert_eq!(of(r#"{"a":1,"a":1}"#), Err(twice.clone()));
        assert_eq!(of(r#"{"z":[{"a":1,"b":2,"\u0061":3}]}"#), Err(twice));
        assert!(of(r#"[{"a":1},{"a":1}]"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_refused_and_depth_has_a_bound() {
        for wrong in [
            "",
            "{",
            "[1",
            r#"{"a"}"#,
            r#"{"a":1"#,
            r#""abc"#,
            r#""\x""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            "1 2",
        ] {
            assert_eq!(of(wrong), Err(CanonicalError::Malformed), "{wrong}");
        }
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(of(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(of(&deep(MAX_DEPTH + 1)), Err(CanonicalError::TooDeep));
        assert_eq!(of(&deep(1_000_000)), Err(CanonicalError::TooDeep));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,3}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn two_values_are_equal_exactly_when_their_forms_are(a in any_json(), b in any_json()) {
            let (first, second) = (a.to_string(), b.to_string());
            prop_assert_eq!(a == b, same(&first, &second));
            prop_assert!(same(&first, &serde_json::to_string_pretty(&a).unwrap()));
        }

        #[test]
        fn no_text_makes_the_walk_panic(text in "[\\[\\]{}\",:0-9a\\\\u \\n]{0,40}") {
            let _ = of(&text);
        }
    }
}
