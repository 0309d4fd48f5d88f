//! What must hold of every body, query and cursor that a caller of the API sends.

use jiff::Timestamp;
use pipelet_domain::{
    events::StationId,
    webhooks::{Fault, Field, NewWebhook, Secret, TargetPolicy, Webhook, WebhookDraft, WebhookId},
};

use super::{
    super::{
        cursor,
        fields::{Fields, merged},
        webhooks::Figures,
        wire,
    },
    page::Query,
};

/// A request; the first byte says of which kind.
pub(crate) fn api(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 5 {
        0 => webhook(rest),
        1 => registration(rest),
        2 => id_tag(rest),
        3 => query(rest),
        _ => cursors(rest),
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn webhook(body: &[u8]) {
    let Ok(mut fields) = Fields::parse(body) else {
        return;
    };
    // One that was made is another each time.
    let Ok((draft, None)) = wire::webhook_draft(&mut fields) else {
        return;
    };
    check_secret(body, &draft);
    let policy = TargetPolicy::default();
    match (fields.finish(), draft.clone().create(&policy)) {
        (shape, Err(content)) => check_faults(&merged(shape, content)),
        (shape, Ok(_)) if !shape.is_empty() => check_faults(&shape),
        (_, Ok(new)) => {
            let host = new.url.url().host().expect("it was checked");
            assert!(policy.check_host(&host).is_ok());
            assert_eq!(shown(&new), Some(new.clone()));
            let current = new.into_webhook(WebhookId(1), now());
            // Said again, it changes nothing, though that is a change.
            let again = draft.update(&current, &policy, now());
            let revision = current.revision + 1;
            assert_eq!(
                again,
                Ok(Webhook {
                    revision,
                    ..current
                })
            );
        }
    }
}

/// The webhook that comes of a body with everything that is shown of this one, and its secret.
fn shown(webhook: &NewWebhook) -> Option<NewWebhook> {
    let secret = webhook.secret.as_ref();
    let signing = webhook.signing.as_ref();
    let signing = signing.map(|signing| signing.current().expose());
    let made = webhook.clone().into_webhook(WebhookId(1), now());
    let shown = wire::webhook(&made, Figures::default());
    let mut body = serde_json::to_value(shown).ok()?;
    body["secret_value"] = secret.map(|secret| secret.secret().expose()).into();
    body["signing_secret"] = signing.as_ref().map(Secret::expose).into();
    let mut fields = Fields::parse(body.to_string().as_bytes()).ok()?;
    let (draft, _) = wire::webhook_draft(&mut fields).ok()?;
    draft.create(&TargetPolicy::default()).ok()
}

fn check_faults(faults: &[Fault]) {
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(fault.pointer.starts_with('/'), "{}", fault.pointer);
        assert!(!fault.message.is_empty());
    }
}

/// A secret is not told back, least of all one that is refused.
fn check_secret(body: &[u8], draft: &WebhookDraft) {
    const MARK: &str = "4b1d-mark-of-the-secret-";
    let Field::Value(secret) = &draft.secret_value else {
        return;
    };
    // The fuzzer sees what is searched for, and puts it where it may be told back.
    if String::from_utf8_lossy(body).contains("mark") {
        return;
    }
    let marked = WebhookDraft {
        secret_value: Field::Value(Secret::new(format!("{MARK}{}", secret.expose()))),
        ..draft.clone()
    };
    if let Err(faults) = marked.create(&TargetPolicy::default()) {
        assert!(!faults.iter().any(|fault| fault.message.contains(MARK)));
    }
}

fn registration(body: &[u8]) {
    let Ok(mut fields) = Fields::parse(body) else {
        return;
    };
    let draft = wire::registration_draft(&mut fields);
    let station = StationId::new("S").expect("it is short");
    match draft.clone().apply(&station, None, [1; 16], now()) {
        Ok(made) => {
            let again = draft.apply(&station, Some(&made), [1; 16], now());
            assert_eq!(again, Ok(made));
        }
        Err(faults) => check_faults(&faults),
    }
}

fn id_tag(body: &[u8]) {
    let Ok(mut fields) = Fields::parse(body) else {
        return;
    };
    let tag = fields.string("id_tag");
    let draft = wire::id_tag_draft(&mut fields);
    match draft.clone().create(tag, now()) {
        Ok(made) => assert_eq!(draft.update(&made, now()), Ok(made)),
        Err(faults) => check_faults(&faults),
    }
}

fn query(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let mut query = Query::parse(text);
    let since = query.time("since");
    let page = query.page(cursor::to_number);
    let known = |name: &str| text.split('&').any(|pair| pair.starts_with(name));
    assert!(since.is_none() || text.contains("since") || text.contains('%'));
    assert!(page.after.is_none() || known("cursor") || text.contains('%'));
    assert!((1..=super::super::MAX_PAGE).contains(&page.limit));
    let _ = query.finish();
}

fn cursors(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    if let Ok(number) = cursor::to_number(text) {
        assert_eq!(cursor::to_number(&cursor::of_number(number)), Ok(number));
    }
    let webhook = WebhookId(1);
    if let Ok(place) = cursor::to_delivery(webhook, text) {
        let again = cursor::to_delivery(webhook, &cursor::of_delivery(place));
        assert_eq!(again, Ok(place));
    }
    if let Ok(station) = cursor::to_station(text) {
        let again = cursor::to_station(&cursor::of_station(&station));
        assert_eq!(again, Ok(station));
    }
    if let Ok(tag) = cursor::to_id_tag(text) {
        assert_eq!(cursor::to_id_tag(&cursor::of_id_tag(&tag)), Ok(tag));
    }
}
