//! Replies and how texts are spelt in them.

use super::*;

#[test]
fn a_text_is_spelt_as_serde_json_spells_it() {
    for text in ["", "plain", "é😀", "a\"b\\c\n\r\t\u{1}\u{1f}\u{7f}", "\n\n"] {
        let mut out = String::new();
        push_json_string(&mut out, text);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}

#[test]
fn the_content_is_a_part_of_the_members() {
    let reply = Reply::structured(&serde_json::json!({"a": 1}));
    assert_eq!(reply.content(), r#"[{"type":"text","text":"{\"a\":1}"}]"#);
    assert!(reply.members().ends_with(r#","structuredContent":{"a":1}"#));
}
