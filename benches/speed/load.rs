//! The generator: one thread, one epoll, sockets that never block.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::post;
use crate::wire::{self, CHAT, ECHO, INITIALIZE, INITIALIZED, Inbox, KEPT, Reader, Tool, UPSTREAM};

/// Longer than any answer may take: a server that lost a call ends the benchmark here.
const PATIENCE: Duration = Duration::from_secs(20);
/// No wait at all.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// How messages go to a server and come back.
enum Door {
    /// A frame each, in the older era.
    Socket,
    /// A request and its answer each, in the newer era; behind this head.
    Post(String),
}

/// One connection, initialised.
pub struct Peer {
    door: Door,
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    message: Vec<u8>,
    reader: Reader,
    waiting: Vec<(u64, Instant)>,
}

impl Peer {
    fn new(port: u16, door: Door) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self {
            door,
            stream,
            inbox: Inbox::new(),
            out: Vec::with_capacity(4096),
            message: Vec::with_capacity(256),
            reader: Reader::default(),
            waiting: Vec::new(),
        })
    }

    /// Connects for calls of [`ECHO`] over `POST /mcp`.
    pub fn connect_post(port: u16) -> std::io::Result<Self> {
        Self::new(port, Door::Post(post::head(port, ECHO.name)))
    }

    /// Connects, upgrades and initialises; blocking.
    pub fn connect(port: u16) -> std::io::Result<Self> {
        let mut peer = Self::new(port, Door::Socket)?;
        peer.stream.write_all(wire::upgrade(port).as_bytes())?;
        let head = loop {
            if let Some(head) = peer.inbox.http_head() {
                break head;
            }
            peer.fill()?;
        };
        wire::check_upgrade(&head);
        wire::push_text(&mut peer.out, INITIALIZE.as_bytes());
        peer.flush();
        let answer = peer.wait_for(0)?;
        assert!(wire::find(&answer, b"2025-11-25").is_some(), "{}", String::from_utf8_lossy(&answer));
        wire::push_text(&mut peer.out, INITIALIZED.as_bytes());
        peer.flush();
        Ok(peer)
    }

    /// One call, from question to checked answer; blocking.
    pub fn call(&mut self, id: u64) {
        let text = wire::text_of(id);
        self.ask(id, ECHO, &text);
        self.flush();
        let answer = self.wait_for(id).expect("an answer");
        self.waiting.clear();
        self.reader.check_text(&answer, &text);
    }

    /// Sends a message that stands alone on a line; the answer, where it is a request.
    pub fn pass(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        wire::push_text(&mut self.out, message);
        self.flush();
        let id = self.reader.id(message)?;
        Some(self.wait_for(id).unwrap())
    }

    fn wait_for(&mut self, id: u64) -> std::io::Result<Vec<u8>> {
        loop {
            while let Some(range) = self.next_message() {
                let answer = self.inbox.bytes(range);
                if self.reader.id(answer) == Some(id) {
                    return Ok(answer.to_vec());
                }
            }
            self.fill()?;
        }
    }

    fn ask(&mut self, id: u64, tool: Tool, text: &[u8]) {
        match &self.door {
            Door::Socket => {
                wire::write_call(&mut self.message, id, tool, text, "");
                wire::push_text(&mut self.out, &self.message);
            }
            Door::Post(head) => {
                wire::write_call(&mut self.message, id, tool, text, post::META);
                post::push(&mut self.out, head, &self.message);
            }
        }
        self.waiting.push((id, Instant::now()));
    }

    /// The next whole message that came.
    fn next_message(&mut self) -> Option<Range<usize>> {
        match self.door {
            Door::Socket => self.inbox.message(&mut self.out),
            Door::Post(_) => self.inbox.posted(),
        }
    }

    /// Reads once what is there.
    fn fill(&mut self) -> std::io::Result<()> {
        let count = self.stream.read(self.inbox.space())?;
        self.inbox.filled(count);
        Ok(())
    }

    fn flush(&mut self) {
        let mut rest = self.out.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                // A few KiB find room in any socket buffer; if not, the server is about to read.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("the server ended the connection: {error}"),
            }
        }
        self.out.clear();
    }

    /// When the call that `answer` answers was asked; `None` for a notification.
    fn settle(&mut self, id: Option<u64>) -> Option<(u64, Instant)> {
        let id = id?;
        let at = self.waiting.iter().position(|&(asked, _)| asked == id);
        Some(self.waiting.swap_remove(at.expect("an answer that nobody waits for")))
    }
}

