use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

use super::*;
use crate::deadline::Deadline;
use crate::provider::upstream::message::Draft;
use crate::provider::{Level, Logged, Step};

struct Deaf;

impl Hear for Deaf {
    fn notice(&self, _method: &str, _params: Option<&str>) {}

    fn question(&self, _id: &str, _method: &str, _params: Option<&str>) -> bool {
        false
    }
}

#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<f64>>);

impl Tell for Told {
    fn text(&self, _piece: &str) {}

    fn step(&self, step: Step) {
        self.0.lock().push(step.progress);
    }

    fn log(&self, _logged: Arc<Logged>) {}

    fn log_level(&self) -> Option<Level> {
        None
    }
}

/// A connection, and the server's ends of it.
struct Rig {
    pipe: Pipe,
    oddities: Arc<Oddities>,
    hears: BufReader<ReadHalf<DuplexStream>>,
    says: WriteHalf<DuplexStream>,
    driving: JoinHandle<End>,
    stop: CancellationToken,
}

fn rig(room: usize) -> Rig {
    let (ours, theirs) = duplex(room);
    let (reader, writer) = split(ours);
    let (hears, says) = split(theirs);
    let (oddities, stop) = (Arc::<Oddities>::default(), CancellationToken::new());
    let (pipe, mut driver) = connect(reader, writer, 1000, Arc::new(Deaf), Arc::clone(&oddities));
    let token = stop.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drains its own tasks")]
    let driving = tokio::spawn(async move { driver.run(&token).await });
    Rig { pipe, oddities, hears: BufReader::new(hears), says, driving, stop }
}

impl Rig {
    fn ask(&self) -> (u64, Asked) {
        let id = self.pipe.next_id();
        (id, self.pipe.ask(id, Draft::new(id, "x", 0).done(), None).unwrap())
    }

    async fn heard(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.hears.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn say(&mut self, text: &str) {
        self.says.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn each_answer_finds_its_caller_whatever_comes_first() {
    let mut rig = rig(4096);
    let ((one, first), (two, second)) = (rig.ask(), rig.ask());
    rig.say("nonsense").await;
    rig.say(r#"{"id":999,"result":{}}"#).await;
    rig.say(&format!(r#"{{"id":{two},"result":{{"n":18446744073709551616}}}}"#)).await;
    rig.say(&format!(r#"{{"id":{two},"result":{{}}}}"#)).await;
    rig.say(&format!(r#"{{"id":{one},"error":{{"code":-1,"message":"no"}}}}"#)).await;
    assert_eq!(second.await.as_deref(), Ok(r#"{"n":18446744073709551616}"#));
    assert_eq!(first.await, Err(Failed::Refused(Refusal { code: -1, message: "no".into(), data: None })));
    assert_eq!(rig.oddities.garbage.load(Ordering::Relaxed), 1);
    assert_eq!(rig.oddities.strangers.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn dropping_a_request_tells_its_server_and_waits_for_nothing() {
    let mut rig = rig(4096);
    let ((one, first), (_, second)) = (rig.ask(), rig.ask());
    assert_eq!(
        (rig.heard().await["id"].as_u64(), rig.heard().await["id"].as_u64()),
        (Some(one), Some(one + 1))
    );
    drop(first);
    let told = rig.heard().await;
    assert_eq!(
        (&told["method"], &told["params"]["requestId"]),
        (&"notifications/cancelled".into(), &one.into())
    );
    rig.say(&format!(r#"{{"id":{},"result":{{}}}}"#, one + 1)).await;
    assert!(second.await.is_ok());
}

#[tokio::test]
async fn the_end_of_a_server_answers_whoever_waits() {
    let Rig { pipe, hears, says, driving, stop, .. } = rig(4096);
    let asked = pipe.ask(1, "{}".into(), None).unwrap();
    drop((hears, says));
    assert!(matches!(driving.await.unwrap(), End::Closed | End::Broken));
    assert_eq!(asked.await, Err(Failed::Broken("it ended before it had answered")));
    assert_eq!(pipe.ask(2, "{}".into(), None).err(), Some(Failed::Gone));
    drop(stop);
}

#[tokio::test]
async fn one_that_does_not_read_is_told_of_and_holds_nobody_up() {
    let rig = rig(16);
    let line = "x".repeat(UNREAD_BYTES);
    let mut asked = vec![rig.pipe.ask(1, line, None).unwrap()];
    tokio::task::yield_now().await;
    let full = loop {
        let id = rig.pipe.next_id();
        match rig.pipe.ask(id, "{}".into(), None) {
            Ok(more) => asked.push(more),
            Err(failed) => break failed,
        }
    };
    assert_eq!(full, Failed::NotSent("it does not read what it is sent"));
    assert!(asked.len() <= ASKS + 2, "{}", asked.len());
    rig.stop.cancel();
    assert_eq!(rig.driving.await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn a_message_above_the_limit_fails_its_own_request_alone() {
    let mut rig = rig(8192);
    let long = "x".repeat(3000);
    for form in [
        format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{{"a":"{long}"}}}}"#),
        format!(r#"{{"result":{{"a":"{long}"}},"jsonrpc":"2.0","id":ID}}"#),
        format!(r#"{{"jsonrpc":"2.0","result":{{"a":"{long}"}},"id":ID}}"#),
    ] {
        let ((one, first), (two, second)) = (rig.ask(), rig.ask());
        rig.say(&form.replace("ID", &one.to_string())).await;
        rig.say(&format!(r#"{{"id":{two},"result":{{}}}}"#)).await;
        assert_eq!(first.await, Err(Failed::TooLarge), "{}", &form[..40]);
        assert!(second.await.is_ok());
    }
    assert_eq!(rig.oddities.too_large.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_server_that_asks_is_answered_and_progress_only_rises() {
    let mut rig = rig(8192);
    let told = Arc::new(Told::default());
    let tell: Arc<dyn Tell> = told.clone();
    let asked = rig.pipe.ask(7, "{\"id\":7}".into(), Some(tell)).unwrap();
    rig.heard().await;
    rig.say(r#"{"id":"p","method":"ping"}"#).await;
    assert_eq!(rig.heard().await, serde_json::json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    rig.say(r#"{"id":"r","method":"roots/list"}"#).await;
    assert_eq!(rig.heard().await["error"]["code"], -32601);
    for progress in ["0.5", "2", "1", "2", "3.25"] {
        let params = format!(r#"{{"progressToken":7,"progress":{progress}}}"#);
        rig.say(&format!(r#"{{"method":"notifications/progress","params":{params}}}"#)).await;
    }
    rig.say(r#"{"id":7,"result":{}}"#).await;
    assert!(asked.await.is_ok());
    assert_eq!(*told.0.lock(), [0.5, 2.0, 3.25]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_dropped_before_it_was_sent_is_never_sent() {
    let mut rig = rig(4096);
    // The driver has not run yet: both wait to be taken over.
    let (_, first) = rig.ask();
    let (two, _second) = rig.ask();
    drop(first);
    assert_eq!(rig.heard().await["id"], two);
    let more = Deadline::after(Duration::from_secs(1)).limit(rig.hears.read_u8()).await;
    assert!(more.is_err(), "nothing more is said");
}
