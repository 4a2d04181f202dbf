//! Says back what it hears, over the daemon's own handshake and frames: what the Autobahn suite talks to, and nothing
//! else. Not shipped. Prints its address.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool of tests")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;

use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use inflightd::http::{Answered, whole};
use inflightd::listener::handshake;
use inflightd::session::{Outbox, Paced, Wire, broken};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The longest message of the suite has 16 MiB.
const MESSAGE_BYTES: usize = 32 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let serving = http1::Builder::new()
                .serve_connection(TokioIo::new(Paced::new(stream)), service_fn(upgrade))
                .with_upgrades();
            // A client that breaks off is the suite's own affair.
            let _ = serving.await;
        });
    }
}

async fn upgrade(mut request: Request<Incoming>) -> Result<Answered, Infallible> {
    let Ok(Some(upgrade)) = handshake::read(&request) else {
        let mut refused = Response::new(whole(Bytes::new()));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let Some((stream, came)) = handshake::taken_over(upgraded) else { return };
        echo(Wire::new(stream, came, MESSAGE_BYTES, Outbox::new(MESSAGE_BYTES))).await;
    });
    Ok(upgrade.answer())
}

/// What was read together is answered together, as a session does it.
async fn echo(mut wire: Wire<Paced<TcpStream>>) {
    loop {
        let heard = poll_fn(|cx| match wire.poll_message(cx) {
            Poll::Pending => match wire.poll_flush(cx) {
                Poll::Ready(Err(gone)) => Poll::Ready(Some(Err(gone.into()))),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
            heard @ Poll::Ready(_) => heard,
        });
        match heard.await {
            Some(Ok(message)) => say(&mut wire, message),
            Some(Err(error)) => return wire.good_bye(broken(&error)).await,
            None => return,
        }
        if wire.outbox.is_full() && poll_fn(|cx| wire.poll_flush(cx)).await.is_err() {
            return;
        }
    }
}

fn say(wire: &mut Wire<Paced<TcpStream>>, message: Message) {
    match message {
        Message::Text(text) => wire.outbox.push(&text),
        Message::Binary(bytes) => {
            // The daemon itself says nothing in binary.
            let mut frame = Vec::with_capacity(bytes.len() + 10);
            if Frame::message(bytes, OpCode::Data(Data::Binary), true).format(&mut frame).is_ok() {
                wire.outbox.raw(&frame);
            }
        }
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
    }
}
