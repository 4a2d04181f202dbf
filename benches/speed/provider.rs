//! A model service on loopback that answers at once, and the bare loop that a daemon's calls to it are held against.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{BARE, Cores, cpu_of};
use crate::report::quantile;

/// What a question's text stands behind in a request.
const CONTENT: &str = "\"content\":\"";

/// Answers every request on `listener` with the text of its question, streamed, for ever.
pub async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(answer_each(stream));
    }
}

async fn answer_each(mut stream: TcpStream) {
    let mut seen = Vec::with_capacity(4096);
    loop {
        match stream.read_buf(&mut seen).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        let text = String::from_utf8_lossy(&seen);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().split("content-length: ").nth(1).map(|rest| {
            let digits = rest.split("\r\n").next().unwrap_or_default();
            digits.parse::<usize>().unwrap()
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let (_, asked) = body.rsplit_once(CONTENT).expect("a question");
        let answer = streamed(asked.split('"').next().unwrap_or_default());
        seen.clear();
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A whole answer: two events with text, one with the count of tokens, and the end.
fn streamed(text: &str) -> String {
    let (first, second) = text.split_at(text.len() / 2);
    let piece = |text: &str| {
        format!("data: {{\"model\":\"m\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let end = "data: {\"model\":\"m\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\
               \"completion_tokens\":4}}\n\n";
    let mut answer = String::from(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for event in [piece(first).as_str(), &piece(second), end, "data: [DONE]\n\n"] {
        write!(answer, "{:x}\r\n{event}\r\n", event.len()).unwrap();
    }
    answer.push_str("0\r\n\r\n");
    answer
}

/// What one round of the bare loop saw.
pub struct Bare {
    /// Processor time of a call, in microseconds.
    pub cost: f64,
    /// The middle call, in microseconds.
    pub p50: f64,
    /// The slowest of a hundred, in microseconds.
    pub p99: f64,
    /// Calls in a second.
    pub rate: f64,
}

/// Runs the bare loop as a process of its own, on the servers' core.
pub fn bare(cores: Cores, port: u16, connections: usize, duration: Duration) -> Bare {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(BARE).arg(port.to_string()).arg(connections.to_string());
    command.arg(duration.as_millis().to_string()).stdout(Stdio::piped());
    let output = cores.spawn_server(&mut command).wait_with_output().unwrap();
    assert!(output.status.success(), "the bare loop failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let [cost, p50, p99, rate] =
        *text.split_whitespace().map(|each| each.parse().unwrap()).collect::<Vec<f64>>()
    else {
        panic!("no figures: {text}")
    };
    Bare { cost, p50, p99, rate }
}

/// The bare loop: `connections` tasks, each asks and reads the answer to its end, again and again.
pub async fn ask_for(port: u16, connections: u16, duration: Duration) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    ask(&client, port, connections, duration / 10).await;
    let (before, began) = (cpu_of(std::process::id()), Instant::now());
    let mut micros = ask(&client, port, connections, duration).await;
    let elapsed = began.elapsed();
    let cpu = cpu_of(std::process::id()).saturating_sub(before);
    let calls = micros.len() as f64;
    println!(
        "{} {} {} {}",
        cpu.as_secs_f64() * 1e6 / calls,
        quantile(&mut micros, 0.5),
        quantile(&mut micros, 0.99),
        calls / elapsed.as_secs_f64(),
    );
}

async fn ask(client: &reqwest::Client, port: u16, connections: u16, duration: Duration) -> Vec<f64> {
    let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
    let until = Instant::now() + duration;
    let loops: Vec<_> = (0..connections)
        .map(|at| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                let mut micros = Vec::with_capacity(1 << 16);
                while Instant::now() < until {
                    let asked = Instant::now();
                    let body = format!(
                        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",{CONTENT}{at:08x}{:08x}\"}}],\
                         \"stream\":true,\"stream_options\":{{\"include_usage\":true}}}}",
                        micros.len()
                    );
                    let request = client.post(&url).header("authorization", "Bearer k");
                    let request = request.header("content-type", "application/json").body(body);
                    let answer = request.send().await.unwrap().bytes().await.unwrap();
                    assert!(answer.ends_with(b"[DONE]\n\n"), "not a whole answer");
                    micros.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                micros
            })
        })
        .collect();
    let mut all = Vec::new();
    for each in loops {
        all.extend(each.await.unwrap());
    }
    all
}
