//! A receiver that costs next to nothing: it finds where a request ends, notes when it came, and
//! answers 200.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use super::load::{Latencies, Shared, add, now_ns, take};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

pub(crate) struct Sink {
    address: SocketAddr,
    latencies: Shared,
}

impl Sink {
    /// Serves until the process ends, a thread for each connection.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let latencies = Shared::default();
        let noted = Arc::clone(&latencies);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                thread::spawn(move || serve(stream, &noted));
            }
        });
        Self { address, latencies }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The time from a station's frame to the POST's arrival, of those since the last time.
    pub(crate) fn take(&self) -> Latencies {
        take(&self.latencies)
    }
}

fn serve(mut stream: TcpStream, noted: &Shared) {
    // Without it an answer could wait for the next one.
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(8192);
    let mut chunk = [0; 8192];
    loop {
        while let Some(end) = whole_request(&buffer) {
            if let Some(sent) = sent_at(&buffer[..end]) {
                add(noted, now_ns().saturating_sub(sent));
            }
            buffer.drain(..end);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Where the first request in the buffer ends, if it is all there.
fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let at = find(&buffer[..head], b"content-length: ")? + b"content-length: ".len();
    let digits = buffer[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    (buffer.len() >= head + length).then_some(head + length)
}

fn sent_at(request: &[u8]) -> Option<u64> {
    let marker = b"\"value\":\"";
    let at = find(request, marker)? + marker.len();
    std::str::from_utf8(request.get(at..at + 20)?)
        .ok()?
        .parse()
        .ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
