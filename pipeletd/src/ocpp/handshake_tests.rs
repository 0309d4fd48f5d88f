use super::*;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";

fn decided(request_line: &str, headers: &[&str]) -> Result<Upgrade, Refusal> {
    let head = [&[request_line], headers, &["", ""]].concat().join("\r\n");
    let (request, length) = parse(head.as_bytes())?.unwrap();
    assert_eq!(length, head.len());
    decide(request)
}

#[test]
fn the_response_is_the_standards() {
    let upgrade = decided(
        "GET /ocpp/CP1 HTTP/1.1",
        &[
            "Host: h",
            "Connection: Upgrade",
            "Upgrade: websocket",
            KEY,
            VERSION,
            "Sec-WebSocket-Protocol: ocpp2.0.1, ocpp1.6",
        ],
    )
    .unwrap();
    // The key and its answer are the example of RFC 6455, section 1.3.
    assert_eq!(
        upgrade.response(),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: ocpp1.6\r\n\r\n"
    );
}

#[test]
fn stations_are_found_in_paths() {
    let check = |target: &str, expected: Option<&str>| {
        let found = station_of(target).ok();
        assert_eq!(found.as_ref().map(StationId::as_str), expected, "{target}");
    };
    check("/ocpp/CP1", Some("CP1"));
    check("/ocpp/CP1/", Some("CP1"));
    check("/ocpp//CP1", Some("CP1"));
    check("//ocpp/CP1?token=x", Some("CP1"));
    check("/ocpp/site/CP1", Some("CP1"));
    check("/ocpp/ocpp", Some("ocpp"));
    check("/ocpp/a%20b%7Cc_d-e", Some("a b|c_d-e"));
    check("/ocpp/a%2520b", Some("a%20b"));
    check("/ocpp/a%2Fb", Some("a/b"));
    check("/ocpp/100%", Some("100%"));
    check("/ocpp/%zz", Some("%zz"));
    check("ws://h:9000/ocpp/CP1", Some("CP1"));
    check("/ws://h:9000/ocpp/CP1", Some("CP1"));
    check("/ocpp/ws://h:9000/ocpp/CP1", Some("CP1"));
    check("/", None);
    check("/CP1", None);
    check("/ocpp", None);
    check("/ocpp/", None);
    check("/other/ocpp/CP1", None);
    check("/ocpp/%ff", None);
    check("/ocpp/a%0Ab", None);
    check("*", None);
}

#[test]
fn what_is_wrong_with_an_id_is_told() {
    let check = |id: &str, words: &str| {
        let refusal = station_of(&format!("/ocpp/{id}")).unwrap_err();
        assert_eq!(refusal.to_string(), words);
        let known = REASONS.contains(&refusal.reason());
        assert!(known && refusal.response().starts_with("HTTP/1.1 404 "));
    };
    check("", "stations connect to /ocpp/{station id}");
    check("a%00", "the station id in the path has control characters");
    check("%FF", "the station id in the path is not UTF-8");
    let long = "the station id in the path is longer than 255 bytes";
    check(&"x".repeat(256), long);
}

#[test]
fn no_secret_is_told_of_a_request() {
    let check = |target: &str, path: &str| {
        let target = target.to_owned();
        let request = Request {
            target,
            ..Request::default()
        };
        assert_eq!(request.asked().path, path);
    };
    check("/ocpp/CP1", "/ocpp/CP1");
    check("/ocpp/CP1?token=secret", "/ocpp/CP1");
    check("ws://CP1:secret@h:9000/x", "ws://…@h:9000/x");
}

#[test]
fn subprotocols_are_agreed_on() {
    let check = |headers: &[&str], expected: Subprotocol| {
        let mut all = vec!["Upgrade: WebSocket", KEY, VERSION];
        all.extend(headers);
        let upgrade = decided("GET /ocpp/CP1 HTTP/1.1", &all).unwrap();
        assert_eq!(upgrade.subprotocol, expected, "{headers:?}");
    };
    let agreed = |name: &str| Subprotocol::Agreed(name.to_owned());
    check(&["Sec-WebSocket-Protocol: ocpp1.6"], agreed("ocpp1.6"));
    check(&["sec-websocket-protocol: OCPP1.6"], agreed("OCPP1.6"));
    check(
        &[
            "Sec-WebSocket-Protocol: ocpp1.5",
            "Sec-WebSocket-Protocol: ocpp1.6",
        ],
        agreed("ocpp1.6"),
    );
    check(&[], Subprotocol::NotOffered);
    check(&["Sec-WebSocket-Protocol:"], Subprotocol::NotOffered);
    check(
        &["Sec-WebSocket-Protocol: ocpp2.0.1"],
        Subprotocol::NoneCommon,
    );
}

