use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// A frame as a client makes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 0, 200, 31];
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        medium @ ..65_536 => {
            frame.push(0xfe);
            frame.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend_from_slice(&u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn pair(buffer: usize, came: Vec<u8>) -> (Wire<DuplexStream>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(buffer);
    (Wire::new(ours, came, 1 << 20, Outbox::new(1 << 20)), theirs)
}

async fn next(wire: &mut Wire<DuplexStream>) -> Option<Result<Message, Error>> {
    poll_fn(|cx| wire.poll_message(cx)).await
}

async fn text(wire: &mut Wire<DuplexStream>) -> String {
    loop {
        match next(wire).await.unwrap().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Some frames of each kind that carries text, pings between them, and the texts that they make.
fn conversation(random: &mut fastrand::Rng) -> (Vec<u8>, Vec<String>) {
    let (mut bytes, mut texts) = (Vec::new(), Vec::new());
    for number in 0..random.usize(1..20) {
        let length =
            *random.choice(&[0, 1, 60, 125, 126, 500, 512, 513, 3000, 65_535, 65_536, 90_000]).unwrap();
        let text = format!("{number}").chars().cycle().take(length).collect::<String>();
        if random.bool() {
            bytes.extend(frame(0x81, text.as_bytes()));
        } else {
            let (start, rest) = text.as_bytes().split_at(random.usize(0..=length));
            let (middle, end) = rest.split_at(random.usize(0..=rest.len()));
            bytes.extend(frame(0x01, start));
            bytes.extend(frame(0x00, middle));
            bytes.extend(frame(0x89, b"still there?"));
            bytes.extend(frame(0x80, end));
        }
        texts.push(text);
    }
    (bytes, texts)
}

#[tokio::test]
async fn messages_come_whole_however_they_are_cut() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (bytes, texts) = conversation(&mut random);
        let (behind_the_upgrade, rest) = bytes.split_at(random.usize(0..=bytes.len().min(300)));
        let (mut wire, mut client) = pair(1 << 16, behind_the_upgrade.to_vec());
        let rest = rest.to_vec();
        let most = *random.choice(&[3, 100, 5000, 1 << 20]).unwrap();
        let sent = async move {
            let mut rest = rest.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.usize(1..=most).min(rest.len()));
                client.write_all(now).await.unwrap();
                rest = later;
            }
            client
        };
        let heard = async {
            for expected in &texts {
                assert!(text(&mut wire).await == *expected, "seed {seed}");
            }
        };
        let (client, ()) = tokio::join!(sent, heard);
        drop(client);
        assert!(next(&mut wire).await.unwrap().is_err(), "seed {seed}: nobody said good-bye");
        assert_eq!((wire.unread.capacity(), wire.missing), (0, 0), "seed {seed}");
    }
}

#[tokio::test]
async fn a_ping_has_its_pong_and_a_close_frame_is_the_last() {
    let (mut wire, mut client) = pair(1 << 16, Vec::new());
    client.write_all(&frame(0x89, b"you?")).await.unwrap();
    assert_eq!(next(&mut wire).await.unwrap().unwrap(), Message::Ping("you?".into()));
    client.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    assert!(matches!(next(&mut wire).await, Some(Ok(Message::Close(Some(_))))));
    wire.outbox.push("too late");
    assert!(next(&mut wire).await.is_none());
    drop(wire);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, *b"\x8a\x04you?\x88\x02\x03\xe8");
}

#[tokio::test]
async fn our_close_frame_is_waited_for() {
    let (mut wire, mut client) = pair(1 << 16, Vec::new());
    wire.outbox.push("last");
    wire.close(CloseFrame { code: 1001.into(), reason: "bye".into() });
    poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
    // What was under way already is read, and leads nowhere.
    client.write_all(&frame(0x81, b"{}")).await.unwrap();
    assert_eq!(next(&mut wire).await.unwrap().unwrap(), Message::Text("{}".into()));
    client.write_all(&frame(0x88, &1001_u16.to_be_bytes())).await.unwrap();
    assert!(matches!(next(&mut wire).await, Some(Ok(Message::Close(Some(_))))));
    assert!(next(&mut wire).await.is_none());
    drop(wire);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, *b"\x81\x04last\x88\x05\x03\xe9bye");
}

#[tokio::test]
async fn what_the_peer_does_not_take_waits_and_a_wire_at_rest_keeps_no_buffer() {
    let (mut wire, mut client) = pair(100, Vec::new());
    let text = "x".repeat(100_000);
    wire.outbox.push(&text);
    let mut heard = vec![0; 100_010];
    let took = client.read_exact(&mut heard);
    let (flushed, took) = tokio::join!(poll_fn(|cx| wire.poll_flush(cx)), took);
    flushed.and(took).unwrap();
    assert!(heard.ends_with(text.as_bytes()));
    assert_eq!((wire.written(), wire.outbox.bytes()), (100_010, 0));
    assert_eq!((wire.unread.capacity(), wire.outbox.waiting().len()), (0, 0));
}

#[test]
fn the_length_of_a_frame_is_known_once_its_head_is_whole() {
    assert_eq!([frame_bytes(b""), frame_bytes(b"\x81"), frame_bytes(b"\x81\x85123")], [None; 3]);
    assert_eq!(frame_bytes(b"\x81\x851234"), Some(11));
    assert_eq!(frame_bytes(b"\x81\x05"), Some(7));
    assert_eq!([frame_bytes(b"\x81\xfe\x01"), frame_bytes(b"\x81\xfe\x01\x00123")], [None; 2]);
    assert_eq!(frame_bytes(b"\x81\xfe\x01\x001234"), Some(256 + 8));
    assert_eq!(frame_bytes(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff1234"), Some(u64::MAX));
}

#[tokio::test]
async fn a_wire_keeps_nothing_of_what_was_read_however_often_a_read_ends_within_a_head() {
    let (mut wire, mut client) = pair(1 << 16, Vec::new());
    let pongs = frame(0x8a, b"x").repeat(1000);
    let (first, rest) = pongs.split_at(1);
    client.write_all(first).await.unwrap();
    for _ in 0..20 {
        client.write_all(rest).await.unwrap();
        client.write_all(first).await.unwrap();
        for _ in 0..1000 {
            assert!(matches!(next(&mut wire).await, Some(Ok(Message::Pong(_)))));
        }
    }
    assert!(wire.unread.len() < 2 * pongs.len(), "{} bytes", wire.unread.len());
}
