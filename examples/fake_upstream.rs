//! A small MCP server over stdio for tests and benchmarks, with odd behaviours by flag. Not shipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "it ends at the first surprise, which is what its tests are to see"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Stdout, Write};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputResponses")]
    responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState")]
    state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Cow<'a, str>,
    #[serde(borrow, default)]
    notifications: Wanted<'a>,
}

#[derive(Default, Deserialize)]
struct Wanted<'a> {
    #[serde(borrow, default, rename = "resourceSubscriptions")]
    resources: Vec<Cow<'a, str>>,
}

/// What it plays.
#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|each| each == flag)
    }

    fn value(&self, flag: &str) -> Option<&str> {
        self.0.iter().find_map(|each| each.strip_prefix(flag)?.strip_prefix('='))
    }
}

struct Server {
    flags: Flags,
    out: BufWriter<Stdout>,
    extra: usize,
    generation: usize,
    held: BTreeMap<String, String>,
    cancelled: Vec<String>,
    calls: usize,
    /// What its own questions were answered with.
    answers: Vec<String>,
    /// Its own questions that are open, and the calls that wait for the answers.
    asked: BTreeMap<String, String>,
    /// What its client declared.
    declared: String,
    listening: Option<String>,
    /// Resources whose changes are told.
    watched: Vec<String>,
}

fn main() {
    let flags = Flags(std::env::args().skip(1).collect());
    if let Some(path) = flags.value("--pids") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(&file, "{}", std::process::id()).unwrap();
    }
    if let Some(code) = flags.value("--exit") {
        eprintln!("I do not like it here");
        std::process::exit(code.parse().unwrap());
    }
    if flags.has("--flood-stderr") {
        std::thread::spawn(|| {
            let mut stderr = std::io::stderr().lock();
            let line = format!("{}\n", "blah ".repeat(2000));
            while stderr.write_all(line.as_bytes()).is_ok() {}
        });
    }
    let extra = flags.value("--tools").map_or(0, |text| text.parse().unwrap());
    let mut server = Server {
        flags,
        out: BufWriter::new(std::io::stdout()),
        extra,
        generation: 0,
        held: BTreeMap::new(),
        cancelled: Vec::new(),
        calls: 0,
        answers: Vec::new(),
        asked: BTreeMap::new(),
        declared: String::new(),
        listening: None,
        watched: Vec::new(),
    };
    let mut input = BufReader::with_capacity(64 * 1024, std::io::stdin());
    let mut line = String::new();
    loop {
        if input.buffer().is_empty() {
            server.out.flush().unwrap();
        }
        line.clear();
        if input.read_line(&mut line).unwrap_or(0) == 0 {
            break;
        }
        server.take(&line);
    }
    while server.flags.has("--stays") {
        std::thread::park();
    }
}

impl Server {
    fn take(&mut self, line: &str) {
        let message: Message<'_> = serde_json::from_str(line).expect("a message of ours");
        if self.flags.has("--garbage") {
            self.say("starting up…\n{\"jsonrpc\":\"2.0\"\n[1,2]\n\u{1}\n{\"id\":null}");
        }
        if self.flags.has("--strangers") {
            self.say("{\"jsonrpc\":\"2.0\",\"id\":424242,\"result\":{}}");
        }
        let Some(id) = message.id.map(RawValue::get) else {
            if message.method == "notifications/cancelled" {
                self.cancelled.push(message.params.request_id.unwrap().get().to_owned());
            }
            return;
        };
        if message.method.is_empty() {
            match self.asked.remove(id) {
                Some(call) => self.text(&call, line.trim()),
                None => self.answers.push(line.trim().to_owned()),
            }
            return;
        }
        if let Some(declared) = message.params.capabilities {
            declared.get().clone_into(&mut self.declared);
        }
        if self.flags.has("--mute") {
            return;
        }
        match &*message.method {
            "server/discover" => self.discover(id),
            "initialize" => {
                let others = self.others();
                self.result(
                    id,
                    &format!(
                        "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{{\"tools\":{{\"listChanged\":true}}{others}}},\
                         \"serverInfo\":{{\"name\":\"fake\",\"version\":\"1\"}}"
                    ),
                );
            }
            _ if (self.flags.has("--serves") || self.flags.has("--tells"))
                && self.serves(id, &message.method, line) => {}
            "tools/list" => self.list(id, message.params.cursor.as_deref()),
            "tools/call" => self.call(id, &message.params),
            "subscriptions/listen" => self.listen(id, &message.params.notifications),
            _ => self.error(id, -32601, "no such method"),
        }
        if self.flags.has("--does-not-read") && message.method == "tools/list" {
            self.out.flush().unwrap();
            loop {
                std::thread::park();
            }
        }
    }

