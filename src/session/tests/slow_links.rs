//! A peer whose bytes move is no silent one, however long a message takes.

use super::*;

/// What a second carries.
const PIECE: usize = 16 * 1024;

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_a_long_request_slowly_is_heard() {
    let mut client = Client::greeted().await;
    let text = "x".repeat(60 * PIECE);
    let call =
        json!({"op": "call_tool", "request_id": 1, "name": "echo", "arguments": {"text": text}}).to_string();
    let mut frame = vec![0x81, 0xff];
    frame.extend_from_slice(&u64::try_from(call.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(call.as_bytes());
    for piece in frame.chunks(PIECE) {
        tokio::time::sleep(secs(1)).await;
        client.socket.get_mut().write_all(piece).await.expect("the session hears what comes");
    }
    assert_eq!(client.hear().await["op"], "call_tool_ack");
    assert_eq!(client.hear().await["outputs"][0]["text"], text);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_long_answer_slowly_gets_it_whole() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    // The connection itself holds a part of it.
    let text = "x".repeat((1 << 20) + 60 * PIECE);
    client.rig.stage.order(client.rig.stage.find("a"), Order::answer(&text));
    let raw = client.socket.get_mut();
    for _ in 0..60 {
        tokio::time::sleep(secs(1)).await;
        raw.read_exact(&mut vec![0; PIECE]).await.expect("the session sees that it is read");
    }
    raw.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
    assert_eq!(client.rig.tasks.live(TaskKind::Session), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_within_a_request_is_gone_40_seconds_later() {
    let mut client = Client::greeted().await;
    tokio::time::sleep(secs(7)).await;
    client.socket.get_mut().write_all(&[0x81, 0xfe, 1, 0, 0, 0, 0, 0, b'{']).await.unwrap();
    client.ended(secs(41)).await;
    assert_eq!(client.opened.elapsed(), secs(47));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_within_an_answer_is_gone_40_seconds_later() {
    let mut client = Client::greeted().await;
    client.look("a").await;
    client.rig.stage.order(client.rig.stage.find("a"), Order::answer(&"x".repeat(3 << 20)));
    settle().await;
    tokio::time::sleep(secs(7)).await;
    client.socket.get_mut().read_exact(&mut vec![0; PIECE]).await.unwrap();
    client.ended(secs(41)).await;
    assert_eq!(client.opened.elapsed(), secs(47));
}
