//! Receivers whose TLS is not to be trusted, or is none.

use pipelet_tests::{Authority, Step, Tls};

use super::{BROKEN_OFF, Case, NO_CONNECTION, check, failed, scripted, unsent};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn answering(name: &'static str, error: &str) -> Case {
    scripted(name, vec![Step::Read, Step::write(OK)], unsent(error))
}

#[tokio::test]
async fn certificates_that_prove_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let elsewhere = authority.server_of(&["elsewhere.example", "127.0.0.2"]);
    let client = authority.client("127.0.0.1", &["localhost"]);
    let cases = [
        (
            authority.expired_server(),
            "expired",
            "the receiver's certificate expired on 2020-01-01T00:00:00Z",
        ),
        (
            stranger.server(),
            "of an unknown authority",
            "the receiver's certificate is from an authority that is not trusted here",
        ),
        (
            elsewhere,
            "of another name",
            "the receiver's certificate is for another name: elsewhere.example, 127.0.0.2",
        ),
        (
            client,
            "of a client",
            "TLS failed: invalid peer certificate: Other(OtherError(EkuError))",
        ),
    ];
    let cases = cases.map(|(identity, name, error)| {
        let tls = Tls::Server(identity.server_config(&[]));
        (tls, answering(name, error))
    });
    check(&authority, cases.into()).await;
}

#[tokio::test]
async fn handshakes_that_come_to_nothing() {
    let row = |name, script, error: &str| (Tls::Unspoken, scripted(name, script, failed(error)));
    let within = |steps: Vec<Step>| [vec![Step::ReadSome], steps].concat();
    let unread = |name, script, error: &str| (Tls::Unspoken, scripted(name, script, unsent(error)));
    let corrupt = "TLS failed: received corrupt message of type InvalidContentType";
    let alert = [21, 3, 3, 0, 2, 2, 40];
    let cases = vec![
        unread("closed at once", vec![], BROKEN_OFF),
        unread("reset at once", vec![Step::Reset], BROKEN_OFF),
        unread("never answered", vec![Step::Hang], NO_CONNECTION),
        row("closed within", within(vec![]), BROKEN_OFF),
        row("reset within", within(vec![Step::Reset]), BROKEN_OFF),
        row("plain HTTP", within(vec![Step::write(OK)]), corrupt),
        row("garbage", within(vec![Step::write([0; 100])]), corrupt),
        row(
            "an alert",
            within(vec![Step::write(alert)]),
            "TLS failed: received fatal alert: HandshakeFailure",
        ),
        row(
            "half a record",
            within(vec![Step::write([22, 3, 3]), Step::Hang]),
            NO_CONNECTION,
        ),
        row(
            "a flood",
            within(vec![Step::Flood(vec![22; 1000])]),
            "TLS failed: received corrupt message of type UnknownProtocolVersion",
        ),
    ];
    check(&Authority::new(), cases).await;
}
