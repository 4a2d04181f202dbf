//! A text that is mostly short: most ids of clients are, and whoever waits keeps one.

use std::ops::Deref;

/// With its length and its kind it takes 24 bytes.
const SHORT: usize = 22;

/// A text of any length; one of up to 22 bytes takes no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Here { bytes: [u8; SHORT], length: u8 },
    There(Box<str>),
}

impl From<&str> for Short {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(to), Ok(length)) => {
                to.copy_from_slice(text.as_bytes());
                Self(Kind::Here { bytes, length })
            }
            _ => Self(Kind::There(text.into())),
        }
    }
}

impl Deref for Short {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Kind::Here { bytes, length } => {
                // It was one when it came.
                bytes
                    .get(..usize::from(*length))
                    .and_then(|text| str::from_utf8(text).ok())
                    .unwrap_or_default()
            }
            Kind::There(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_whatever_its_length() {
        for text in ["", "7", "\"é\"", &"x".repeat(22), &"x".repeat(23), &"é".repeat(500)] {
            assert_eq!(&*Short::from(text), text);
        }
        assert_eq!(size_of::<Short>(), 24);
    }
}
