//! The sender against receivers that behave in every way that receivers do.

use std::net::SocketAddr;

use pipelet_domain::webhooks::{Secret, SecretHeader, Signing, SigningSecret, WebhookUrl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

/// Long enough for a busy machine; no test waits for it to pass.
const LONG: Duration = Duration::from_secs(30);
/// For receivers that never finish.
const SHORT: Duration = Duration::from_millis(100);

fn sender(timeout: Duration, allow_private: bool) -> Sender {
    sender_trusting(None, timeout, allow_private)
}

fn sender_trusting(extra_roots: Option<Vec<u8>>, timeout: Duration, allow_private: bool) -> Sender {
    // Fails where another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Sender::new(&HttpOptions {
        timeout,
        targets: TargetPolicy {
            allow_private,
            allowed: Vec::new(),
        },
        extra_roots,
        resources: Resources::new(16, 1024),
        spans: Spans::default(),
    })
    .unwrap()
}

async fn post_to(sender: &Sender, url: &str) -> Attempted {
    post_over(sender, url, &mut sender.pool().take().unwrap()).await
}

async fn post_over(sender: &Sender, url: &str, pooled: &mut PooledConnection) -> Attempted {
    let body = Bytes::from_static(br#"{"event":"StartTransaction"}"#);
    post_body(sender, url, pooled, body).await
}

async fn post_body(
    sender: &Sender,
    url: &str,
    pooled: &mut PooledConnection,
    body: Bytes,
) -> Attempted {
    let url = WebhookUrl::parse(url).unwrap();
    let secret = SecretHeader::new("X-Webhook-Secret", Secret::new("hunter2")).unwrap();
    let now = Timestamp::from_second(1_776_170_096).unwrap();
    let signing = |byte: u8| {
        let text = format!("whsec_{}", char::from(byte).to_string().repeat(32));
        SigningSecret::parse(&Secret::new(text)).unwrap()
    };
    // The first one's day is over.
    let signing = Signing::new(signing(b'A'))
        .rotated(signing(b'B'), now - Signing::GRACE)
        .rotated(signing(b'C'), now - Duration::from_secs(1));
    let to = Destination::new(url, Some(&secret), Some(&signing));
    let post = Post {
        to: &to,
        event_id: EventId::new(now, [7; 10]),
        event: EventType::StartTransaction,
        is_synthetic: false,
        station: &StationId::new("S1").unwrap(),
        webhook: WebhookId(1),
        attempt: 3,
        now,
        body,
    };
    sender.post(post, pooled).await
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads one request, head and body, and returns it.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\"}") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "cut off");
    }
    String::from_utf8(read).unwrap()
}

/// A receiver that takes one request, writes `answer` and closes.
async fn answering(answer: impl Into<Vec<u8>>) -> (String, JoinHandle<String>) {
    let (listener, url) = listen().await;
    let answer = answer.into();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        // The sender may have gone after it had what it wanted.
        let _ = stream.write_all(&answer).await;
        request
    });
    (url, task)
}

/// A receiver that takes one request, writes `start` and then keeps the connection open.
async fn stalling_after(start: &'static [u8]) -> (String, JoinHandle<()>) {
    let (listener, url) = listen().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(start).await.unwrap();
        // Ends when the sender gives up.
        while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
    });
    (url, task)
}

fn error(attempted: &Attempted) -> &AttemptError {
    match &attempted.outcome {
        Outcome::Failed { error, .. } => error,
        other => panic!("{other:?} is no failure"),
    }
}

#[tokio::test]
async fn a_delivery_has_the_headers_that_receivers_are_promised() {
    let (url, receiver) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let attempted = post_to(&sender(LONG, true), &url).await;
    assert_eq!(attempted.outcome, Outcome::Delivered { status: 204 });
    assert!(attempted.answer.is_empty());

    let request = receiver.await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, r#"{"event":"StartTransaction"}"#);
    for header in [
        "content-type: application/json",
        "content-length: 28",
        concat!("user-agent: Pipelet/", env!("CARGO_PKG_VERSION")),
        "X-Webhook-Secret: hunter2",
        "webhook-id: evt_019d8bfcd58077078707070707070707",
        "webhook-timestamp: 1776170096",
        "webhook-signature: v1,",
        "pipelet-event: StartTransaction",
        "pipelet-attempt: 3",
        "traceparent: 00-019d8bfcd58077078707070707070707-",
    ] {
        assert!(head.contains(&format!("\r\n{header}")), "{header}: {head}");
    }
}

