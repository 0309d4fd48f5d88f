use super::{
    Field::{Absent, Null, Value},
    *,
};
use crate::webhooks::WebhookId;

const STRICT: TargetPolicy = TargetPolicy {
    allow_private: false,
    allowed: Vec::new(),
};

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn text(value: &str) -> Field<String> {
    Value(value.to_owned())
}

fn secret(value: &str) -> Field<Secret> {
    Value(Secret::new(value))
}

fn names(names: &[&str]) -> Field<Vec<String>> {
    Value(names.iter().map(|name| (*name).to_owned()).collect())
}

/// The contract's own example.
fn example() -> WebhookDraft {
    WebhookDraft {
        name: text("My Integration"),
        url: text("https://my-app.example.com/webhooks/ocpp"),
        enabled: Value(true),
        events: names(&["StartTransaction", "StopTransaction"]),
        station_ids: Absent,
        secret_header: text("X-Webhook-Secret"),
        secret_value: secret("my-secret-value-here"),
        signing_secret: secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ..WebhookDraft::default()
    }
}

fn stored() -> Webhook {
    let webhook = example().create(&STRICT).unwrap();
    webhook.into_webhook(WebhookId(42), time(1))
}

fn codes(faults: &[Fault]) -> Vec<(&str, &str)> {
    faults
        .iter()
        .map(|fault| (fault.pointer.as_str(), fault.code))
        .collect()
}

#[test]
fn the_example_is_created_as_written() {
    let webhook = example().create(&STRICT).unwrap();
    assert_eq!(webhook.name, "My Integration");
    assert_eq!(
        webhook.url.as_str(),
        "https://my-app.example.com/webhooks/ocpp"
    );
    assert!(webhook.enabled);
    assert_eq!(
        webhook.events.names(),
        ["StartTransaction", "StopTransaction"]
    );
    assert_eq!(webhook.secret.unwrap().text(), "X-Webhook-Secret");
}

#[test]
fn a_secret_and_enabled_may_be_left_out() {
    let draft = WebhookDraft {
        enabled: Absent,
        secret_header: Absent,
        secret_value: Null,
        ..example()
    };
    let webhook = draft.create(&STRICT).unwrap();
    assert!(webhook.enabled);
    assert_eq!(webhook.secret, None);
}

#[test]
fn what_is_wrong_with_a_new_one() {
    let check = |draft: WebhookDraft, expected: &[(&str, &str)]| {
        let faults = draft.clone().create(&STRICT).unwrap_err();
        assert_eq!(codes(&faults), expected, "{draft:?}");
    };
    check(
        WebhookDraft::default(),
        &[
            ("/name", "required"),
            ("/url", "required"),
            ("/events", "required"),
        ],
    );
    check(
        WebhookDraft {
            name: text(" "),
            description: text(&"é".repeat(2001)),
            url: text("ftp://example.com"),
            enabled: Null,
            events: names(&["Heartbeat", "Bogus", "group:Bogus"]),
            station_ids: names(&["A*", "*A", ""]),
            secret_header: text("Host"),
            secret_value: secret("a\nb"),
            signing_secret: secret("whsec_short"),
        },
        &[
            ("/name", "required"),
            ("/description", "too_long"),
            ("/url", "invalid_url"),
            ("/events/1", "unknown_event"),
            ("/events/2", "unknown_event_group"),
            ("/station_ids/1", "invalid_pattern"),
            ("/station_ids/2", "required"),
            ("/secret_header", "forbidden_header"),
            ("/secret_value", "invalid_secret"),
            ("/signing_secret", "invalid_signing_secret"),
        ],
    );
    let one = |change: fn(&mut WebhookDraft), pointer: &str, code: &str| {
        let mut draft = example();
        change(&mut draft);
        check(draft, &[(pointer, code)]);
    };
    one(|d| d.name = text(&"x".repeat(201)), "/name", "too_long");
    one(|d| d.name = text("a\u{7}"), "/name", "invalid_name");
    one(
        |d| d.url = text("http://10.0.0.1/"),
        "/url",
        "private_target",
    );
    one(
        |d| d.url = text("http://localhost"),
        "/url",
        "private_target",
    );
    one(|d| d.events = names(&[]), "/events", "required");
    one(
        |d| d.events = names(&["Heartbeat"; 101]),
        "/events",
        "too_many",
    );
    one(
        |d| d.station_ids = names(&["A"; 1001]),
        "/station_ids",
        "too_many",
    );
    one(
        |d| d.secret_header = text("a b"),
        "/secret_header",
        "invalid_header",
    );
    one(|d| d.secret_header = Absent, "/secret_header", "required");
    one(|d| d.secret_header = Null, "/secret_header", "required");
    one(|d| d.secret_value = Absent, "/secret_value", "required");
    one(|d| d.secret_value = secret(""), "/secret_value", "required");
}

