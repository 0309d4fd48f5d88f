//! A real browser without a window, told what to do by the `DevTools` protocol of Chrome.

use std::{collections::VecDeque, process::Stdio};

use crate::{deadline::within, skip};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// A page in a browser of its own, which ends with it.
#[derive(Debug)]
pub struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last_id: u64,
    /// What the page did, and nobody has looked at.
    happened: VecDeque<Value>,
    _browser: Child,
    _profile: TempDir,
}

impl Page {
    /// Opens an empty page; none where there is no browser.
    pub async fn open() -> Option<Self> {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("chromium");
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--window-size=1280,1000", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut browser = match command.spawn() {
            Ok(browser) => browser,
            Err(why) => {
                skip("chromium", why);
                return None;
            }
        };
        let said = browser.stderr.take().expect("stderr is piped");
        let mut said = BufReader::new(said).lines();
        let address = within("the browser's address", async {
            while let Some(line) = said.next_line().await.expect("text") {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return address.to_owned();
                }
            }
            panic!("the browser ended");
        })
        .await;
        // It goes on to say things, and must not be held up by that.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        let config = WebSocketConfig::default().max_message_size(None);
        let dialed = tokio_tungstenite::connect_async_with_config(address, Some(config), true);
        let (socket, _) = dialed.await.expect("a connection to the browser");
        let mut page = Self {
            socket,
            session: String::new(),
            last_id: 0,
            happened: VecDeque::new(),
            _browser: browser,
            _profile: profile,
        };
        let target = page.ask("Target.createTarget", json!({"url": "about:blank"}));
        let target = target.await["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        let session = page.ask("Target.attachToTarget", attach).await;
        session["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut page.session);
        for domain in [
            "Page.enable",
            "Network.enable",
            "Log.enable",
            "Runtime.enable",
        ] {
            page.ask(domain, json!({})).await;
        }
        Some(page)
    }

    pub async fn go_to(&mut self, url: &str) {
        self.ask("Page.navigate", json!({"url": url})).await;
    }

    /// Runs a function's body in the page, which may await, and returns what it does. `until` there
    /// waits for a condition; `find` finds an element by a selector.
    pub async fn run(&mut self, body: &str) -> Value {
        let script = format!(
            "(async () => {{
                const find = (selector) => document.querySelector(selector);
                const until = async (condition) => {{
                    for (;;) {{
                        const met = condition();
                        if (met) return met;
                        await new Promise((resume) => setTimeout(resume, 10));
                    }}
                }};
                {body}
            }})()"
        );
        let asked = json!({
            "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{answer}");
        answer["result"]["value"].clone()
    }

    /// Types where the focus is.
    pub async fn write(&mut self, text: &str) {
        self.ask("Input.insertText", json!({"text": text})).await;
    }

    /// As PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let picture = self.ask("Page.captureScreenshot", json!({})).await;
        let picture = picture["data"].as_str().expect("a picture");
        STANDARD.decode(picture).expect("base64")
    }

    /// What the page did so far, of these methods.
    pub fn happened(&self, method: &str) -> Vec<&Value> {
        let happened = self.happened.iter();
        let named = happened.filter(|what| what["method"] == method);
        named.map(|what| &what["params"]).collect()
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut question = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            question["sessionId"] = json!(self.session);
        }
        let question = Message::text(question.to_string());
        self.socket.send(question).await.expect("a browser");
        within(method, async {
            loop {
                let message = self.socket.next().await.expect("a browser");
                let Message::Text(text) = message.expect("a message") else {
                    continue;
                };
                let mut message: Value = serde_json::from_str(&text).expect("JSON");
                if message["id"] == id {
                    assert_eq!(message["error"], Value::Null, "{method}");
                    return message["result"].take();
                }
                self.happened.push_back(message);
            }
        })
        .await
    }
}
