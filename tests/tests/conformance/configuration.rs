//! The configuration: entries of each kind, their revisions, and who watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use pipelet_domain::{
    deliveries::{Stage, StoredWebhook},
    events::StationId,
    id_tags::{IdTag, IdTagEntry, TagStatus},
    projection::BootStatus,
    registration::{PasswordHash, Registration, SecurityProfile},
    webhooks::{Field, Secret, SigningSecret, TargetPolicy, WebhookDraft, WebhookId},
};

use super::{Stores, at, check, check_reopened};
use pipeletd::{
    auth::{ApiKey, ApiKeyInfo, Role},
    store::{ConfigurationChange, Counter, Entry, EntryKey, PutError, Revision},
};

fn webhook(id: u64) -> StoredWebhook {
    let draft = WebhookDraft {
        name: Field::Value("My Integration".to_owned()),
        url: Field::Value("https://my-app.example.com/webhooks/ocpp".to_owned()),
        events: Field::Value(vec!["MeterValues".to_owned(), "group:security".to_owned()]),
        station_ids: Field::Value(vec!["WALLBOX_*".to_owned(), "S1".to_owned()]),
        secret_header: Field::Value("X-Webhook-Secret".to_owned()),
        secret_value: Field::Value(Secret::new("my-secret-value-here")),
        signing_secret: Field::Value(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        ..WebhookDraft::default()
    };
    let new = draft.create(&TargetPolicy::default()).unwrap();
    let newer = Secret::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    StoredWebhook {
        webhook: new
            .into_webhook(WebhookId(id), at(5))
            .rotated(SigningSecret::parse(&newer).unwrap(), at(6)),
        stage: Stage::Active,
    }
}

fn registration(station: &str) -> Registration {
    Registration {
        station: StationId::new(station).unwrap(),
        password: Some(PasswordHash::new("0123456789abcdef", [3; 16]).unwrap()),
        profile: Some(SecurityProfile::TlsBasic),
        boot_policy: BootStatus::Pending,
        created_at: at(1),
        updated_at: at(2),
    }
}

fn id_tag(text: &str, status: TagStatus) -> IdTagEntry {
    IdTagEntry {
        id_tag: IdTag::new(text).unwrap(),
        status,
        expiry_date: Some(at(77)),
        parent_id_tag: IdTag::new("Parent").ok(),
        created_at: at(1),
        updated_at: at(2),
    }
}

fn api_key(id: u64) -> ApiKeyInfo {
    ApiKeyInfo {
        id,
        name: "N".to_owned(),
        created_at: at(1),
        hash: ApiKey::parse("hcpms_live_0123456789abcdef").unwrap().hash(),
        role: Role::Operator,
        expires_at: Some(at(9)),
        last_used_at: None,
    }
}

fn one_of_each() -> [Entry; 4] {
    [
        Entry::Webhook(webhook(7)),
        Entry::ApiKey(api_key(3)),
        Entry::IdTag(id_tag("Tag", TagStatus::Blocked)),
        Entry::Registration(registration("A")),
    ]
}

pub(super) type Entries = BTreeMap<EntryKey, (Entry, Revision)>;

/// What somebody who watches from now on has been told, put together.
pub(super) async fn watched(store: &Stores) -> Arc<Mutex<Entries>> {
    let entries = Arc::<Mutex<Entries>>::default();
    let told = Arc::clone(&entries);
    let observer = move |change: &ConfigurationChange| {
        let mut told = told.lock().unwrap();
        match change {
            ConfigurationChange::Put(entry, revision) => {
                told.insert(entry.key(), (entry.clone(), *revision));
            }
            ConfigurationChange::Removed(key) => {
                told.remove(key).expect("it was there");
            }
        }
    };
    store.configuration.watch(Box::new(observer)).await.unwrap();
    entries
}

pub(super) async fn put_one_of_each(store: &Stores) {
    for entry in one_of_each() {
        store.configuration.put_if(entry, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_what_is_there_and_what_becomes_of_it() {
    check(async |store| {
        let from_the_start = watched(store).await;
        let mut revisions = Vec::new();
        for entry in one_of_each() {
            revisions.push(store.configuration.put_if(entry, None).await.unwrap());
        }
        assert!(revisions.is_sorted_by(|one, next| one < next));
        let later = watched(store).await;
        let of_all = one_of_each().into_iter().zip(&revisions);
        let expected = of_all.map(|(entry, revision)| (entry.key(), (entry, *revision)));
        assert_eq!(*later.lock().unwrap(), expected.collect::<Entries>());
        assert_eq!(*later.lock().unwrap(), *from_the_start.lock().unwrap());

        let changed = Entry::IdTag(id_tag("TAG", TagStatus::Accepted));
        let revision = store
            .configuration
            .put_if(changed.clone(), Some(revisions[2]))
            .await;
        let key = one_of_each()[1].key();
        store
            .configuration
            .remove_if(key.clone(), revisions[1])
            .await
            .unwrap();
        for told in [from_the_start, later] {
            let told = told.lock().unwrap();
            let found = &told[&changed.key()];
            assert_eq!(*found, (changed.clone(), *revision.as_ref().unwrap()));
            assert!(!told.contains_key(&key));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_revision_that_is_named_is_changed() {
    check(async |store| {
        let [entry, ..] = one_of_each();
        let key = entry.key();
        let put = async |expected| {
            let put = store.configuration.put_if(entry.clone(), expected).await;
            put.map_err(|error| assert!(matches!(error, PutError::Conflict), "{error}"))
        };
        let remove = async |expected| {
            let removed = store.configuration.remove_if(key.clone(), expected).await;
            removed.map_err(|error| assert!(matches!(error, PutError::Conflict), "{error}"))
        };
        assert!(put(Some(Revision(1))).await.is_err(), "it is not there");
        assert!(remove(Revision(1)).await.is_err(), "it is not there");
        let first = put(None).await.unwrap();
        assert!(put(None).await.is_err(), "it is there");
        let second = put(Some(first)).await.unwrap();
        assert!(put(Some(first)).await.is_err(), "it was changed");
        assert!(remove(first).await.is_err(), "it was changed");
        remove(second).await.unwrap();
        // It is not what was there before.
        let third = put(None).await.unwrap();
        assert!(third > second);
        assert!(put(Some(second)).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_survives_a_restart() {
    check_reopened(
        async |store| {
            put_one_of_each(store).await;
            let removed = Entry::Registration(registration("B"));
            let revision = store
                .configuration
                .put_if(removed.clone(), None)
                .await
                .unwrap();
            store
                .configuration
                .remove_if(removed.key(), revision)
                .await
                .unwrap();
        },
        async |store| {
            let entries = watched(store).await.lock().unwrap().clone();
            let stored = entries.values().map(|(entry, _)| entry.clone());
            let mut expected = one_of_each().to_vec();
            expected.sort_by_key(Entry::key);
            assert_eq!(stored.collect::<Vec<_>>(), expected);
            let (entry, revision) = entries.into_values().next().unwrap();
            let later = store
                .configuration
                .put_if(entry, Some(revision))
                .await
                .unwrap();
            assert!(later > revision, "no revision comes again");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_never_given_out_twice() {
    check(async |store| {
        for counter in [Counter::Webhook, Counter::ApiKey, Counter::Transaction] {
            for expected in [1, 101, 201] {
                assert_eq!(
                    store.configuration.reserve(counter, 100).await.unwrap(),
                    expected
                );
            }
        }
        let keys = [
            store.configuration.transaction_key().await,
            store.configuration.transaction_key().await,
        ];
        let [first, second] = keys.map(Result::unwrap);
        assert_eq!(first, second);
    })
    .await;
}
