//! A WebSocket client that shows what it hears, close codes too.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::within;

/// What a client hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Json(Value),
    Close(u16),
    /// The connection ended without a close frame.
    Gone,
}

/// One WebSocket.
#[derive(Debug)]
pub struct Wire {
    pub socket: WebSocketStream<TcpStream>,
    early: Vec<Value>,
}

impl Wire {
    /// Connects; the error is the HTTP status that came instead.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::upgrade(stream, address, path, headers).await
    }

    /// The same over a stream that is there.
    pub async fn upgrade(
        stream: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, HeaderValue::try_from(*value).unwrap());
        }
        match within("the handshake", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self { socket, early: Vec::new() }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, json: &Value) {
        self.say(&json.to_string()).await;
    }

    /// Sends a text as it is.
    pub async fn say(&mut self, text: &str) {
        self.message(Message::text(text)).await;
    }

    pub async fn message(&mut self, message: Message) {
        within("room to send", self.socket.send(message)).await.unwrap();
    }

    /// Sends bytes below the WebSocket: frames that no client library would make.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        within("room to send", self.socket.get_mut().write_all(bytes)).await.unwrap();
    }

    /// The next thing, pings and pongs left out.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Heard::Json(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Close(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Gone,
            }
        }
    }

    /// The first object of which `wanted` holds; the others are kept for later.
    pub async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.early.iter().position(&wanted) {
            return self.early.remove(place);
        }
        loop {
            match self.hear().await {
                Heard::Json(json) if wanted(&json) => return json,
                Heard::Json(json) => self.early.push(json),
                other => panic!("{other:?} instead of an answer; before: {:?}", self.early),
            }
        }
    }

    /// The code with which the daemon closes, whatever it says before.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.hear().await {
                Heard::Json(_) => {}
                Heard::Close(code) => return code,
                Heard::Gone => panic!("the connection went without a close frame"),
            }
        }
    }

    /// What was heard and not asked for.
    pub fn unasked(&self) -> &[Value] {
        &self.early
    }
}
