//! A daemon with upstream servers that play what the test says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use inflightd::app::{App, Drained, StartError};
use inflightd::config::{self, Config, Problems, Sources};
use inflightd::door::Hub;
use inflightd::tool::Insight;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::support::wire::Wire;
use crate::support::{until, within};

/// The fake server's program.
pub fn program() -> String {
    example("fake_upstream", "fake_upstream.rs")
}

/// The program of an example.
pub fn example(name: &str, source: &str) -> String {
    static BUILDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let path = Path::new(env!("CARGO_BIN_EXE_inflightd")).with_file_name("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(source);
    let changed = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    let _one_at_a_time = BUILDING.lock().unwrap();
    // `cargo test` builds examples; `cargo test --test upstream` does not.
    if changed(&path) < changed(&source) {
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--example", name]);
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    }
    path.to_string_lossy().into_owned()
}

/// A server that plays this.
pub fn fake(flags: &[&str]) -> Value {
    json!({"command": program(), "args": flags})
}

/// The same with members of ours.
pub fn fake_with(flags: &[&str], ours: &Value) -> Value {
    let mut server = fake(flags);
    server.as_object_mut().unwrap().extend(ours.as_object().unwrap().clone());
    server
}

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("upstream-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon.
pub struct Daemon {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    pub folder: Folder,
    /// Has the configuration read again.
    pub hang_up: mpsc::Sender<()>,
    stop: mpsc::Sender<()>,
    running: JoinHandle<Drained>,
}

/// How a daemon is started.
#[derive(Default)]
pub struct Setup {
    pub keys: Vec<(&'static str, String)>,
    pub toml: String,
}

impl Daemon {
    /// One with these servers.
    pub async fn with(servers: Value) -> Self {
        Self::start(servers, Setup::default()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// One with a single server, called `fake`.
    pub async fn of(server: Value) -> Self {
        Self::with(json!({"fake": server})).await
    }

    pub async fn start(servers: Value, setup: Setup) -> Result<Self, StartError> {
        let folder = Folder::new();
        let text = json!({"mcpServers": servers}).to_string();
        folder.write("servers.json", &format!("// as clients write it\n{text}"));
        let config =
            config(&folder.path("servers.json"), &setup).unwrap_or_else(|problems| panic!("{problems}"));
        let app = App::bind(&config).await?;
        let (address, hub) = (app.address(), Arc::clone(app.hub()));
        let (stop, stopped) = mpsc::channel(2);
        let (hang_up, hang_ups) = mpsc::channel(1);
        let servers = folder.path("servers.json");
        let app = app.reloads(move || self::config(&servers, &setup), hang_ups);
        let running = tokio::spawn(app.run(stopped));
        Ok(Self { address, hub, folder, hang_up, stop, running })
    }

    /// Other servers are configured.
    pub fn write(&self, servers: &Value) {
        self.folder.write("servers.json", &json!({"mcpServers": servers}).to_string());
    }

    pub async fn client(&self) -> Client {
        self.client_as(None).await
    }

    /// A client with a token.
    pub async fn client_as(&self, token: Option<&str>) -> Client {
        self.client_that(token, &json!({})).await
    }

    /// A client that declares what it can be asked for.
    pub async fn client_that(&self, token: Option<&str>, capabilities: &Value) -> Client {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("sec-websocket-protocol", "mcp")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let wire = Wire::open(self.address, "/", &headers).await.unwrap();
        let mut client = Client { wire, last: 0 };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}});
        client.ask("initialize", &hello).await;
        client
    }

    /// What `doctor` says of a server.
    pub fn server(&self, name: &str) -> Value {
        let found = self.hub.doctor();
        let servers = found["servers"].as_array().unwrap().clone();
        servers
            .into_iter()
            .find(|server| server["name"] == name)
            .unwrap_or_else(|| panic!("no {name}: {found}"))
    }

    /// Waits until `doctor` says this of a server, by JSON pointer.
    pub async fn server_shows(&self, name: &str, pointer: &str, is: impl Fn(&Value) -> bool) {
        until(&format!("{pointer} of {name}"), || self.server(name).pointer(pointer).is_some_and(&is)).await;
    }

    pub async fn has_waiters(&self, waiters: u64) {
        let shown = || self.hub.calls.server_stats()["waiters"].as_u64();
        until("waiters", || shown() == Some(waiters)).await;
    }

    pub async fn ended(self) -> Drained {
        self.stop.try_send(()).unwrap();
        within("the end of the daemon", self.running).await.unwrap()
    }
}

/// The configuration of a daemon in this folder.
pub fn config(servers: &str, setup: &Setup) -> Result<Config, Problems> {
    let mut flags = vec![
        ("INFLIGHTD_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("LOG_LEVEL".to_owned(), "error".to_owned()),
        ("MCP_SERVERS_FILE".to_owned(), servers.to_owned()),
        ("MCP_SERVERS_WAIT_SECS".to_owned(), "15".to_owned()),
    ];
    flags.extend(setup.keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let sources = Sources {
        flags: flags.into_iter().collect(),
        toml: setup.toml.parse().unwrap(),
        environment: [("PATH", "/usr/bin:/bin"), ("KIMI_API_KEY", "sk-secret-of-ours"), ("TENANT", "t1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Sources::default()
    };
    config::resolve(sources).map(|loaded| loaded.config)
}

/// A client of MCP that has initialized.
pub struct Client {
    pub wire: Wire,
    last: u64,
}

impl Client {
    /// Sends a request, and returns its id.
    pub async fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.wire.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        id
    }

    pub async fn answer(&mut self, id: u64) -> Value {
        self.wire.find(|message| message["id"] == id).await
    }

    pub async fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params).await;
        self.answer(id).await
    }

    /// Calls a tool and waits for nothing.
    pub async fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        self.send("tools/call", &json!({"name": tool, "arguments": arguments})).await
    }

    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments).await;
        self.answer(id).await
    }

    /// The text that a tool answers.
    pub async fn text(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments).await;
        text(&answer).to_owned()
    }

    pub async fn cancel(&mut self, id: u64) {
        let params = json!({"requestId": id});
        self.wire
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
            .await;
    }

    /// The names of all tools, page by page.
    pub async fn tools(&mut self) -> Vec<String> {
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let params = cursor.map_or(json!({}), |cursor: Value| json!({"cursor": cursor}));
            let page = self.ask("tools/list", &params).await;
            let tools = page["result"]["tools"].as_array().unwrap_or_else(|| panic!("{page}"));
            names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
            match page["result"].get("nextCursor") {
                Some(next) => cursor = Some(next.clone()),
                None => return names,
            }
        }
    }

    /// The next frame as it came, unread.
    pub async fn raw(&mut self) -> String {
        loop {
            match within("a frame", self.wire.socket.next()).await.unwrap().unwrap() {
                Message::Text(text) => return text.to_string(),
                other => drop(other),
            }
        }
    }
}

pub fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

/// The code of a failed call.
pub fn code(answer: &Value) -> &str {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["_meta"]["inflightd/error"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no code in {answer}"))
}

/// What an error of the protocol says to whoever sent parameters that make no sense.
pub fn refusal(answer: &Value) -> &str {
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    answer["error"]["message"].as_str().unwrap()
}

/// How often the fake has been started, by the file it writes its process ids to.
pub fn starts(pids: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(pids).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Whether there is such a process, zombies left out.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
