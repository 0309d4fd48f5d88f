//! Stations over real sockets, on the real journal.

use futures_util::{SinkExt, StreamExt};
use pipelet_domain::{
    events::{EventType, Payload, Seq, StationId},
    id_tags::Policy,
    registration::Admission,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use super::*;
use crate::{
    store::{LogStore as _, ReadLimit, memory::MemoryStore},
    system::limits::memory::MemoryBudget,
};

struct Daemon {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    stations: Stations,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    journal: Journal,
}

impl Daemon {
    async fn start(store: Arc<MemoryStore>, strict: bool) -> Self {
        let config = Config {
            strict,
            ..Config::default()
        };
        Self::with(store, config).await
    }

    async fn with(store: Arc<MemoryStore>, config: Config) -> Self {
        let opened = Journal::open(
            store.clone(),
            Vec::new(),
            &MemoryBudget::of(MemoryBudget::SMALLEST),
            Clock::system(),
            CancellationToken::new(),
        )
        .await
        .unwrap();
        let journal = opened.journal;
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..config
        };
        let clock = Clock::system();
        let registry = Registrations::open(store.clone(), Admission::Open, clock).await;
        let registry = registry.unwrap();
        let stats = ConnectionStats::new(config.max_unfinished);
        let gateway = Gateway::bind(config, registry, clock, 1, None, stats);
        let gateway = gateway.await.unwrap();
        let id_tags = IdTags::open(Policy::AcceptAll, store.clone(), clock).await;
        let ocpp = Ocpp::open(
            &gateway.handle(),
            store.clone(),
            id_tags.unwrap(),
            Shards::new([(journal.clone(), store.clone() as Arc<dyn ProjectionStore>)]),
            1,
            None,
            &watch::Sender::new(TransactionRetention {
                ended: Duration::MAX,
                abandoned_after: Duration::MAX,
            }),
        )
        .await
        .unwrap();
        let (address, stations) = (gateway.local_addr(), ocpp.stations());
        let shutdown = CancellationToken::new();
        let (stopping, finish) = (shutdown.clone(), CancellationToken::new());
        let running = tokio::spawn(async move {
            let serving = async {
                gateway.run(stopping).await;
                finish.cancel();
            };
            tokio::join!(serving, ocpp.run(finish.clone(), CancellationToken::new()));
        });
        Self {
            address,
            store,
            stations,
            shutdown,
            running,
            journal,
        }
    }

    async fn fresh() -> Self {
        Self::start(Arc::default(), false).await
    }

    async fn stop(self) -> Arc<MemoryStore> {
        self.shutdown.cancel();
        self.running.await.unwrap();
        self.journal.stop().await;
        self.store
    }

    /// Of a connection that is here, before its session.
    fn lease(&self, id: &StationId) -> ConnectionLease {
        let (stations, now) = (self.stations.of(id), Clock::system().now());
        let lease = stations.acquire_lease(id, now, None, 10, &|_| false, At::ThisNode);
        lease.unwrap()
    }

    async fn connect(&self) -> Station {
        Station::connect(self.address, "CP1", Some("ocpp1.6")).await
    }

    /// Of the messages; connections are left out.
    async fn events(&self) -> Vec<(EventType, Value)> {
        let events = self
            .store
            .read_from(Seq(0), ReadLimit::part(1_000))
            .await
            .unwrap();
        let messages = events.iter().filter(|(_, e)| e.message_id.is_some());
        messages
            .map(|(_, e)| {
                (
                    e.kind,
                    serde_json::from_slice(e.payload.as_bytes()).unwrap(),
                )
            })
            .collect()
    }

    async fn kinds(&self) -> Vec<EventType> {
        let events = self
            .store
            .read_from(Seq(0), ReadLimit::part(1_000))
            .await
            .unwrap();
        events.iter().map(|(_, event)| event.kind).collect()
    }

    fn view(&self) -> StationView {
        self.stations.get(&StationId::new("CP1").unwrap()).unwrap()
    }
}

struct Station {
    socket: WebSocketStream<TcpStream>,
    subprotocol: Option<String>,
}

