//! `.ci/cost`: what a call costs in instructions and allocations, the same on every run.
//!
//! Server and client share one thread and one runtime, real loopback sockets between them, one call in
//! flight on each: no core waits for another, so two runs do the same work. The client writes and reads raw frames into
//! buffers that it keeps: it allocates nothing, and its instructions are few and always the same.
//!
//! `.ci/cost` runs `run N` at two lengths, under callgrind and alone; what the longer one does more, divided by
//! the calls it makes more, is the cost of a call, free of what the start costs.
//!
//! - `run N SERVER SHAPE`: `N` calls; then `allocations A` and `bytes B` on stdout. `SERVER`: `daemon`, `reference`.
//!   `SHAPE`: `echo`, each call something new, through every stage; `hit`, each the same, its answer kept; `follower`,
//!   64 connections that ask the same, held until all of them wait: one runs, the others join. Of the daemon alone:
//!   `post`, as `echo` over `POST /mcp`; `upstream`, as `echo` of a server over stdin and stdout, which is not counted.
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
mod held;
#[path = "../speed/post.rs"]
mod post;
#[path = "../speed/reference.rs"]
mod reference;
#[path = "../speed/upstream.rs"]
mod upstream;
#[path = "../speed/wire.rs"]
mod wire;

use std::ops::Range;

use inflightd::app::App;
use inflightd::config::{Sources, resolve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::count::{Counting, Counts};
use crate::held::{HELD, Held};
use crate::reference::Flavour;
use crate::wire::{ECHO, INITIALIZE, INITIALIZED, Inbox, KEPT, Reader, Tool, UPSTREAM};

/// The word that turns this program into the daemon's child.
const SERVE: &str = "serve";

/// Connections that ask the same.
const GROUP: u64 = 64;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    if words == [SERVE] {
        return upstream::serve();
    }
    let [command @ "run", calls, server, shape] = words.as_slice() else {
        // `cargo test --all-targets` and `cargo bench` run this one too.
        println!("run it with `.ci/cost`");
        return;
    };
    let calls = calls.parse().unwrap_or_else(|_| panic!("{command} how often?"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, shape) = (server.to_string(), shape.to_string());
    let counted = runtime.block_on(async {
        // A task of its own, as in `speed`: `block_on` itself wakes up in another way.
        tokio::spawn(async move {
            let held = Held::default();
            let port = match &*server {
                "daemon" => start_daemon(&held, shape == "upstream").await,
                "reference" => start_reference().await,
                other => panic!("no server {other:?}"),
            };
            match &*shape {
                "echo" => one_by_one(Client::connect(port).await, calls, ECHO, wire::text_of).await,
                "hit" => one_by_one(Client::connect(port).await, calls, KEPT, |_| wire::text_of(7)).await,
                "post" => one_by_one(Client::connect_post(port).await, calls, ECHO, wire::text_of).await,
                "upstream" => one_by_one(Client::connect(port).await, calls, UPSTREAM, wire::text_of).await,
                "follower" => together(port, calls / GROUP, (server == "daemon").then_some(&held)).await,
                other => panic!("no shape {other:?}"),
            }
        })
        .await
        .unwrap()
    });
    println!("allocations {}\nbytes {}", counted.allocations, counted.bytes);
}

/// Starts the daemon in this runtime, on a free port, with limits at which nothing is refused.
async fn start_daemon(held: &Held, has_upstream: bool) -> u16 {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/speed/tools.toml");
    let mut settings =
        vec![("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "warn"), ("TOOLS_FILE", tools)];
    let servers = std::env::temp_dir().join(format!("inflightd-cost-{}.json", std::process::id()));
    if has_upstream {
        let server = serde_json::json!({"command": std::env::current_exe().unwrap(), "args": [SERVE]});
        let file = serde_json::json!({"mcpServers": {"upstream": server}});
        std::fs::write(&servers, file.to_string()).unwrap();
        settings.push(("MCP_SERVERS_FILE", servers.to_str().unwrap()));
    }
    let flags = settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let loaded = resolve(Sources { flags, ..Sources::default() }).unwrap();
    let _ = std::fs::remove_file(servers);
    let app =
        App::bind_with(&loaded.config, |registry, ladder| held.register(registry, ladder)).await.unwrap();
    held.watches(app.hub());
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
async fn one_by_one(mut client: Client, calls: u64, tool: Tool, text: impl Fn(u64) -> [u8; 16]) -> Counts {
    let before = count::now();
    for id in 1..=calls {
        client.ask(id, tool, &text(id)).await;
        client.answer(id, &text(id)).await;
    }
    count::now() - before
}

/// Rounds of one call on each connection, all the same; where they are held, until all of them wait.
async fn together(port: u16, rounds: u64, held: Option<&Held>) -> Counts {
    let mut clients = Vec::new();
    for _ in 0..GROUP {
        clients.push(Client::connect(port).await);
    }
    let before = count::now();
    for round in 1..=rounds {
        let text = wire::text_of(round);
        for client in &mut clients {
            client.ask(round, HELD, &text).await;
        }
        if let Some(held) = held {
            held.let_go_once(GROUP as usize).await;
        }
        for client in &mut clients {
            client.answer(round, &text).await;
        }
    }
    count::now() - before
}

/// One connection, initialised.
struct Client {
    /// What stands before each message over `POST /mcp`; else each is a frame.
    head: Option<String>,
    stream: TcpStream,
    inbox: Inbox,
    reader: Reader,
    out: Vec<u8>,
    message: Vec<u8>,
}

impl Client {
    async fn new(port: u16, head: Option<String>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (out, message) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
        Self { head, stream, inbox: Inbox::new(), reader: Reader::default(), out, message }
    }

    async fn connect_post(port: u16) -> Self {
        Self::new(port, Some(post::head(port, ECHO.name))).await
    }

    async fn connect(port: u16) -> Self {
        let mut client = Self::new(port, None).await;
        client.stream.write_all(wire::upgrade(port).as_bytes()).await.unwrap();
        let head = loop {
            if let Some(head) = client.inbox.http_head() {
                break head;
            }
            client.fill().await;
        };
        wire::check_upgrade(&head);
        wire::push_text(&mut client.out, INITIALIZE.as_bytes());
        client.flush().await;
        client.answer(0, b"2025-11-25").await;
        wire::push_text(&mut client.out, INITIALIZED.as_bytes());
        client
    }

    async fn ask(&mut self, id: u64, tool: Tool, text: &[u8]) {
        if let Some(head) = &self.head {
            wire::write_call(&mut self.message, id, tool, text, post::META);
            post::push(&mut self.out, head, &self.message);
        } else {
            wire::write_call(&mut self.message, id, tool, text, "");
            wire::push_text(&mut self.out, &self.message);
        }
        self.flush().await;
    }

    /// Waits for the answer to `id`, which must carry `text`.
    async fn answer(&mut self, id: u64, text: &[u8]) {
        loop {
            while let Some(range) = self.next_message() {
                let answer = self.inbox.bytes(range);
                if self.reader.id(answer) == Some(id) {
                    self.reader.check_text(answer, text);
                    return;
                }
            }
            self.fill().await;
        }
    }

    fn next_message(&mut self) -> Option<Range<usize>> {
        if self.head.is_some() { self.inbox.posted() } else { self.inbox.message(&mut self.out) }
    }

    async fn flush(&mut self) {
        self.stream.write_all(&self.out).await.unwrap();
        self.out.clear();
    }

    async fn fill(&mut self) {
        let count = self.stream.read(self.inbox.space()).await.unwrap();
        self.inbox.filled(count);
    }
}
