//! A charger's end of the WebSocket: OCPP-J frames by hand, the wrong ones included.
//!
//! It knows no schemas: a payload is the text that the test wrote, byte for byte.

use std::{
    fmt::{Debug, Display},
    net::SocketAddr,
};

use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use serde_json::{Value, json, value::RawValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, handshake::client::Request},
};

use crate::{Dial, deadline::within};

/// A connected charger.
#[derive(Debug)]
pub struct Station {
    socket: WebSocketStream<Box<dyn Stream>>,
    handshake: Handshake,
    next_id: u32,
}

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for S {}

/// What the handshake's answer said.
#[derive(Debug, Clone)]
pub struct Handshake {
    pub status: u16,
    pub subprotocol: Option<String>,
}

/// The answer to a CALL.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    Result(Value),
    Error { code: String, description: String },
}

impl Called {
    /// The CALLRESULT's payload; a CALLERROR fails the test.
    pub fn result(self) -> Value {
        match self {
            Self::Result(payload) => payload,
            Self::Error { code, description } => panic!("CALLERROR {code}: {description}"),
        }
    }

    /// The CALLERROR's code; a CALLRESULT fails the test.
    pub fn error_code(self) -> String {
        match self {
            Self::Result(payload) => panic!("a CALLRESULT: {payload}"),
            Self::Error { code, .. } => code,
        }
    }
}

/// A CALL of the daemon's.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub id: String,
    pub action: String,
    /// The very text that came.
    pub payload: String,
}

/// What the daemon sent, control frames left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Json(Value),
    /// The connection ended, with this close code where there was one.
    Closed(Option<u16>),
}

impl Station {
    /// Connects as OCPP 1.6J wants it.
    pub async fn connect(ocpp: SocketAddr, station_id: &str) -> Self {
        Self::dial(ocpp, &format!("/ocpp/{station_id}"), Some("ocpp1.6"))
            .await
            .expect("a WebSocket handshake")
    }

    /// Connects to any path, and offers these subprotocols or none.
    pub async fn dial(
        ocpp: SocketAddr,
        path: &str,
        subprotocols: Option<&str>,
    ) -> Result<Self, tungstenite::Error> {
        Dial::at(ocpp, path).offering(subprotocols).connect().await
    }

    pub(crate) async fn shake_hands(
        stream: Box<dyn Stream>,
        request: Request,
    ) -> Result<Self, tungstenite::Error> {
        let (socket, answer) = within("the handshake", client_async(request, stream)).await?;
        let subprotocol = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
        let handshake = Handshake {
            status: answer.status().as_u16(),
            subprotocol: subprotocol.map(|value| value.to_str().expect("ASCII").to_owned()),
        };
        Ok(Self {
            socket,
            handshake,
            next_id: 1,
        })
    }

    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Sends a CALL under a new message id and awaits its answer.
    pub async fn call(&mut self, action: &str, payload: impl Display) -> Called {
        let id = format!("call-{}", self.next_id);
        self.next_id += 1;
        self.call_as(&id, action, payload).await
    }

    /// Sends a CALL under this message id and awaits its answer.
    pub async fn call_as(&mut self, id: &str, action: &str, payload: impl Display) -> Called {
        let called = self.call_while_open(id, action, payload).await;
        called.unwrap_or_else(|| panic!("closed instead of an answer to {action}"))
    }

    /// The same to a daemon that may die at any moment: none where the connection ended first.
    pub async fn call_while_open(
        &mut self,
        id: &str,
        action: &str,
        payload: impl Display,
    ) -> Option<Called> {
        let frame = format!(r#"[2,"{id}","{action}",{payload}]"#);
        if !self.send_while_open(frame).await {
            return None;
        }
        match self.next().await {
            Frame::Json(frame) => Some(answer_to(id, &frame)),
            Frame::Closed(_) => None,
        }
    }

    /// A CALL that must succeed.
    pub async fn ok(&mut self, action: &str, payload: impl Display) -> Value {
        self.call(action, payload).await.result()
    }

    /// Boots as every charger does first.
    pub async fn boot(&mut self) -> Value {
        let payload = json!({"chargePointVendor": "Acme", "chargePointModel": "Wallbox"});
        self.ok("BootNotification", payload).await
    }

    /// Starts a transaction on connector 1 and returns its id.
    pub async fn start_transaction(&mut self, meter_start: u32) -> i64 {
        let answer = self.ok(
            "StartTransaction",
            json!({
                "connectorId": 1,
                "idTag": "RFID_12345678",
                "meterStart": meter_start,
                "timestamp": "2026-04-14T12:34:56Z",
            }),
        );
        answer.await["transactionId"]
            .as_i64()
            .expect("transactionId")
    }

    /// Sends a text frame as it is.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// The same to a daemon that may die at any moment; whether the frame left.
    pub async fn send_while_open(&mut self, text: impl Into<String>) -> bool {
        let frame = Message::text(text.into());
        let sent = within("a frame to leave", self.socket.send(frame)).await;
        sent.is_ok()
    }

    pub async fn send_message(&mut self, message: Message) {
        within("a frame to leave", self.socket.send(message))
            .await
            .expect("an open socket");
    }

    /// The next frame that the daemon sends.
    pub async fn next(&mut self) -> Frame {
        within("a frame from pipeletd", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Frame::Json(serde_json::from_str(&text).expect("JSON frames"));
                    }
                    Some(Ok(Message::Close(close))) => {
                        return Frame::Closed(close.map(|frame| frame.code.into()));
                    }
                    Some(Ok(Message::Binary(bytes))) => panic!("a binary frame: {bytes:?}"),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(_)) | None => return Frame::Closed(None),
                }
            }
        })
        .await
    }

    /// Waits for a CALL of the daemon's.
    pub async fn asked(&mut self) -> Asked {
        let text = within("a CALL from pipeletd", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("{other:?} instead of a CALL"),
                }
            }
        })
        .await;
        let frame: (u8, String, String, Box<RawValue>) =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("no CALL: {text}"));
        let (kind, id, action, payload) = frame;
        assert_eq!(kind, 2, "{text}");
        Asked {
            id,
            action,
            payload: payload.get().to_owned(),
        }
    }

    /// Answers a CALL of the daemon's with a CALLRESULT.
    pub async fn answer(&mut self, asked: &Asked, payload: impl Display) {
        self.send(format!(r#"[3,"{}",{payload}]"#, asked.id)).await;
    }

    /// Waits until the daemon ends the connection, and returns the close code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Frame::Json(_) => {}
                Frame::Closed(code) => return code,
            }
        }
    }

    /// Closes the connection as a charger would.
    pub async fn close(mut self) {
        // The daemon may have been quicker.
        let _ = self.socket.close(None).await;
        self.closed().await;
    }
}

fn answer_to(id: &str, frame: &Value) -> Called {
    assert_eq!(frame[1], id, "an answer to another message: {frame}");
    match frame[0].as_u64() {
        Some(3) => Called::Result(frame[2].clone()),
        Some(4) => Called::Error {
            code: frame[2].as_str().expect("an error code").to_owned(),
            description: frame[3].as_str().expect("a description").to_owned(),
        },
        _ => panic!("not an answer: {frame}"),
    }
}
