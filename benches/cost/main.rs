//! `.ci/cost`: what a call costs in instructions and allocations, the same on every run.
//!
//! Server and client share one thread and one runtime, a real loopback socket between them, one call in
//! flight: no core waits for another, so two runs do the same work. The client writes and reads raw frames into
//! buffers that it keeps: it allocates nothing, and its instructions are few and always the same.
//!
//! `.ci/cost` runs `run N` at two lengths, under callgrind and alone; what the longer one does more, divided by
//! the calls it makes more, is the cost of a call, free of what the start costs.
//!
//! - `run N SERVER`: `N` calls; then `allocations A` and `bytes B` on stdout. `SERVER`: `daemon`, `reference`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    unreachable_pub,
    dead_code,
    reason = "a benchmark ends at the first surprise, and prints; it shares files with `speed` and uses parts"
)]

mod count;
#[path = "../speed/reference.rs"]
mod reference;
#[path = "../speed/wire.rs"]
mod wire;

use inflightd::app::App;
use inflightd::config::{Sources, resolve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::count::Counting;
use crate::reference::Flavour;
use crate::wire::{ECHO, INITIALIZE, INITIALIZED, Inbox, Reader};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let [command @ "run", calls, server] = words.as_slice() else {
        // `cargo test --all-targets` and `cargo bench` run this one too.
        println!("run it with `.ci/cost`");
        return;
    };
    let calls = calls.parse().unwrap_or_else(|_| panic!("{command} how often?"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counted = runtime.block_on(async {
        let port = match *server {
            "daemon" => start_daemon().await,
            "reference" => start_reference().await,
            other => panic!("no server {other:?}"),
        };
        // A task of its own, as in `speed`: `block_on` itself wakes up in another way.
        tokio::spawn(client(port, calls)).await.unwrap()
    });
    println!("allocations {}\nbytes {}", counted.allocations, counted.bytes);
}

/// Starts the daemon in this runtime, on a free port, with limits at which nothing is refused.
async fn start_daemon() -> u16 {
    let settings = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "warn")];
    let flags = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let loaded = resolve(Sources { flags, ..Sources::default() }).unwrap();
    let app = App::bind(&loaded.config).await.unwrap();
    let port = app.address().port();
    // Nobody keeps the sender: the daemon runs as long as the process.
    let (_, stop) = tokio::sync::mpsc::channel(1);
    tokio::spawn(app.run(stop));
    port
}

async fn start_reference() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(reference::serve(listener, Flavour::Inline));
    port
}

/// Calls one after the other, each answer checked; what was allocated meanwhile, by anyone.
async fn client(port: u16, calls: u64) -> count::Counts {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut inbox = Inbox::new();
    let mut reader = Reader::default();
    let mut out = Vec::with_capacity(4096);
    let mut message = Vec::with_capacity(4096);

    stream.write_all(wire::upgrade(port).as_bytes()).await.unwrap();
    let head = loop {
        if let Some(head) = inbox.http_head() {
            break head;
        }
        let count = stream.read(inbox.space()).await.unwrap();
        inbox.filled(count);
    };
    wire::check_upgrade(&head);
    wire::push_text(&mut out, INITIALIZE.as_bytes());
    exchange(&mut stream, &mut inbox, &mut reader, &mut out, 0, b"2025-11-25").await;
    wire::push_text(&mut out, INITIALIZED.as_bytes());

    let before = count::now();
    for id in 1..=calls {
        let text = wire::text_of(id);
        wire::write_call(&mut message, id, ECHO, &text);
        wire::push_text(&mut out, &message);
        exchange(&mut stream, &mut inbox, &mut reader, &mut out, id, &text).await;
    }
    count::now() - before
}

/// Sends `out` and waits for the answer to `id`, which must carry `text`.
async fn exchange(
    stream: &mut TcpStream,
    inbox: &mut Inbox,
    reader: &mut Reader,
    out: &mut Vec<u8>,
    id: u64,
    text: &[u8],
) {
    stream.write_all(out).await.unwrap();
    out.clear();
    loop {
        while let Some(range) = inbox.message(out) {
            let answer = inbox.bytes(range);
            if reader.id(answer) == Some(id) {
                reader.check_text(answer, text);
                return;
            }
        }
        let count = stream.read(inbox.space()).await.unwrap();
        inbox.filled(count);
    }
}
