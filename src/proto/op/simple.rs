//! The form of answers for shims that can only take one frame for each request, strictly in order, and a small one.
//!
//! Their hello has `clientInfo`; they put their id in `id`, read `result`, and give up after a while without a word.

use std::time::Duration;

use crate::call::{Answer, Bounds, CallError, Full};
use crate::proto::op::answer::push_metadata;
use crate::proto::op::{To, close, reply};
use crate::proto::{WAIT_FOR_TURN, push_error as push_error_object};
use crate::provider::{Collects, Reply, content};

/// A frame stays below this: it is what many WebSocket libraries take at most.
const FRAME_BYTES: usize = 1 << 20;

/// The longest id that is given back.
pub(super) const ID_BYTES: usize = 1024;

/// The longest metadata that is given back: a caller may choose the name of its model.
const METADATA_BYTES: usize = 16 * 1024;

/// The longest error that is told, twice as text and once as an object.
const ERROR_BYTES: usize = 16 * 1024;

/// What is left in a frame for what tells that it was cut.
const WORD_BYTES: usize = 512;

/// What a connection of such a shim cannot take. Ids, metadata and all that is in a frame beside its result need less
/// than 32 KiB, so whatever is cut was kept.
pub(super) fn bounds(answer_within: Option<Duration>) -> Bounds {
    Bounds { answer_within, reply_bytes: Some(FRAME_BYTES - 32 * 1024) }
}

/// In which form a connection's requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each as it finishes, with acknowledgement and progress.
    Ordinary,
    /// Its first request decides.
    Undecided,
    /// One frame each, strictly in order.
    Simple,
}

/// A request behind so many that it cannot wait for its turn.
pub(super) fn too_many() -> CallError {
    let full = Full::Queue { name: "this connection".into(), limit: WAIT_FOR_TURN };
    CallError::Full { full, retry_after: Some(Duration::from_secs(1)) }
}

/// The end of a call.
pub(super) fn answer(id: Option<&str>, answer: &Answer) -> String {
    let mut out = reply("call_tool_res", To::Simple(id));
    let mut metadata = String::new();
    push_metadata(&mut metadata, answer);
    if metadata.len() > METADATA_BYTES {
        metadata = format!(",\"metadata\":{{\"request_id\":\"{}\"}}", answer.request);
    }
    match &answer.outcome {
        Ok(reply) => {
            let room = FRAME_BYTES.saturating_sub(out.len() + metadata.len() + 64);
            push_reply(&mut out, room, reply, rest(answer, reply));
        }
        // The call has not failed: an `error` might be taken for a reason to call again.
        Err(error) if matches!(**error, CallError::AnsweredEarly { .. }) => {
            push_result(&mut out, &content::text_block(&error.to_string()), true);
            out.push_str(",\"still_running\":true");
        }
        Err(error) => push_error(&mut out, error),
    }
    out.push_str(&metadata);
    close(out)
}

/// Appends an error as `result`, `outputs` and `error`.
pub(super) fn push_error(out: &mut String, error: &CallError) {
    let mut object = String::new();
    push_error_object(&mut object, error);
    let text = format!("{}: {error}", error.code().label());
    let told = content::up_to(&format!("[{}]", content::text_block(&text)), ERROR_BYTES);
    push_result(out, &told.blocks, true);
    out.push_str(",\"error\":");
    if object.len() <= ERROR_BYTES {
        out.push_str(&object);
    } else {
        // A client may be refused for a name that is longer than a frame.
        out.push_str("{\"code\":\"");
        out.push_str(error.code().label());
        out.push_str("\",\"message\":\"see result\",\"retryable\":false}");
    }
}

/// Where the rest of a reply that is cut can be had, if anywhere.
fn rest(answer: &Answer, reply: &Reply) -> Option<Collects> {
    let kept = Collects { request: answer.request, from: 0, told: 0 };
    reply.collects.or_else(|| answer.execution.map(|_| kept))
}

/// Appends a reply, whole if it fits into `room` bytes. `outputs` repeats it only if there is room for both.
fn push_reply(out: &mut String, room: usize, reply: &Reply, rest: Option<Collects>) {
    let whole = reply.content();
    if whole.len() <= room {
        let blocks = whole.get(1..whole.len().saturating_sub(1)).unwrap_or_default();
        return push_result(out, blocks, 2 * whole.len() <= room);
    }
    let mut piece = content::up_to(whole, room.saturating_sub(WORD_BYTES));
    let word = match rest {
        Some(rest) => {
            let next = rest.from + piece.characters.saturating_sub(rest.told);
            format!(
                "[The answer is cut here, since this connection takes less than 1 MiB at once. The rest begins with \
                 character {next}: call the tool get_request with {{\"request_id\":\"{}\",\"offset\":{next}}}]",
                rest.request
            )
        }
        None => "[The answer is cut here, since this connection takes less than 1 MiB at once.]".into(),
    };
    if !piece.blocks.is_empty() {
        piece.blocks.push(',');
    }
    piece.blocks.push_str(&content::text_block(&word));
    push_result(out, &piece.blocks, false);
}

/// Appends `,"result":[…],"outputs":[…]`.
fn push_result(out: &mut String, blocks: &str, repeated: bool) {
    for (name, blocks) in [(",\"result\":[", blocks), (",\"outputs\":[", if repeated { blocks } else { "" })]
    {
        out.push_str(name);
        out.push_str(blocks);
        out.push(']');
    }
}
