//! Just enough of RFC 6455 for a station, so that the load generator costs as little as it can.
//!
//! The mask is four zero bytes: the server does the same work to remove it, and a prepared frame
//! can be sent as it is.

use std::io;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const MASKED: u8 = 0x80;
/// Stands where a length has two bytes of its own, which follow.
const TWO_BYTES: u8 = 0x7E;
/// And here eight.
const EIGHT_BYTES: u8 = 0x7F;
const NO_MASK: [u8; 4] = [0; 4];

/// One station's connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// What was read and not yet taken.
    buffer: Vec<u8>,
}

impl Socket {
    /// Upgrades a connection at `/ocpp/{station}`.
    pub(crate) async fn upgrade(mut stream: TcpStream, station: &str) -> io::Result<Self> {
        let request = format!(
            "GET /ocpp/{station} HTTP/1.1\r\nhost: bench\r\nupgrade: websocket\r\n\
             connection: upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: ocpp1.6\r\n\r\n"
        );
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut socket = Self {
            stream,
            buffer: Vec::new(),
        };
        loop {
            let end = socket.buffer.windows(4).position(|at| at == b"\r\n\r\n");
            if let Some(end) = end {
                if !socket.buffer.starts_with(b"HTTP/1.1 101") {
                    let answer = String::from_utf8_lossy(&socket.buffer[..end]).into_owned();
                    return Err(io::Error::other(answer));
                }
                socket.buffer.drain(..end + 4);
                return Ok(socket);
            }
            socket.read_some().await?;
        }
    }

    /// Sends a whole frame, as [`frame`] made it.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await
    }

    /// Waits for the next text, answers pings meanwhile, and says whether it is a CALLRESULT.
    pub(crate) async fn answered(&mut self) -> io::Result<bool> {
        loop {
            let Some((head, length)) = self.next_frame() else {
                self.read_some().await?;
                continue;
            };
            let (kind, payload) = (self.buffer[0], &self.buffer[head..head + length]);
            match kind {
                TEXT => {
                    let result = payload.starts_with(b"[3");
                    self.buffer.drain(..head + length);
                    return Ok(result);
                }
                PING => {
                    let pong = control(PONG, payload);
                    self.stream.write_all(&pong).await?;
                }
                // A PONG that nobody asked for, or the server's CLOSE, which the end follows.
                _ => {}
            }
            self.buffer.drain(..head + length);
        }
    }

    /// Where the payload of the next frame begins and how long it is, where all of it is there.
    fn next_frame(&self) -> Option<(usize, usize)> {
        let (head, length) = match *self.buffer.get(1)? {
            TWO_BYTES => {
                let length = [*self.buffer.get(2)?, *self.buffer.get(3)?];
                (4, usize::from(u16::from_be_bytes(length)))
            }
            EIGHT_BYTES => panic!("no answer in OCPP 1.6 has 64 KiB"),
            length => (2, usize::from(length)),
        };
        (self.buffer.len() >= head + length).then_some((head, length))
    }

    async fn read_some(&mut self) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            // Not held across an await, so that a station at rest holds no buffer of its own.
            let mut chunk = [0; 512];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.buffer.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A masked text frame.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    let mut frame = vec![TEXT];
    match u8::try_from(length) {
        Ok(length) if length < TWO_BYTES => frame.push(MASKED | length),
        Ok(_) | Err(_) => {
            frame.push(MASKED | TWO_BYTES);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&NO_MASK);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn control(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a control frame is short");
    let mut frame = vec![kind, MASKED | length];
    frame.extend_from_slice(&NO_MASK);
    frame.extend_from_slice(payload);
    frame
}
