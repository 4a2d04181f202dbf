//! A daemon in this process with modules, and one as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use inflightd::app::App;
use inflightd::config::{Sources, resolve};
use inflightd::door::Hub;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::stage::{GUARD, Stage, until, within};

/// A daemon in this process.
pub struct Daemon {
    pub hub: Arc<Hub>,
    address: SocketAddr,
    http: reqwest::Client,
    /// Its daemon is not stopped before the end.
    _stop: mpsc::Sender<()>,
}

/// What came back of a call.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The object that a module's run is told as.
    pub fn told(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(self.body["outputs"][0]["text"].as_str().unwrap()).unwrap()
    }

    /// Why there is none.
    pub fn error(&self) -> (&str, &str) {
        let error = &self.body["error"];
        (error["code"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
    }
}

impl Daemon {
    /// Starts one with this configuration; `$stage` stands for the stage's folder.
    pub async fn start(stage: &Stage, toml: &str) -> Self {
        let toml = toml.replace("$stage", stage.path("").to_str().unwrap().trim_end_matches('/'));
        let flags = [("INFLIGHTD_LISTEN", "127.0.0.1:0"), ("LOG_LEVEL", "error")];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let environment = [("SEEN", "yes ü"), ("HIDDEN", "no")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let working_folder = stage.path("");
        let toml = toml.parse().unwrap();
        let sources = Sources { flags, toml, working_folder, environment, ..Sources::default() };
        let mut config = resolve(sources).unwrap().config;
        config.modules.guard = GUARD.into();
        let app = App::bind(&config).await.unwrap();
        let (address, hub) = (app.address(), Arc::clone(app.hub()));
        let (stop, stopped) = mpsc::channel(1);
        tokio::spawn(app.run(stopped));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { hub, address, http, _stop: stop }
    }

    /// A call, under way at once; aborting it closes its connection.
    pub fn calls(&self, tool: &str, arguments: Value) -> tokio::task::JoinHandle<Answer> {
        let body = json!({"tool": tool, "arguments": arguments});
        let request = self.http.post(format!("http://{}/api/v1/execute", self.address)).json(&body);
        tokio::spawn(async move {
            let response = within("an answer", request.send()).await.unwrap();
            let status = response.status().as_u16();
            Answer { status, body: within("a body", response.json()).await.unwrap() }
        })
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.calls(tool, arguments).await.unwrap()
    }

    /// One module, with these arguments beside.
    pub async fn run(&self, id: &str, more: Value) -> Value {
        let mut arguments = json!({"module_id": id});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.call("run_module", arguments).await.told()
    }

    /// A call over `/mcp` whose progress is seen as it comes.
    pub async fn told(&self, tool: &str, arguments: Value, mut see: impl FnMut(&Value)) -> Value {
        let meta = json!({"progressToken": 1, "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let request = self.http.post(format!("http://{}/mcp", self.address)).json(&message);
        let request =
            request.header("accept", "application/json, text/event-stream").header("mcp-name", tool);
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
        let mut stream = within("an answer", request.send()).await.unwrap();
        let mut text = String::new();
        while let Some(chunk) = within("more", stream.chunk()).await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data =
                    event.split_once("data: ").map(|(_, data)| serde_json::from_str::<Value>(data).unwrap());
                text = rest.to_owned();
                match data {
                    Some(message) if message.get("result").is_some() => return message,
                    Some(message) => see(&message["params"]),
                    None => {}
                }
            }
        }
        panic!("the stream ended without a result: {text}");
    }

    /// Permits of modules in use, and calls that wait for one.
    pub fn modules(&self) -> (usize, usize) {
        let (_, pools) = self.hub.calls.pools();
        let (_, view) = pools.into_iter().find(|(name, _)| &**name == "modules").unwrap();
        (view.in_use, view.queued)
    }

    /// Waits until nothing is under way, and holds that all came back.
    pub async fn is_at_rest(&self) {
        until("the end of all work", || self.hub.calls.flights().executions() == 0).await;
        assert_eq!(self.modules(), (0, 0));
        assert_eq!(self.hub.calls.pools().0.in_use, 0);
        assert!(self.hub.calls.composites().iter().all(|(_, view)| view.in_use == 0));
    }
}

/// A daemon of its own, killed at the end of the test.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts one in the stage's folder, where its `inflightd.toml` is.
    pub fn start(stage: &Stage, toml: &str) -> Self {
        let toml = toml.replace("$stage", stage.path("").to_str().unwrap().trim_end_matches('/'));
        std::fs::write(stage.path("inflightd.toml"), toml).unwrap();
        let mut command = Command::new(GUARD);
        command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(stage.path("")).env_clear();
        command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().unwrap().unwrap();
            if let Some((_, behind)) = line.split_once("inflightd listens on ") {
                break behind.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        // Its log is read on, so that it never waits for its reader.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { child, address }
    }

    /// A call whose answer nobody waits for.
    pub fn calls(&self, tool: &str, arguments: Value) -> tokio::task::JoinHandle<()> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({"tool": tool, "arguments": arguments});
        let request = http.post(format!("http://{}/api/v1/execute", self.address)).json(&body);
        tokio::spawn(async move { drop(request.send().await) })
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It fails only when the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
