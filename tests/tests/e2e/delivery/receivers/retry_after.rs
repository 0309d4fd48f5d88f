//! `Retry-After` in every form that it comes in: it lengthens a wait, within bounds, or is not
//! understood and costs nothing.

use std::time::Duration;

use jiff::Timestamp;
use pipelet_tests::{Authority, Scripted, Station, Step, Tls};
use serde_json::json;

use super::{AMPLE, quick};

/// The schedule's wait, in seconds.
const WAIT: i64 = 50;
const DAY: i64 = 86_400;

/// What the headers are, and how long the wait is then.
fn rows(now: Timestamp) -> Vec<(Vec<String>, i64)> {
    let one = |value: &str, wait| (vec![value.to_owned()], wait);
    let date = |format, after: i64| {
        let date = now + Duration::from_secs(after.unsigned_abs());
        date.strftime(format).to_string()
    };
    let forms = [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ];
    let later = forms.map(|form| one(&date(form, 600), 600));
    let sooner = forms.map(|form| one(&date(form, 1), WAIT));
    let seconds = [
        one("600", 600),
        one(" 600\t", 600),
        one("000600", 600),
        one("0", WAIT),
        one("1", WAIT),
        one("86401", DAY),
        one("99999999999999999999999999999999", DAY),
        one("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        one("Thu, 01 Jan 1970 00:00:00 GMT", WAIT),
    ];
    let garbage = [
        "",
        "-600",
        "+600",
        "600.5",
        "6e2",
        "600s",
        "0x258",
        "soon",
        "600, 700",
        "\u{fc}bermorgen",
        "Fri, 31 Feb 2999 00:00:00 GMT",
    ]
    .map(|value| one(value, WAIT));
    let twice = |one: &str, other: &str| (vec![one.to_owned(), other.to_owned()], 600);
    let several = [twice("600", "1"), twice("1", "600"), twice("soon", "600")];
    let none = (vec![], WAIT);
    [none]
        .into_iter()
        .chain(later)
        .chain(sooner)
        .chain(seconds)
        .chain(garbage)
        .chain(several)
        .collect()
}

#[tokio::test]
async fn in_every_form() {
    let (_file, builder) = quick(&Authority::new(), AMPLE);
    let builder = builder.flag("--retry-schedule", &format!("{WAIT}s"));
    let daemon = builder.start().await;
    let api = daemon.api();
    let webhook = json!({"name": "now", "url": "http://127.0.0.1:9/", "events": ["Reset"]});
    let created = api.post("/webhooks", &webhook).await.expect(201);
    let now = created["created_at"].as_str().expect("a time");
    let rows = rows(now.parse().expect("a time"));
    let mut cases = Vec::new();
    for status in [429, 503, 500] {
        for (values, wait) in &rows {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n");
            let values = values
                .iter()
                .map(|value| format!("Retry-After: {value}\r\n"));
            let values = values.collect::<Vec<_>>().concat();
            let answer = format!("{head}{values}\r\n");
            let script = vec![Step::Read, Step::write(&answer)];
            let receiver = Scripted::always(Tls::None, script).await;
            let webhook = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
            // Nobody else may ask for a wait.
            let wait = if status == 500 { WAIT } else { *wait };
            cases.push((answer, wait, webhook, receiver));
        }
    }
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for (answer, wait, webhook, _receiver) in &cases {
        api.await_stats(*webhook, json!({"retrying": 1})).await;
        let page = api.get(&format!("/webhooks/{webhook}/deliveries")).await;
        let delivery = page.expect(200)["data"][0].clone();
        let time = |value: &serde_json::Value| -> Timestamp {
            value.as_str().expect("a time").parse().expect("a time")
        };
        let attempted = time(&delivery["attempts"][0]["at"]);
        let waits = time(&delivery["next_attempt_at"]).duration_since(attempted);
        // A date is in whole seconds, and was reckoned before the attempt.
        let expected = wait - 20..wait + 20;
        assert!(
            expected.contains(&waits.as_secs()),
            "{answer:?}: {waits:?} instead of {wait} s"
        );
        // But never sooner than the schedule has it.
        assert!(waits.as_secs() >= WAIT, "{answer:?}: {waits:?}");
    }
}
