//! Server-sent events (WHATWG HTML, section 9.2), as a browser reads them.

use serde_json::Value;

use crate::deadline::within;

#[derive(Debug)]
pub struct EventStream {
    answer: reqwest::Response,
    read: String,
}

/// One event of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    pub id: String,
    pub event: String,
    pub data: String,
}

impl Sent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl EventStream {
    pub(crate) fn new(answer: reqwest::Response) -> Self {
        let kind = &answer.headers()["content-type"];
        assert_eq!(kind, "text/event-stream");
        Self {
            answer,
            read: String::new(),
        }
    }

    /// The next event; `None` once the stream has ended. Comments are passed over.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let sent = sent(block);
                let rest = rest.to_owned();
                self.read = rest;
                if sent != Sent::default() {
                    return Some(sent);
                }
            }
            let chunk = within("a server-sent event", self.answer.chunk()).await;
            // A daemon that dies breaks the stream off.
            let chunk = chunk.ok().flatten()?;
            self.read += std::str::from_utf8(&chunk).expect("the tests' events are ASCII");
        }
    }
}

fn sent(block: &str) -> Sent {
    let mut sent = Sent::default();
    let mut data = Vec::new();
    // A carriage return ends a line, too, wherever it stands.
    let block = block.replace("\r\n", "\n");
    for line in block.split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut sent.id),
            "event" => value.clone_into(&mut sent.event),
            "data" => data.push(value),
            _ => {}
        }
    }
    sent.data = data.join("\n");
    sent
}