    fn others(&self) -> &'static str {
        if self.flags.has("--tells") {
            ",\"prompts\":{},\"resources\":{\"subscribe\":true},\"completions\":{}"
        } else if self.flags.has("--serves") {
            ",\"prompts\":{},\"resources\":{},\"completions\":{}"
        } else {
            ""
        }
    }

    fn discover(&mut self, id: &str) {
        if self.flags.has("--dies-at-probe") {
            std::process::exit(1);
        }
        if self.flags.has("--stateless") {
            let others = self.others();
            self.result(
                id,
                &format!(
                    "\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{{\"tools\":{{}}{others}}},\"_meta\":\
                     {{\"io.modelcontextprotocol/serverInfo\":{{\"name\":\"fake\",\"version\":\"2\"}}}}"
                ),
            );
        } else {
            self.error(id, -32601, "no such method");
        }
    }

    fn list(&mut self, id: &str, cursor: Option<&str>) {
        const PAGE: usize = 100;
        let own = [
            ("echo", json!({"text": {"type": "string"}}), "read"),
            ("raw", json!({}), "read"),
            ("hold", json!({"key": {"type": "string"}}), "read"),
            ("put", json!({"key": {"type": "string"}}), ""),
            ("release", json!({"key": {"type": "string"}}), ""),
            ("progress", json!({}), ""),
            ("die", json!({}), ""),
            ("fail", json!({}), "read"),
            ("refuse", json!({}), "read"),
            ("env", json!({"name": {"type": "string"}}), ""),
            ("pid", json!({}), ""),
            ("about", json!({}), ""),
            ("big", json!({"bytes": {"type": "integer"}}), "read"),
            ("change", json!({"tools": {"type": "integer"}}), ""),
            ("ask", json!({}), ""),
            ("wait_for", json!({"path": {"type": "string"}}), ""),
            ("inquire", json!({}), ""),
            ("look", json!({}), "read"),
            ("withdraw", json!({}), ""),
            ("storm", json!({"times": {"type": "integer"}}), ""),
            ("touch", json!({"uri": {"type": "string"}, "times": {"type": "integer"}}), ""),
        ];
        let own = own.map(|(name, properties, effect)| {
            let read = effect == "read";
            json!({"name": name, "description": format!("{name} of a fake, {}", self.generation), "title": "T",
                "inputSchema": {"type": "object", "properties": properties},
                "annotations": {"readOnlyHint": read}, "x-unknown": [1]})
        });
        let extra =
            (0..self.extra).map(|n| json!({"name": format!("extra_{n}"), "inputSchema": {"type": "object"}}));
        let all: Vec<Value> = own.into_iter().chain(extra).collect();
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let page = all.get(from..all.len().min(from + PAGE)).unwrap();
        let mut text = format!("\"tools\":{}", Value::from(page));
        if from + PAGE < all.len() {
            write!(text, ",\"nextCursor\":\"{}\"", from + PAGE).unwrap();
        }
        self.result(id, &text);
    }

    /// Prompts, resources and completions; says whether it was one of these.
    fn serves(&mut self, id: &str, method: &str, line: &str) -> bool {
        let message: Message<'_> = serde_json::from_str(line).unwrap();
        let params = message.params;
        let own = self.flags.value("--own").unwrap_or("x").to_owned();
        match method {
            "prompts/list" => {
                let generation = self.generation;
                let more = |n| format!(",{{\"name\":\"more_{n}\"}}");
                let many = (0..generation).map(more).collect::<Vec<_>>().concat();
                self.result(id, &format!("\"prompts\":[{{\"title\":\"T\",\"name\":\"greet\",\"big\":18446744073709551616}}{many}]"));
            }
            "resources/list" if params.cursor.is_none() => self.result(
                id,
                &format!("\"resources\":[{{\"uri\":\"{own}://one\",\"name\":\"one\",\"size\":1.50}}],\"nextCursor\":\"2\""),
            ),
            "resources/list" => self.result(id, "\"resources\":[{\"uri\":\"both://here\",\"name\":\"b\"}]"),
            "resources/templates/list" => self.result(
                id,
                &format!("\"resourceTemplates\":[{{\"uriTemplate\":\"{own}://item/{{id}}\",\"name\":\"items\"}}]"),
            ),
            "resources/read" if params.uri.ends_with("hold") => {
                self.held.insert(id.to_owned(), params.uri.into_owned());
            }
            "resources/read" | "resources/subscribe" if params.uri.ends_with("none") => self.error(id, -32002, "no such thing"),
            "resources/read" => {
                let (uri, pid) = (Value::from(&*params.uri), std::process::id());
                self.result(id, &format!("\"contents\":[{{\"uri\":{uri},\"text\":\"of {own}\",\"pid\":{pid},\"odd\":1.50e+07}}]"));
            }
            "resources/subscribe" | "resources/unsubscribe" => {
                self.watched.retain(|watched| *watched != params.uri);
                if method == "resources/subscribe" {
                    self.watched.push(params.uri.into_owned());
                }
                self.result(id, "");
            }
            "prompts/get" | "completion/complete" => {
                let text = Value::from(line.trim());
                self.result(id, &format!("\"messages\":[],\"saw\":{text}"));
            }
            _ => return false,
        }
        true
    }

    fn call(&mut self, id: &str, params: &Params<'_>) {
        let raw = params.arguments.map_or("{}", RawValue::get);
        let meta = params.meta.map_or("{}", RawValue::get);
        if params.name == "echo" {
            #[derive(Deserialize)]
            struct Echo<'a> {
                #[serde(borrow)]
                text: &'a RawValue,
            }
            let echo: Echo<'_> = serde_json::from_str(raw).unwrap();
            return self
                .result(id, &format!("\"content\":[{{\"type\":\"text\",\"text\":{}}}]", echo.text.get()));
        }
        let arguments: Value = serde_json::from_str(raw).unwrap();
        let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        self.calls += 1;
        match &*params.name {
            "raw" => {
                let own = "\"big\":18446744073709551616,\"odd\":[1.50e+07,-0,1E2],\"_meta\":{\"x\":1},\"unknown\":{\"b\":1,\"a\":2}";
                self.result(id, &format!("\"content\":[],\"arguments\":{raw},\"meta\":{meta},{own}"));
            }
            "hold" | "put" => {
                self.held.insert(id.to_owned(), text("key"));
            }
            "release" => {
                let key = text("key");
                let held = std::mem::take(&mut self.held);
                let (gone, stay): (BTreeMap<_, _>, _) = held.into_iter().partition(|(_, each)| *each == key);
                self.held = stay;
                for held in gone.keys() {
                    self.text(held, &format!("released {key}"));
                }
                self.text(id, &gone.len().to_string());
            }
            "progress" => {
                let meta: Value = serde_json::from_str(meta).unwrap();
                let token = &meta["progressToken"];
                for progress in ["0.5", "2", "1", "2", "3.25"] {
                    self.say(&format!(
                        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\
                         \"progress\":{progress},\"total\":4,\"message\":\"at {progress}\"}}}}"
                    ));
                }
                self.out.flush().unwrap();
                self.text(id, "done");
            }
            "wait_for" => {
                while !std::path::Path::new(&text("path")).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                self.text(id, "it is there");
            }
            "die" => std::process::exit(7),
            "fail" => {
                self.result(id, "\"isError\":true,\"content\":[{\"type\":\"text\",\"text\":\"it failed\"}]");
            }
            "refuse" => self.error(id, -32602, "not like this"),
            "env" => self.text(id, &std::env::var(text("name")).unwrap_or_default()),
            "pid" => self.text(id, &std::process::id().to_string()),
            "about" => {
                let about = json!({"cancelled": self.cancelled, "held": self.held.len(), "calls": self.calls,
                    "answers": self.answers, "watched": self.watched, "declared": self.declared});
                self.text(id, &about.to_string());
            }
            "big" => self.text(id, &"x".repeat(arguments["bytes"].as_u64().unwrap().try_into().unwrap())),
            "change" => {
                self.extra = arguments["tools"].as_u64().unwrap().try_into().unwrap();
                self.generation += 1;
                self.say("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
                self.text(id, "changed");
            }
            // Asks what the arguments say, under ids that every process of it counts alike, and answers with what it hears.
            "inquire" | "look" if self.flags.has("--stateless") => self.require(id, raw, params),
            "inquire" | "look" => self.inquire(id, raw),
            "withdraw" => self.withdraw(id),
            // More questions than anybody answers, then the answer to its call.
            "storm" => {
                for n in 0..arguments["times"].as_u64().unwrap() {
                    self.say(&format!(
                        "{{\"jsonrpc\":\"2.0\",\"id\":\"storm {n}\",\"method\":\"elicitation/create\",\"params\":{{}}}}"
                    ));
                }
                self.held.insert(id.to_owned(), "storm".to_owned());
            }
            // A resource has changed, or the parts of it that are counted behind it.
            "touch" => self.touched(id, &text("uri"), arguments["times"].as_u64().unwrap_or(0)),
            "ask" => {
                for (own, method) in
                    [("\"p\"", "ping"), ("\"r\"", "roots/list"), ("\"s\"", "sampling/createMessage")]
                {
                    self.say(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{own},\"method\":\"{method}\"}}"));
                }
                self.text(id, "asked");
            }
            name => self.text(id, name),
        }
    }

    fn listen(&mut self, id: &str, wanted: &Wanted<'_>) {
        self.listening = Some(id.to_owned());
        let kept = wanted.resources.iter().filter(|uri| !uri.ends_with("none"));
        self.watched = kept.map(|uri| uri.clone().into_owned()).collect();
        self.say(&format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{\"_meta\":\
             {{\"io.modelcontextprotocol/subscriptionId\":{id}}},\"notifications\":{{\"resourceSubscriptions\":{}}}}}}}",
            json!(self.watched)
        ));
    }

    fn touched(&mut self, id: &str, uri: &str, parts: u64) {
        self.touch(uri);
        (0..parts).for_each(|part| self.touch(&format!("{uri}/{part}")));
        self.text(id, "touched");
    }

    fn touch(&mut self, uri: &str) {
        if self.watched.iter().any(|watched| uri.starts_with(watched)) {
            let id = self.listening.as_deref().unwrap_or("null");
            self.say(&format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{{\"_meta\":\
                 {{\"io.modelcontextprotocol/subscriptionId\":{id}}},\"uri\":{}}}}}",
                json!(uri)
            ));
        }
    }

    fn withdraw(&mut self, id: &str) {
        for (own, call) in std::mem::take(&mut self.asked) {
            self.say(&format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{own}}}}}"
            ));
            self.text(&call, "never mind");
        }
        self.text(id, "withdrawn");
    }

    fn inquire(&mut self, id: &str, raw: &str) {
        #[derive(Deserialize)]
        struct Inquiry<'a> {
            #[serde(borrow)]
            method: Cow<'a, str>,
            #[serde(borrow, default)]
            params: Option<&'a RawValue>,
        }
        let inquiry: Inquiry<'_> = serde_json::from_str(raw).unwrap();
        let own = (self.asked.len() + 1).to_string();
        let params = inquiry.params.map_or("{}", RawValue::get);
        self.say(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{own},\"method\":\"{}\",\"params\":{params}}}",
            inquiry.method
        ));
        self.asked.insert(own, id.to_owned());
    }

    /// The same by results: as often as `times` says; the last answer says all that came.
    fn require(&mut self, id: &str, raw: &str, params: &Params<'_>) {
        let arguments: Value = serde_json::from_str(raw).unwrap();
        let times = arguments["times"].as_u64().unwrap_or(1);
        let state: Option<String> = params.state.map(|state| serde_json::from_str(state.get()).unwrap());
        let round = state.as_ref().map_or(0, |state| state.rsplit_once(' ').unwrap().1.parse().unwrap());
        if round < times {
            let asked = json!({"method": arguments["method"], "params": arguments["params"]});
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"input_required\",\"x\":1.50,\"inputRequests\":\
                 {{\"the question\":{asked}}},\"requestState\":\"état {}\"}}}}",
                round + 1
            );
            return self.say(&line);
        }
        let get = |raw: Option<&RawValue>| raw.map_or("null", RawValue::get).to_owned();
        let (responses, meta) = (get(params.responses), get(params.meta));
        let said = format!("{{\"responses\":{responses},\"state\":{},\"meta\":{meta}}}", json!(state));
        self.text(id, &said);
    }

    fn text(&mut self, id: &str, text: &str) {
        self.result(id, &format!("\"content\":[{{\"type\":\"text\",\"text\":{}}}]", Value::from(text)));
    }

    fn result(&mut self, id: &str, members: &str) {
        let kind = match (self.flags.has("--stateless"), members) {
            (true, "") => "\"resultType\":\"complete\"",
            (true, _) => "\"resultType\":\"complete\",",
            (false, _) => "",
        };
        let line = format!("{{\"result\":{{{kind}{members}}},\"jsonrpc\":\"2.0\",\"id\":{id}}}");
        self.say(&line);
        if self.flags.has("--twice") {
            self.say(&line);
        }
    }

    fn error(&mut self, id: &str, code: i32, message: &str) {
        let message = Value::from(message);
        self.say(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}"
        ));
    }

    fn say(&mut self, line: &str) {
        self.out.write_all(line.as_bytes()).unwrap();
        self.out.write_all(b"\n").unwrap();
    }
}
