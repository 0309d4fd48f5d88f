//! A charger's end of the connection below the WebSocket: handshakes and frames byte by byte,
//! for what no library would send.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::deadline::within;

/// The key of RFC 6455, section 1.3.
pub const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// In a frame's second byte: that it is masked, and where its length stands.
const MASKED: u8 = 0x80;
const LENGTH_OF_16_BITS: u8 = 0x7e;
const LENGTH_OF_64_BITS: u8 = 0x7f;
/// An unmasked frame would be a fault of its own, so every one is masked with this.
const MASK: [u8; 4] = [0x5a, 0x0f, 0xc3, 0x96];

/// The first byte of a frame: the last one of its message, with this opcode.
pub mod first_byte {
    pub const TEXT: u8 = 0x81;
    pub const BINARY: u8 = 0x82;
    pub const CLOSE: u8 = 0x88;
    pub const PING: u8 = 0x89;
    pub const PONG: u8 = 0x8a;
    /// A text message's first frame, with more to follow.
    pub const TEXT_BEGINS: u8 = 0x01;
    /// More of a message, and not its end.
    pub const GOES_ON: u8 = 0x00;
    /// The rest of a message.
    pub const ENDS: u8 = 0x80;
    /// The first reserved bit, which says "compressed" where that was agreed.
    pub const RSV1: u8 = 0x40;
    /// The second one, which says nothing that anybody has agreed on.
    pub const RSV2: u8 = 0x20;
}

/// A TCP connection to the daemon's port for stations. It answers nothing by itself.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
}

/// A frame that the daemon sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub first_byte: u8,
    pub payload: Vec<u8>,
}

impl RawFrame {
    /// The code of a close frame.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().copied();
        code.filter(|_| self.first_byte == first_byte::CLOSE)
            .map(u16::from_be_bytes)
    }
}

impl RawSocket {
    pub async fn connect(ocpp: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(ocpp)).await;
        Self {
            stream: stream.expect("a TCP connection"),
        }
    }

    /// A connection from this address, which is one of this machine's: all of 127.0.0.0/8 are.
    pub async fn connect_from(source: IpAddr, to: SocketAddr) -> Self {
        let connecting = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(to).await
        };
        let stream = within("a TCP connection", connecting).await;
        Self {
            stream: stream.expect("a TCP connection"),
        }
    }

    /// A connection with a plain handshake behind it.
    pub async fn open(ocpp: SocketAddr, station_id: &str) -> Self {
        let mut socket = Self::connect(ocpp).await;
        let head = format!(
            "GET /ocpp/{station_id} HTTP/1.1\r\nHost: csms\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: ocpp1.6\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
        );
        let answer = socket.shake_hands(&head).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        socket
    }

    /// Sends a request's head, and returns the answer's.
    pub async fn shake_hands(&mut self, head: &str) -> String {
        self.write(head.as_bytes()).await;
        self.answer_head().await
    }

    /// The head of the answer to a request.
    pub async fn answer_head(&mut self) -> String {
        let mut answer = Vec::new();
        within("the handshake's answer", async {
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(self.stream.read_u8().await.expect("a whole head"));
            }
        })
        .await;
        String::from_utf8(answer).expect("an ASCII head")
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within("bytes to leave", self.stream.write_all(bytes))
            .await
            .expect("an open socket");
    }

    /// The same to a daemon that may have hung up; whether the bytes left.
    pub async fn write_while_open(&mut self, bytes: &[u8]) -> bool {
        let written = within("bytes to leave", self.stream.write_all(bytes)).await;
        written.is_ok()
    }

    /// Sends one masked frame.
    pub async fn frame(&mut self, first_byte: u8, payload: &[u8]) {
        self.write(&masked(first_byte, payload)).await;
    }

    /// Sends the header of a masked frame with so many bytes to follow.
    pub async fn announce(&mut self, first_byte: u8, length: usize) {
        self.write(&header(first_byte, length)).await;
    }

    /// The next frame of the daemon's, or none at the connection's end.
    pub async fn next(&mut self) -> Option<RawFrame> {
        within("a frame from pipeletd", async {
            let [first_byte, length] = self.bytes().await?;
            let length = match length {
                LENGTH_OF_16_BITS => u16::from_be_bytes(self.bytes().await?).into(),
                LENGTH_OF_64_BITS => {
                    usize::try_from(u64::from_be_bytes(self.bytes().await?)).ok()?
                }
                short => short.into(),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(RawFrame {
                first_byte,
                payload,
            })
        })
        .await
    }

    /// The next text frame of the daemon's; its pings are left unanswered.
    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            let frame = self.next().await?;
            if frame.first_byte == first_byte::TEXT {
                return Some(String::from_utf8(frame.payload).expect("UTF-8"));
            }
        }
    }

    pub async fn next_json(&mut self) -> Option<Value> {
        let text = self.next_text().await?;
        Some(serde_json::from_str(&text).expect("JSON frames"))
    }

    /// Waits until the daemon ends the connection, and returns the close code.
    pub async fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            code = code.or(frame.close_code());
        }
        code
    }

    /// All that comes to the connection's end.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = within("the connection's end", self.stream.read_to_end(&mut rest));
        read.await.expect("an end in order");
        String::from_utf8(rest).expect("UTF-8")
    }

    /// Reads to the connection's end, in order or not.
    pub async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }

    async fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.ok()?;
        Some(bytes)
    }
}

/// The bytes of one masked frame.
pub fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first_byte, payload.len());
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

fn header(first_byte: u8, length: usize) -> Vec<u8> {
    let mut header = vec![first_byte];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..LENGTH_OF_16_BITS), _) => header.push(MASKED | short),
        (_, Ok(medium)) => {
            header.push(MASKED | LENGTH_OF_16_BITS);
            header.extend(medium.to_be_bytes());
        }
        (_, Err(_)) => {
            header.push(MASKED | LENGTH_OF_64_BITS);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}