#[tokio::test]
async fn what_a_receiver_answers() {
    let rejected = |status, retry_after: Option<u64>| Outcome::Rejected {
        status,
        retry_after: retry_after.map(Duration::from_secs),
    };
    let check = async |answer: &str, expected: Outcome<AttemptError>| {
        let (url, _receiver) = answering(answer).await;
        let attempted = post_to(&sender(LONG, true), &url).await;
        assert_eq!(attempted.outcome, expected, "{answer:?}");
    };
    let delivered = Outcome::Delivered { status: 200 };
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        delivered.clone(),
    )
    .await;
    check("HTTP/1.0 200 OK\r\n\r\nuntil it closes", delivered).await;
    check(
        "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
        rejected(500, None),
    )
    .await;
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    check(busy, rejected(503, Some(7))).await;
    // Not followed: nobody listens there, so following it would be another failure.
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    check(moved, rejected(302, None)).await;
    // A rejection counts, even where its body breaks off.
    check(
        "HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\nha",
        rejected(500, None),
    )
    .await;
}

#[tokio::test]
async fn a_successful_answer_that_breaks_off_is_a_failure() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (url, _receiver) = answering(answer).await;
        let attempted = post_to(&sender(LONG, true), &url).await;
        assert_eq!(error(&attempted), &AttemptError::BrokenOff);
        assert_eq!(attempted.outcome.status(), Some(200));
        assert_eq!(attempted.answer, "half");
    }
}

#[tokio::test]
async fn an_answer_that_is_none() {
    for (answer, expected) in [
        ("", AttemptError::BrokenOff),
        ("HTTP/1.1 20", AttemptError::BrokenOff),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", AttemptError::Protocol),
    ] {
        let (url, _receiver) = answering(answer).await;
        let attempted = post_to(&sender(LONG, true), &url).await;
        assert_eq!(error(&attempted), &expected, "{answer:?}");
    }
}

#[tokio::test]
async fn one_deadline_spans_the_whole_exchange() {
    let limit = SHORT;
    let silent = AttemptError::Timeout { limit };
    let unfinished = AttemptError::AnswerTimeout { limit };
    for (start, expected) in [
        (&b""[..], silent.clone()),
        (b"HTTP/1.1 200 OK\r\n", silent),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            unfinished,
        ),
    ] {
        let (url, receiver) = stalling_after(start).await;
        let attempted = post_to(&sender(limit, true), &url).await;
        assert_eq!(error(&attempted), &expected);
        assert!(attempted.duration >= limit);
        receiver.await.unwrap();
    }
}

#[tokio::test]
async fn a_drip_does_not_extend_the_deadline() {
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut drip = tokio::time::interval(Duration::from_millis(5));
        while stream.write_all(b"x").await.is_ok() {
            drip.tick().await;
        }
    });
    let attempted = post_to(&sender(SHORT, true), &url).await;
    assert_eq!(error(&attempted).code(), "answer_timeout");
    assert!(!attempted.answer.is_empty());
    receiver.await.unwrap();
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_not_waited_for() {
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
    });
    let attempted = post_to(&sender(LONG, true), &url).await;
    assert_eq!(attempted.outcome, Outcome::Delivered { status: 200 });
    assert_eq!(attempted.answer.len(), Sender::ANSWER_LIMIT);
    // The connection is closed, so the receiver's writes fail at last.
    receiver.await.unwrap();
}

#[tokio::test]
async fn a_port_where_nobody_listens() {
    let (listener, url) = listen().await;
    drop(listener);
    let attempted = post_to(&sender(LONG, true), &url).await;
    assert_eq!(error(&attempted), &AttemptError::Refused);
    let failure = attempted.outcome.failure();
    assert_eq!(failure.as_deref(), Some("connection refused"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    // Reserved never to exist (RFC 6761, section 6.4).
    let attempted = post_to(&sender(LONG, true), "http://pipelet.invalid/").await;
    assert_eq!(error(&attempted), &AttemptError::Dns);
}

#[tokio::test]
async fn private_targets_are_refused_by_address_and_by_name() {
    let (listener, url) = listen().await;
    let sender = sender(LONG, false);
    let attempted = post_to(&sender, &url).await;
    assert_eq!(error(&attempted).code(), "private_target");
    let port = listener.local_addr().unwrap().port();
    let attempted = post_to(&sender, &format!("http://localhost:{port}/")).await;
    assert_eq!(error(&attempted).code(), "private_target");
}

#[tokio::test]
async fn a_refusal_by_the_resolver_is_recognised() {
    // No public name is sure to resolve to a private address, so this takes the host check
    // away and leaves the resolver.
    let strict = Arc::into_inner(sender(LONG, false).0).unwrap();
    let unchecked = Sender(Arc::new(Inner {
        targets: TargetPolicy {
            allow_private: true,
            allowed: Vec::new(),
        },
        ..strict
    }));
    let attempted = post_to(&unchecked, "http://localhost:9/").await;
    assert_eq!(error(&attempted).code(), "private_target");
}

#[tokio::test]
async fn tls_that_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
    });
    let attempted = post_to(&sender(LONG, true), &format!("https://{address}/")).await;
    assert_eq!(error(&attempted).code(), "tls", "{attempted:?}");
    receiver.await.unwrap();
}