#[test]
fn the_flag_allows_private_targets() {
    let open = TargetPolicy {
        allow_private: true,
        allowed: Vec::new(),
    };
    let draft = WebhookDraft {
        url: text("http://127.0.0.1:3000/"),
        ..example()
    };
    assert!(draft.create(&open).is_ok());
}

#[test]
fn an_update_leaves_what_it_does_not_mention() {
    let nothing = WebhookDraft::default();
    let expected = Webhook {
        updated_at: time(2),
        revision: 2,
        ..stored()
    };
    assert_eq!(nothing.update(&stored(), &STRICT, time(2)), Ok(expected));

    let draft = WebhookDraft {
        enabled: Value(false),
        ..WebhookDraft::default()
    };
    let updated = draft.update(&stored(), &STRICT, time(2)).unwrap();
    assert!(!updated.enabled);
    assert_eq!(updated.secret, stored().secret);
    assert_eq!(updated.created_at, time(1));
}

#[test]
fn stations_in_an_update() {
    let update = |station_ids| {
        let current = WebhookDraft {
            station_ids: names(&["A", "B*"]),
            ..example()
        };
        let current = current.create(&STRICT).unwrap();
        let draft = WebhookDraft {
            station_ids,
            ..WebhookDraft::default()
        };
        let current = current.into_webhook(WebhookId(42), time(1));
        let updated = draft.update(&current, &STRICT, time(2)).unwrap();
        updated.stations.patterns().to_vec()
    };
    assert_eq!(update(Absent), ["A", "B*"]);
    assert_eq!(update(names(&["C"])), ["C"]);
    assert_eq!(update(names(&[])), [""; 0]);
    assert_eq!(update(Null), [""; 0]);
}

#[test]
fn secrets_in_an_update() {
    let update = |current: &Webhook, header: Field<String>, value: Field<Secret>| {
        let draft = WebhookDraft {
            secret_header: header,
            secret_value: value,
            ..WebhookDraft::default()
        };
        let updated = draft.update(current, &STRICT, time(2))?;
        let shown = |s: &SecretHeader| format!("{}: {}", s.text(), s.secret().expose());
        Ok::<_, Vec<Fault>>(updated.secret.as_ref().map(shown))
    };
    let check = |header, value, expected: Option<&str>| {
        let got = update(&stored(), header, value).unwrap();
        assert_eq!(got.as_deref(), expected);
    };
    check(text("X-New"), Absent, Some("X-New: my-secret-value-here"));
    check(Absent, secret("new"), Some("X-Webhook-Secret: new"));
    check(text("X-New"), secret("new"), Some("X-New: new"));
    check(Null, Absent, None);
    check(Absent, Null, None);

    let without = Webhook {
        secret: None,
        ..stored()
    };
    let check = |current: &Webhook, header, value, expected: (&str, &str)| {
        let faults = update(current, header, value).unwrap_err();
        assert_eq!(codes(&faults), [expected]);
    };
    let value_missing = ("/secret_value", "required");
    let header_missing = ("/secret_header", "required");
    check(&without, text("X-New"), Absent, value_missing);
    check(&without, Absent, secret("new"), header_missing);
    check(&stored(), Null, secret("new"), header_missing);
    check(&stored(), text("X-New"), Null, value_missing);
}

#[test]
fn a_null_in_an_update_is_no_value() {
    let draft = WebhookDraft {
        name: Null,
        url: Null,
        enabled: Null,
        events: Null,
        ..WebhookDraft::default()
    };
    let faults = draft.update(&stored(), &STRICT, time(2)).unwrap_err();
    assert_eq!(
        codes(&faults),
        [
            ("/name", "required"),
            ("/url", "required"),
            ("/enabled", "required"),
            ("/events", "required"),
        ]
    );
}

#[test]
fn a_draft_hides_its_secret() {
    assert!(!format!("{:?}", example()).contains("my-secret-value-here"));
}

#[test]
fn a_signing_secret_takes_the_place_of_all_before_at_once() {
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let signing = |field: Field<Secret>, current: &Webhook| {
        let draft = WebhookDraft {
            signing_secret: field,
            ..WebhookDraft::default()
        };
        draft.update(current, &STRICT, time(9)).unwrap().signing
    };
    let parsed = |text| SigningSecret::parse(&Secret::new(text)).unwrap();
    let rotated = stored().rotated(parsed(other), time(2));
    assert_eq!(signing(Absent, &rotated), rotated.signing);
    // The present one said again is no change.
    assert_eq!(signing(secret(other), &rotated), rotated.signing);
    let replaced = signing(secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), &rotated);
    assert_eq!(replaced.unwrap().retired(), []);
    assert_eq!(signing(Null, &rotated), None);
}
