//! The frame that nearly all are: a text of its own, masked, that has come whole. Whatever else there is, and whatever is
//! wrong, is tungstenite's.

use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A whole text, and none of the bits that extensions use.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

/// The text of the frame that these are the bytes of.
pub(super) fn text(frame: &[u8], limit: usize) -> Option<Utf8Bytes> {
    let [TEXT, second, behind @ ..] = frame else { return None };
    let extended = match second ^ MASKED {
        126 => 2,
        127 => 8,
        // Of an unmasked frame it is larger than any.
        0..126 => 0,
        _ => return None,
    };
    let (mask, masked) = behind.get(extended..)?.split_first_chunk::<4>()?;
    if masked.len() > limit {
        return None;
    }
    let mut text = masked.to_vec();
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = text.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    String::from_utf8(text).ok().map(Utf8Bytes::from)
}