/// What a closed loop asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Each call something that nobody asked before.
    Distinct,
    /// Each connection always the same, of a tool whose answers are kept.
    Kept,
    /// Each call a question of its own to a model.
    Model,
    /// Each call something new, of a tool that a server behind the daemon has.
    Upstream,
}

impl Asks {
    fn tool(self) -> Tool {
        match self {
            Self::Distinct => ECHO,
            Self::Kept => KEPT,
            Self::Model => CHAT,
            Self::Upstream => UPSTREAM,
        }
    }

    /// The text of the call `id` on the connection `at`.
    fn text(self, at: usize, id: u64) -> [u8; 16] {
        match self {
            Self::Distinct | Self::Model | Self::Upstream => wire::text_of(id),
            // Behind all ids, so that it is nobody else's.
            Self::Kept => wire::text_of((1 << 48) + at as u64),
        }
    }
}

/// What one closed loop saw.
pub struct Ran {
    /// Calls answered.
    pub calls: u64,
    /// Those that say in their `_meta` that their answer was kept.
    pub hits: u64,
    /// From the first question to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds of each call.
    pub latencies: Vec<u32>,
}

/// What groups of equal calls saw.
pub struct Joined {
    /// Calls answered.
    pub calls: u64,
    /// Those that say in their `_meta` that they joined.
    pub followers: u64,
}

/// Connections that ask the same.
struct Group {
    text: [u8; 16],
    pending: usize,
}

/// What one burst of equal calls saw.
pub struct Burst {
    /// Between the first and the last answer.
    pub spread: Duration,
    /// Answers that say so in their `_meta`.
    pub leaders: usize,
    /// Answers that say so in their `_meta`.
    pub followers: usize,
}

/// Connections to one server.
pub struct Load {
    epoll: OwnedFd,
    peers: Vec<Peer>,
    next_id: u64,
}

impl Load {
    /// Opens `count` connections and makes one fully checked call on each.
    pub fn open(port: u16, count: usize) -> Self {
        Self::of(count, || Peer::connect(port))
    }

    /// The same over `POST /mcp`.
    pub fn open_post(port: u16, count: usize) -> Self {
        Self::of(count, || Peer::connect_post(port))
    }