impl Station {
    async fn connect(address: SocketAddr, id: &str, subprotocol: Option<&str>) -> Self {
        let mut request = format!("ws://{address}/ocpp/{id}")
            .into_client_request()
            .unwrap();
        if let Some(name) = subprotocol {
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", name.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, response) = client_async(request, stream).await.unwrap();
        let agreed = response.headers().get("sec-websocket-protocol");
        Self {
            socket,
            subprotocol: agreed.map(|name| name.to_str().unwrap().to_owned()),
        }
    }

    async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn say(&mut self, text: impl Into<String>) -> Value {
        self.send(text).await;
        self.receive().await
    }

    async fn call(&mut self, id: &str, action: &str, payload: &Value) -> Value {
        self.say(json!([2, id, action, payload]).to_string()).await
    }

    async fn close_code(&mut self) -> CloseCode {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Close(frame) => return frame.unwrap().code,
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn start() -> Value {
    json!({"connectorId": 1, "idTag": "A", "meterStart": 0, "timestamp": "2026-04-14T12:34:56Z"})
}

#[tokio::test]
async fn a_charging_session_is_answered_and_journaled() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    assert_eq!(station.subprotocol.as_deref(), Some("ocpp1.6"));

    let boot = json!({"chargePointVendor": "V", "chargePointModel": "M"});
    let answer = station.call("1", "BootNotification", &boot).await;
    assert_eq!(answer[0], 3);
    assert_eq!(answer[2]["status"], "Accepted");
    assert_eq!(answer[2]["interval"], 300);

    let answer = station.call("2", "StartTransaction", &start()).await;
    let transaction = answer[2]["transactionId"].clone();
    assert!(transaction.as_i64().unwrap() > 0);
    assert_eq!(daemon.view().state.open_transactions.len(), 1);

    let stop =
        json!({"transactionId": transaction, "meterStop": 9, "timestamp": "2026-04-14T13:00:00Z"});
    let answer = station.call("3", "StopTransaction", &stop).await;
    assert_eq!(answer, json!([3, "3", {}]));

    let view = daemon.view();
    assert!(view.connected_since.is_some());
    assert_eq!(view.state.vendor.as_deref(), Some("V"));
    assert_eq!(view.state.open_transactions, []);

    let mut started = start();
    started["transactionId"] = transaction;
    assert_eq!(
        daemon.events().await,
        [
            (EventType::BootNotification, boot),
            (EventType::StartTransaction, started),
            (EventType::StopTransaction, stop),
        ]
    );
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn a_repeated_call_has_the_same_answer_and_one_event() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    let first = station.call("1", "StartTransaction", &start()).await;
    assert_eq!(station.call("1", "StartTransaction", &start()).await, first);

    // On a new connection, under the same id and under another one.
    let mut station = daemon.connect().await;
    assert_eq!(station.call("1", "StartTransaction", &start()).await, first);
    let again = station.call("2", "StartTransaction", &start()).await;
    assert_eq!(again[2], first[2]);
    assert_eq!(daemon.events().await.len(), 1);

    // By a daemon that has restarted since.
    let daemon = Daemon::start(daemon.stop().await, false).await;
    let mut station = daemon.connect().await;
    assert_eq!(station.call("1", "StartTransaction", &start()).await, first);
    assert_eq!(daemon.events().await.len(), 1);
    assert_eq!(daemon.view().state.open_transactions.len(), 1);

    let mut other = start();
    other["meterStart"] = json!(1);
    let other = station.call("4", "StartTransaction", &other).await;
    assert_ne!(other[2]["transactionId"], first[2]["transactionId"]);
    assert_eq!(daemon.events().await.len(), 2);
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn the_newest_connection_wins() {
    use EventType::{Heartbeat, StationConnected, StationDisconnected};

    let daemon = Daemon::fresh().await;
    let mut old = daemon.connect().await;
    old.call("1", "Heartbeat", &json!({})).await;
    let mut new = daemon.connect().await;
    assert_eq!(old.close_code().await, CloseCode::Normal);
    assert!(old.socket.next().await.is_none());
    assert_eq!(new.call("2", "Heartbeat", &json!({})).await[0], 3);
    assert_eq!(daemon.stations.counts().connected, 1);

    new.socket.close(None).await.unwrap();
    while new.socket.next().await.is_some() {}
    assert_eq!(daemon.stations.counts().connected, 0);
    assert_eq!(
        daemon.kinds().await,
        [
            StationConnected,
            Heartbeat,
            StationDisconnected,
            StationConnected,
            Heartbeat,
            StationDisconnected
        ]
    );
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_that_came_in_time_is_heard_however_busy_the_connection_was() {
    let daemon = Daemon::fresh().await;
    let id = StationId::new("CP1").unwrap();
    // An older connection of the station, whose messages have their turn before the newer one's.
    let old = daemon.lease(&id);
    let mut station = daemon.connect().await;
    station.call("1", "Heartbeat", &json!({})).await;

    let wait = Duration::from_millis(200);
    let deadline = Instant::now() + wait;
    let (stations, asked) = (daemon.stations.clone(), id.clone());
    let asking = tokio::spawn(async move {
        let payload = Payload::empty();
        let call = stations.call(&asked, EventType::ClearCache, payload, wait);
        call.await
    });
    let call = station.receive().await;
    assert_eq!(call[2], "ClearCache");

    let turn = old.turn().await;
    station.send(r#"[2,"2","Heartbeat",{}]"#).await;
    let answer = json!([3, call[1], {"status": "Accepted"}]);
    station.send(answer.to_string()).await;
    // The connection can't read on before the deadline has passed.
    tokio::time::sleep_until(deadline + wait).await;
    drop(turn);

    let accepted = Payload::parse(br#"{"status":"Accepted"}"#).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(Answer::Result(accepted)));
    assert_eq!(station.receive().await[1], "2");
    drop((station, old));
    daemon.stop().await;
}

#[tokio::test]
async fn a_station_that_floods_does_not_put_a_deadline_off() {
    let daemon = Daemon::fresh().await;
    let id = StationId::new("CP1").unwrap();
    let mut station = daemon.connect().await;
    let wait = Duration::from_millis(50);
    let (stations, asked) = (daemon.stations.clone(), id.clone());
    let mut asking = tokio::spawn(async move {
        let payload = Payload::empty();
        let call = stations.call(&asked, EventType::ClearCache, payload, wait);
        call.await
    });
    let mut sent = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut asking => break outcome.unwrap(),
            () = station.send(r#"[1,"ignored"]"#) => sent += 1,
        }
    };
    assert_eq!(
        outcome,
        Err(CommandError::TimedOut),
        "after {sent} messages"
    );
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn a_bad_frame_gets_its_error_and_the_connection_lives() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    for (text, id, code) in [
        ("[2,\"a\",\"Boot", json!("-1"), "FormationViolation"),
        ("[2,7,\"Heartbeat\",[]]", json!(7), "FormationViolation"),
        ("[2,\"a\",\"Bogus\",{}]", json!("a"), "NotImplemented"),
        ("[2,\"a\",\"Reset\",{}]", json!("a"), "NotSupported"),
    ] {
        let answer = station.say(text).await;
        assert_eq!(answer[0], 4, "{text}");
        assert_eq!((&answer[1], &answer[2]), (&id, &json!(code)), "{text}");
    }
    let binary = |bytes: &'static [u8]| Message::binary(bytes);
    station.socket.send(binary(b"\xff")).await.unwrap();
    assert_eq!(station.receive().await[2], "FormationViolation");
    station
        .socket
        .send(binary(b"[2,1,\"Heartbeat\"]"))
        .await
        .unwrap();
    assert_eq!(station.receive().await[0], 3);

    // What is ignored gets no answer: the next one belongs to the heartbeat.
    station.send("[3,\"nobody asked\",{}]").await;
    station.send("[1,\"a\"]").await;
    assert_eq!(station.call("b", "Heartbeat", &json!({})).await[1], "b");
    assert_eq!(daemon.events().await.len(), 2);
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn odd_transactions_are_answered_all_the_same() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    let payloads = [
        "{}",
        "null",
        r#"{"idTag":{}}"#,
        r#"{"meterStart":"x","a":1,"a":2}"#,
    ];
    for (id, payload) in payloads.iter().enumerate() {
        let text = format!("[2,{id},\"StartTransaction\",{payload}]");
        let answer = station.say(text).await;
        assert!(answer[2]["transactionId"].as_i64() > Some(0), "{answer}");
    }
    let stop = json!({"transactionId": -1});
    assert_eq!(
        station.call("s", "StopTransaction", &stop).await,
        json!([3, "s", {}])
    );
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_too_large_or_no_text_ends_the_connection_with_its_code() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    let large = format!(
        "[2,\"1\",\"DataTransfer\",{{\"data\":\"{}\"}}]",
        "x".repeat(2 << 20)
    );
    station.send(large).await;
    assert_eq!(station.close_code().await, CloseCode::Size);

    let mut station = daemon.connect().await;
    let stream = station.socket.get_mut();
    // A masked text frame of one byte that is no UTF-8.
    stream
        .write_all(&[0x81, 0x81, 0, 0, 0, 0, 0xff])
        .await
        .unwrap();
    assert_eq!(station.close_code().await, CloseCode::Invalid);
    drop(station);
    daemon.stop().await;
}

#[tokio::test]
async fn subprotocols_are_handled_as_the_standard_says() {
    let daemon = Daemon::fresh().await;
    let mut silent = Station::connect(daemon.address, "CP2", None).await;
    assert_eq!(silent.subprotocol, None);
    assert_eq!(silent.call("1", "Heartbeat", &json!({})).await[0], 3);

    // A library would refuse the answer, so this one speaks by hand.
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let request = "GET /ocpp/CP3 HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp2.0.1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    // The close frame's code, 1002.
    assert!(answer.windows(2).any(|bytes| bytes == [0x03, 0xea]));
    drop(silent);
    daemon.stop().await;
}

#[tokio::test]
async fn a_newcomer_whose_handshake_fails_takes_no_event_with_it() {
    use EventType::{StationConnected, StationDisconnected};

    let daemon = Daemon::fresh().await;
    let mut old = daemon.connect().await;
    // A handshake that has its lease, and whose answer can't be written.
    let id = StationId::new("CP1").unwrap();
    let newcomer = daemon.lease(&id);
    drop(newcomer);
    assert_eq!(old.close_code().await, CloseCode::Normal);
    assert_eq!(
        daemon.kinds().await,
        [StationConnected, StationDisconnected]
    );
    daemon.stop().await;
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_read() {
    let daemon = Daemon::fresh().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let mut request = b"GET /ocpp/CP1 HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                        Sec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    let call = b"[2,1,\"Heartbeat\",{}]";
    request.extend([0x81, 0x80 | u8::try_from(call.len()).unwrap(), 0, 0, 0, 0]);
    request.extend(call);
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("currentTime") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_shutdown_closes_stations_and_saves_what_is_known() {
    let daemon = Daemon::fresh().await;
    let mut station = daemon.connect().await;
    let boot = json!({"chargePointVendor": "V", "chargePointModel": "M"});
    station.call("1", "BootNotification", &boot).await;
    let going = tokio::spawn(daemon.stop());
    assert_eq!(station.close_code().await, CloseCode::Away);
    drop(station);
    let store = going.await.unwrap();
    let saved = store.stations().await.unwrap();
    assert_eq!(saved.states.len(), 1);
    // Connected, booted, disconnected.
    // The head may count the last one a moment after the session has ended; then it is applied
    // once more, which changes nothing.
    assert!((Seq(2)..=Seq(3)).contains(&saved.projected_to));
    assert_eq!(saved.states[0].applied_through, Some(Seq(2)));
}

#[tokio::test]
async fn when_everybody_comes_back_each_has_a_turn() {
    let config = Config {
        max_handshakes: 1,
        ..Config::default()
    };
    let daemon = Daemon::with(Arc::default(), config).await;
    // Connections that say nothing take no turn.
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(daemon.address).await.unwrap());
    }
    let address = daemon.address;
    let storm: Vec<_> = (0..200)
        .map(|number| format!("CP{number}"))
        .map(|id| tokio::spawn(async move { Station::connect(address, &id, None).await }))
        .collect();
    let mut stations = Vec::new();
    for station in storm {
        stations.push(station.await.unwrap());
    }
    assert_eq!(daemon.stations.counts().connected, 200);
    drop((silent, stations));
    daemon.stop().await;
}

#[tokio::test]
async fn strictness_refuses_what_the_standard_forbids() {
    let daemon = Daemon::start(Arc::default(), true).await;
    let mut station = daemon.connect().await;
    let early = station.call("1", "Heartbeat", &json!({})).await;
    assert_eq!(early[2], "SecurityError");
    let boot = json!({"chargePointVendor": "V", "chargePointModel": "M"});
    assert_eq!(station.call("2", "BootNotification", &boot).await[0], 3);
    let bad = station.call("3", "Authorize", &json!({"idTag": 5})).await;
    assert_eq!(bad[2], "TypeConstraintViolation");
    assert_eq!(station.call("4", "Heartbeat", &json!({})).await[0], 3);
    assert_eq!(daemon.events().await.len(), 2);
    drop(station);
    daemon.stop().await;
}