#[test]
fn credentials_come_as_they_are() {
    let shown = |headers: &[&str]| {
        let mut all = vec!["Upgrade: websocket", KEY, VERSION];
        all.extend(headers);
        decided("GET /ocpp/CP1 HTTP/1.1", &all).unwrap().credentials
    };
    assert_eq!(shown(&[]), None);
    let credentials = shown(&["authorization: Basic Q1AxOv8="]).unwrap();
    assert_eq!(
        (credentials.user.as_slice(), credentials.password.as_slice()),
        (b"CP1".as_slice(), b"\xff".as_slice())
    );
    assert_eq!(shown(&["Authorization: x"]), Some(Credentials::default()));
}

#[test]
fn what_is_not_taken_is_told_why() {
    let check = |line: &str, headers: &[&str], expected: Refusal, status: &str| {
        let refusal = decided(line, headers).unwrap_err();
        assert_eq!(refusal, expected, "{line}");
        let response = refusal.response();
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
    };
    let get = "GET /ocpp/CP1 HTTP/1.1";
    let upgrade = "Upgrade: websocket";
    check(get, &["Host: h"], Refusal::NotWebSocket, "426");
    check(get, &[upgrade, KEY], Refusal::WrongVersion, "426");
    check(get, &[upgrade, VERSION], Refusal::NoKey, "400");
    check("GET /CP1 HTTP/1.1", &[upgrade], Refusal::NotFound, "404");
    check("POST /ocpp/CP1 HTTP/1.1", &[], Refusal::WrongMethod, "405");
    check("GET /ocpp/CP1 HTTP/1.0", &[], Refusal::NotHttp, "400");
    check("\u{16}\u{3}\u{1}", &[], Refusal::NotHttp, "400");
    let response = Refusal::WrongCredentials.response();
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    assert!(
        response.contains("\r\nWWW-Authenticate: Basic "),
        "{response}"
    );
    let many = vec!["A: b"; 100];
    check(get, &many, Refusal::TooManyHeaders, "431");
    assert!(
        Refusal::TooManyHeaders
            .response()
            .ends_with("the request has more than 64 headers\n")
    );
}

#[test]
fn a_key_is_sixteen_bytes() {
    let check = |key: &str, taken: bool| {
        let key = format!("Sec-WebSocket-Key: {key}");
        let decided = decided(
            "GET /ocpp/CP1 HTTP/1.1",
            &["Upgrade: websocket", VERSION, &key],
        );
        if taken {
            assert!(decided.is_ok(), "{key}");
        } else {
            assert_eq!(decided.unwrap_err(), Refusal::NoKey, "{key}");
        }
    };
    check("dGhlIHNhbXBsZSBub25jZQ==", true);
    // The example of RFC 6455, section 4.1, with bits to spare that are set.
    check("AQIDBAUGBwgJCgsMDQ4PEC==", true);
    check("//////////////////////==", true);
    check("", false);
    check("abcd", false);
    check("dGhlIHNhbXBsZSBub25jZQ", false);
    check("dGhlIHNhbXBsZSBub25jZQAA", false);
    check("dGhlIHNhbXBsZSBub25j-Q==", false);
    check("dGhlIHNhbXBsZSBub25jZQAAAA==", false);
}

#[tokio::test]
async fn a_head_is_read_to_its_end_and_no_further() {
    let (mut client, mut server) = tokio::io::duplex(16);
    let write = async {
        let request = format!("GET /ocpp/CP1 HTTP/1.1\r\n{KEY}\r\n\r\n\u{1}\u{2}");
        client.write_all(request.as_bytes()).await.unwrap();
    };
    let (read, ()) = tokio::join!(read(&mut server), write);
    let (request, rest) = read.unwrap();
    assert_eq!(request.target, "/ocpp/CP1");
    // How much of what follows came along depends on the reads; none of it is lost.
    assert!([1, 2].starts_with(&rest));
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let (mut client, mut server) = tokio::io::duplex(1024);
    let write = tokio::spawn(async move {
        let _ = client.write_all(b"GET /ocpp/CP1 HTTP/1.1\r\nA: ").await;
        while client.write_all(&[b'a'; 512]).await.is_ok() {}
    });
    let error = read(&mut server).await.unwrap_err();
    assert!(matches!(
        error,
        HandshakeError::Refused {
            refusal: Refusal::TooLarge,
            station: None,
            asked: None
        }
    ));
    drop(server);
    write.await.unwrap();
}
