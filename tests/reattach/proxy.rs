//! A TCP proxy between the shim and the daemon that loses connections when told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::stage::PATIENCE;

/// Where the shim connects.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    open: Mutex<Vec<TcpStream>>,
    accepted: Mutex<usize>,
    news: Condvar,
    /// What the daemon sends goes nowhere.
    deaf: AtomicBool,
}

impl Proxy {
    pub fn start(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, accepted, news) = (Mutex::default(), Mutex::new(0), Condvar::new());
        let shared = Arc::new(Shared { open, accepted, news, deaf: AtomicBool::new(false) });
        let carried = Arc::clone(&shared);
        // It ends with the process of the tests.
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                carry(&carried, &near, daemon);
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Until so many connections came.
    pub fn wait_for(&self, connections: usize) {
        let accepted = self.shared.accepted.lock().unwrap();
        let waited = self.shared.news.wait_timeout_while(accepted, PATIENCE, |seen| *seen < connections);
        assert!(!waited.unwrap().1.timed_out(), "nobody connects");
    }

    /// From here on nothing of the daemon arrives, until connections are cut.
    pub fn deafen(&self) {
        self.shared.deaf.store(true, Ordering::Release);
    }

    /// Every connection is lost, on both sides.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.deaf.store(false, Ordering::Release);
    }
}

fn carry(shared: &Arc<Shared>, near: &TcpStream, daemon: SocketAddr) {
    let Ok(far) = TcpStream::connect(daemon) else { return };
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    shared.open.lock().unwrap().extend([clone(near), clone(&far)]);
    let (up, down) = ((clone(near), clone(&far)), (clone(&far), clone(near)));
    let own = Arc::clone(shared);
    thread::spawn(move || pump(up.0, up.1, || false));
    thread::spawn(move || pump(down.0, down.1, || own.deaf.load(Ordering::Acquire)));
    *shared.accepted.lock().unwrap() += 1;
    shared.news.notify_all();
}

fn pump(mut from: TcpStream, mut to: TcpStream, swallows: impl Fn() -> bool) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !swallows() && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