    fn of(count: usize, connect: impl Fn() -> std::io::Result<Peer>) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut load = Self { epoll, peers: Vec::with_capacity(count), next_id: 1 };
        for at in 0..count {
            let mut peer = connect().unwrap();
            let id = load.next_id();
            let text = wire::text_of(id);
            peer.ask(id, ECHO, &text);
            peer.flush();
            let content = wire::content_of(&peer.wait_for(id).unwrap());
            peer.waiting.clear();
            assert!(wire::find(content.as_bytes(), &text).is_some(), "echo said {content}");
            peer.stream.set_nonblocking(true).unwrap();
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&load.epoll, &peer.stream, data, epoll::EventFlags::IN).unwrap();
            load.peers.push(peer);
        }
        load
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// It looks again and again and never sleeps: waking it up would be the server's processor time, and the more the
    /// less often it answers.
    fn ready(&self, events: &mut Vec<epoll::Event>) {
        events.clear();
        let until = Instant::now() + PATIENCE;
        while events.is_empty() {
            epoll::wait(&self.epoll, spare_capacity(events), Some(&NOW)).unwrap();
            assert!(Instant::now() < until, "no answer within {} s", PATIENCE.as_secs());
        }
    }

    /// Keeps `depth` calls in flight on each connection for `duration`, then waits for the rest.
    pub fn closed_loop(&mut self, asks: Asks, depth: usize, duration: Duration) -> Ran {
        let mut events = Vec::with_capacity(64);
        let mut latencies = Vec::with_capacity(1 << 20);
        let began = Instant::now();
        let until = began + duration;
        for at in 0..self.peers.len() {
            for _ in 0..depth {
                self.ask_next(asks, at);
            }
            self.peers[at].flush();
        }
        let mut hits = 0;
        let mut pending = self.peers.len() * depth;
        while pending > 0 {
            self.ready(&mut events);
            for event in &events {
                let at = event.data.u64() as usize;
                self.peers[at].fill().unwrap();
                let now = Instant::now();
                while let Some((asked, was_kept)) = self.checked(asks, at) {
                    pending -= 1;
                    hits += u64::from(was_kept);
                    latencies.push((now - asked).as_nanos() as u32);
                    if now < until {
                        self.ask_next(asks, at);
                        pending += 1;
                    }
                }
                self.peers[at].flush();
            }
        }
        Ran { calls: latencies.len() as u64, hits, elapsed: began.elapsed(), latencies }
    }

    fn ask_next(&mut self, asks: Asks, at: usize) {
        let id = self.next_id();
        self.peers[at].ask(id, asks.tool(), &asks.text(at, id));
    }

    /// The next whole answer of a connection, checked: when it was asked for, and whether it was kept.
    fn checked(&mut self, asks: Asks, at: usize) -> Option<(Instant, bool)> {
        let peer = &mut self.peers[at];
        loop {
            let range = peer.next_message()?;
            let answer = peer.inbox.bytes(range.clone());
            let id = peer.reader.id(answer);
            if let Some((id, asked)) = peer.settle(id) {
                let answer = peer.inbox.bytes(range);
                peer.reader.check_text(answer, &asks.text(at, id));
                let was_kept = asks == Asks::Kept && peer.reader.has_role(answer, wire::CACHE);
                return Some((asked, was_kept));
            }
        }
    }

    /// Groups of `size` connections; those of a group ask the same at once, and the next as soon as all of them
    /// have their answer. Groups know nothing of each other, so that the server need never rest.
    pub fn equal_loop(&mut self, size: usize, duration: Duration) -> Joined {
        let mut events = Vec::with_capacity(64);
        let mut joined = Joined { calls: 0, followers: 0 };
        let until = Instant::now() + duration;
        let mut groups: Vec<Group> =
            (0..self.peers.len() / size).map(|at| self.ask_group(at, size)).collect();
        let mut pending = groups.len();
        while pending > 0 {
            self.ready(&mut events);
            for event in &events {
                let at = event.data.u64() as usize;
                let group = &mut groups[at / size];
                let peer = &mut self.peers[at];
                peer.fill().unwrap();
                while let Some(range) = peer.next_message() {
                    let answer = peer.inbox.bytes(range.clone());
                    let id = peer.reader.id(answer);
                    if peer.settle(id).is_some() {
                        let answer = peer.inbox.bytes(range);
                        peer.reader.check_text(answer, &group.text);
                        joined.followers += u64::from(peer.reader.has_role(answer, wire::FOLLOWER));
                        joined.calls += 1;
                        group.pending -= 1;
                    }
                }
                peer.flush();
                if group.pending == 0 {
                    if Instant::now() < until {
                        groups[at / size] = self.ask_group(at / size, size);
                    } else {
                        pending -= 1;
                    }
                }
            }
        }
        joined
    }

    fn ask_group(&mut self, group: usize, size: usize) -> Group {
        let text = wire::text_of(self.next_id());
        for at in group * size..(group + 1) * size {
            let id = self.next_id();
            self.peers[at].ask(id, ECHO, &text);
            self.peers[at].flush();
        }
        Group { text, pending: size }
    }

    /// The same new question on every connection at once; the answers are checked once all are there.
    pub fn burst(&mut self, tool: Tool) -> Burst {
        let text = wire::text_of(self.next_id());
        for at in 0..self.peers.len() {
            let id = self.next_id();
            self.peers[at].ask(id, tool, &text);
            self.peers[at].flush();
        }
        let mut events = Vec::with_capacity(64);
        let mut answers = Vec::with_capacity(self.peers.len());
        let mut first = None;
        let mut last = Instant::now();
        while answers.len() < self.peers.len() {
            self.ready(&mut events);
            for event in &events {
                let peer = &mut self.peers[event.data.u64() as usize];
                peer.fill().unwrap();
                let now = Instant::now();
                while let Some(range) = peer.next_message() {
                    let answer = peer.inbox.bytes(range).to_vec();
                    let id = peer.reader.id(&answer);
                    if peer.settle(id).is_some() {
                        first.get_or_insert(now);
                        last = now;
                        answers.push(answer);
                    }
                }
                peer.flush();
            }
        }
        let content = wire::content_of(&answers[0]);
        for answer in &answers {
            assert!(wire::content_of(answer) == content, "another answer to the same question");
        }
        let role = |role: &[u8]| answers.iter().filter(|answer| wire::find(answer, role).is_some()).count();
        Burst {
            spread: last - first.unwrap_or(last),
            leaders: role(wire::LEADER),
            followers: role(wire::FOLLOWER),
        }
    }
}
