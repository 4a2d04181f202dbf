//! Pieces of a content array, for answers that are too long to be delivered at once.
//!
//! A place in it is counted in characters of its texts; any other block counts as one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::push_json_string;

/// What surrounds a text in its block.
const TEXT_BLOCK: &str = "{\"type\":\"text\",\"text\":\"\"}";

/// Blocks without the brackets around them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The blocks, with commas between.
    pub blocks: String,
    /// How many characters they are.
    pub characters: usize,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

/// How many characters a content array is.
pub fn characters(content: &str) -> usize {
    blocks(content).into_iter().map(|block| text_of(block).map_or(1, |text| text.chars().count())).sum()
}

/// Its texts, one after another; other blocks are passed over.
pub fn text(content: &str) -> String {
    blocks(content).into_iter().filter_map(text_of).collect()
}

/// What comes after the first `offset` characters.
pub fn after(content: &str, offset: usize) -> Piece {
    let mut piece = Piece::default();
    let mut passed = 0;
    for block in blocks(content) {
        let text = text_of(block);
        let count = text.as_ref().map_or(1, |text| text.chars().count());
        if passed >= offset {
            piece.push(block.get(), count);
        } else if let Some(text) = text.filter(|_| passed + count > offset) {
            let start = text.char_indices().nth(offset - passed).map_or(text.len(), |(at, _)| at);
            piece.push(&text_block(text.get(start..).unwrap_or_default()), passed + count - offset);
        }
        passed += count;
    }
    piece
}

/// What fits into `room` bytes, from the beginning: the last text is cut where it has to be. A block that is no text
/// is never cut: it waits for the next piece, or is left out, with a word about it, where it would hardly ever fit.
pub fn up_to(content: &str, room: usize) -> Piece {
    let mut piece = Piece::default();
    for block in blocks(content) {
        let left = room.saturating_sub(piece.blocks.len() + usize::from(!piece.blocks.is_empty()));
        let text = text_of(block);
        let length = block.get().len();
        if length <= left {
            piece.push(block.get(), text.map_or(1, |text| text.chars().count()));
            continue;
        }
        if let Some(text) = text {
            let (head, count) = fitting(&text, left.saturating_sub(TEXT_BLOCK.len()));
            if count > 0 {
                piece.push(&text_block(head), count);
            }
            break;
        }
        let word = text_block(&format!("[a block of {length} bytes that is no text is left out here]"));
        if length <= room / 2 || word.len() > left {
            break;
        }
        piece.push(&word, 1);
    }
    piece
}

impl Piece {
    fn push(&mut self, block: &str, characters: usize) {
        if !self.blocks.is_empty() {
            self.blocks.push(',');
        }
        self.blocks.push_str(block);
        self.characters += characters;
    }
}

/// A text block.
pub fn text_block(text: &str) -> String {
    let mut block = String::with_capacity(text.len() + text.len() / 16 + TEXT_BLOCK.len());
    block.push_str("{\"type\":\"text\",\"text\":");
    push_json_string(&mut block, text);
    block.push('}');
    block
}

fn blocks(content: &str) -> Vec<&RawValue> {
    serde_json::from_str(content).unwrap_or_default()
}

fn text_of(block: &RawValue) -> Option<Cow<'_, str>> {
    let block: Block<'_> = serde_json::from_str(block.get()).ok()?;
    block.text.filter(|_| block.kind == "text")
}

/// The longest beginning of a text whose JSON, without its quotes, has at most `room` bytes; and its characters.
fn fitting(text: &str, room: usize) -> (&str, usize) {
    let mut written = 0;
    let mut count = 0;
    for (at, character) in text.char_indices() {
        written += match character {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            control if control < ' ' => 6,
            plain => plain.len_utf8(),
        };
        if written > room {
            return (text.get(..at).unwrap_or_default(), count);
        }
        count += 1;
    }
    (text, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(texts: &[&str]) -> String {
        format!("[{}]", texts.iter().map(|text| text_block(text)).collect::<Vec<_>>().join(","))
    }

    fn texts(piece: &Piece) -> String {
        let blocks: serde_json::Value = serde_json::from_str(&format!("[{}]", piece.blocks)).unwrap();
        blocks.as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap()).collect()
    }

    #[test]
    fn pieces_put_together_are_the_whole() {
        let whole = ["é😀\"\\\n\u{1}", "", "plain", "ü"].map(|text| text.repeat(50));
        let content = content(&whole.each_ref().map(String::as_str));
        for room in [2 * TEXT_BLOCK.len() + 7, 80, 200, 10_000] {
            let (mut collected, mut at) = (String::new(), 0);
            while at < characters(&content) {
                let rest = format!("[{}]", after(&content, at).blocks);
                let piece = up_to(&rest, room);
                assert!(piece.blocks.len() <= room && piece.characters > 0, "{room}: {piece:?}");
                collected.push_str(&texts(&piece));
                at += piece.characters;
            }
            assert_eq!(collected, whole.concat());
        }
    }

    #[test]
    fn what_is_no_text_is_never_cut() {
        let image = format!("{{\"type\":\"image\",\"data\":\"{}\"}}", "x".repeat(100));
        let content = format!("[{},{image}]", text_block("before"));
        let before = up_to(&content, 260);
        assert_eq!((before.characters, texts_of_kind(&before, "image")), (7, 1));
        let waits = up_to(&content, 150);
        assert_eq!((waits.characters, texts_of_kind(&waits, "image")), (7, 0));
        assert!(waits.blocks.contains("left out"), "it would fill more than half of any piece: {waits:?}");
        assert_eq!(after(&content, 6).blocks, image);
        assert_eq!(after(&content, 7), Piece::default());
    }

    fn texts_of_kind(piece: &Piece, kind: &str) -> usize {
        piece.blocks.matches(&format!("\"type\":\"{kind}\"")).count()
    }
}