#[tokio::test]
async fn a_receiver_with_tls_gets_the_same_and_is_heard_the_same() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let root = own.cert.pem().into_bytes();
    let sender = sender_trusting(Some(root), LONG, true);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let receiver = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "cut off");
        }
        let busy = b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(busy).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let attempted = post_to(&sender, &format!("https://localhost:{port}/hook")).await;
    let rejected = Outcome::Rejected {
        status: 503,
        retry_after: Some(Duration::from_secs(7)),
    };
    assert_eq!(
        (attempted.outcome, &*attempted.answer),
        (rejected, b"no".as_slice())
    );
    let request = receiver.await.unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
    for header in [
        format!("host: localhost:{port}"),
        "X-Webhook-Secret: hunter2".to_owned(),
        concat!("user-agent: Pipelet/", env!("CARGO_PKG_VERSION")).to_owned(),
        "pipelet-attempt: 3".to_owned(),
    ] {
        assert!(
            request.contains(&format!("\r\n{header}\r\n")),
            "{header}: {request}"
        );
    }
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_attempt() {
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            // Closed, though the answer promised to keep it open.
        }
    });
    let sender = sender(LONG, true);
    let mut pooled = sender.pool().take().unwrap();
    for round in 0..20 {
        let attempted = post_over(&sender, &url, &mut pooled).await;
        let delivered = Outcome::Delivered { status: 200 };
        assert_eq!(attempted.outcome, delivered, "round {round}");
    }
    receiver.await.unwrap();
}

#[tokio::test]
async fn a_kept_connection_is_used_again() {
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..5 {
            read_request(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
    });
    let sender = sender(LONG, true);
    let mut pooled = sender.pool().take().unwrap();
    for _ in 0..5 {
        let attempted = post_over(&sender, &url, &mut pooled).await;
        assert!(attempted.outcome.is_delivered());
    }
    receiver.await.unwrap();
}

/// A connection whose request was answered when the first bytes of it had come.
async fn answered_early(listener: TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    stream
}

#[tokio::test]
async fn an_answer_before_everything_was_read_does_not_cut_the_rest_off() {
    const LEN: usize = 8 << 20;
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(async move {
        let mut stream = answered_early(listener).await;
        let mut rest = vec![0; LEN];
        stream.read_exact(&mut rest).await.unwrap();
    });
    let sender = sender(LONG, true);
    let mut pooled = sender.pool().take().unwrap();
    let body = Bytes::from(vec![b' '; LEN]);
    let attempted = post_body(&sender, &url, &mut pooled, body).await;
    assert_eq!(attempted.outcome, Outcome::Delivered { status: 200 });
    assert!(pooled.is_fresh());
    receiver.await.unwrap();
}

#[tokio::test]
async fn a_rest_that_nobody_reads_does_not_undo_the_answer() {
    let (listener, url) = listen().await;
    let receiver = tokio::spawn(answered_early(listener));
    let body = Bytes::from(vec![b' '; 32 << 20]);
    // Time for the answer on a busy machine, too.
    let limit = 10 * SHORT;
    let sender = sender(limit, true);
    let mut pooled = sender.pool().take().unwrap();
    let attempted = post_body(&sender, &url, &mut pooled, body).await;
    assert_eq!(attempted.outcome, Outcome::Delivered { status: 200 });
    assert!(attempted.duration >= limit);
    assert!(!pooled.is_fresh(), "half of a request is on it");
    drop(receiver.await.unwrap());
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let error = parse_roots(b"hello").unwrap_err();
    assert!(matches!(error, SenderError::NoCertificate), "{error:?}");
}
