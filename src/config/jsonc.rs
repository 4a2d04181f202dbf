//! JSON with comments and trailing commas, as several clients take it: made plain JSON of the same length, so that
//! places in the one are places in the other.

/// The same text with comments and trailing commas turned into spaces. What is no JSON stays none.
pub fn plain(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = if text.starts_with('\u{feff}') { blank(&mut bytes, 0, 3) } else { 0 };
    let mut comma = None;
    while let Some(byte) = bytes.get(at).copied() {
        let next = bytes.get(at + 1).copied();
        at = match (byte, next) {
            (b'"', _) => {
                comma = None;
                string_end(&bytes, at)
            }
            (b'/', Some(b'/')) => {
                let end = find(&bytes, at, b"\n").unwrap_or(bytes.len());
                blank(&mut bytes, at, end)
            }
            (b'/', Some(b'*')) => {
                let end = find(&bytes, at + 2, b"*/").map_or(bytes.len(), |end| end + 2);
                blank(&mut bytes, at, end)
            }
            (b']' | b'}', _) => {
                if let Some(comma) = comma.take() {
                    blank(&mut bytes, comma, comma + 1);
                }
                at + 1
            }
            (b',', _) => {
                comma = Some(at);
                at + 1
            }
            (b' ' | b'\t' | b'\n' | b'\r', _) => at + 1,
            _ => {
                comma = None;
                at + 1
            }
        };
    }
    // Whole characters were blanked, byte by byte: what is left is UTF-8.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Blanks a range, the ends of its lines kept; returns its end.
fn blank(bytes: &mut [u8], from: usize, to: usize) -> usize {
    for byte in bytes.iter_mut().take(to).skip(from) {
        if !matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    to
}

/// Behind the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|place| from + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_go_and_nothing_moves() {
        let text = "\u{feff}{ // é \"x\"\n \"a\": \"// no /* comment */ ,]\", /* two\n lines, */ \"b\\\"//\": [1, 2 , /**/ ],\r\n}//";
        let plain = plain(text);
        assert_eq!(plain.len(), text.len());
        assert_eq!(plain.matches('\n').count(), text.matches('\n').count());
        let json: serde_json::Value = serde_json::from_str(plain.trim()).unwrap();
        assert_eq!(json, serde_json::json!({"a": "// no /* comment */ ,]", "b\"//": [1, 2]}));
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["{\"a\": 1 /* open", "{\"a", "{\"a\": 1,, }", "[,]x", "/", "{\"a\":1}}"] {
            assert!(serde_json::from_str::<serde_json::Value>(&plain(text)).is_err(), "{text}");
        }
    }
}
