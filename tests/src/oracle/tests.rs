//! The judge must be able to find fault.

use super::*;

const W: Key = Key(1);
const KINDS: &[&str] = &["StartTransaction"];
const KIND: &str = KINDS[0];

fn oracle() -> (Oracle, Instant) {
    let mut oracle = Oracle::new(Rules {
        waits: vec![Duration::from_millis(100), Duration::from_millis(200)],
        max_attempts: 4,
        healthy: vec![W],
        longest_way: Duration::from_secs(1),
    });
    let now = Instant::now();
    oracle.wants(W, KINDS, true, now);
    (oracle, now)
}

fn arrival(number: Number, attempt: u32, at: Instant, taken: bool) -> Arrival {
    Arrival {
        number,
        attempt,
        event: u128::from(number),
        transaction: None,
        at,
        taken,
    }
}

const fn counts(received: u64, delivered: u64, pending: u64, dead: u64) -> DeliveryCounts {
    DeliveryCounts {
        received,
        delivered,
        pending,
        dead,
        cancelled: 0,
    }
}

#[test]
fn what_goes_well_is_no_fault() {
    let (mut oracle, now) = oracle();
    for number in 0..3 {
        assert_eq!(oracle.sends(KIND, now), number);
        oracle.answered(number, Some(70 + i64::from(number)), now);
    }
    oracle.arrived(W, arrival(0, 1, now, true));
    oracle.check_delivery_counts(W, counts(3, 1, 2, 0), 3);
    // A failure, its retry, and what a crash repeats.
    let later = now + Duration::from_millis(100);
    oracle.arrived(W, arrival(1, 1, now, false));
    oracle.arrived(W, arrival(1, 2, later, true));
    oracle.arrived(W, arrival(1, 2, later, true));
    oracle.check_settled(W, counts(3, 2, 0, 1), &BTreeMap::from([(2, 4)]));
    // The dead letter is replayed at once.
    oracle.arrived(W, arrival(2, 4, later, false));
    oracle.arrived(W, arrival(2, 5, later, true));
    // A crash may make it forget that, and attempt it once more as it did before.
    oracle.kills(later);
    oracle.arrived(W, arrival(2, 4, later, true));
    oracle.check_settled(W, counts(3, 3, 0, 0), &BTreeMap::new());
    assert_eq!(oracle.faults(), []);
    assert_eq!(oracle.counts().duplicates, 2);
}

/// Sends two events, both answered, and then does something that must be found.
fn check(what: &str, wrong: impl FnOnce(&mut Oracle, Instant), found: impl Fn(&Fault) -> bool) {
    let (mut oracle, now) = oracle();
    for number in 0..2 {
        oracle.sends(KIND, now);
        oracle.answered(number, None, now);
    }
    wrong(&mut oracle, now);
    let faults = oracle.faults();
    assert!(faults.iter().any(found), "{what}: {faults:?}");
}

#[test]
fn what_goes_wrong_is_found() {
    let none = BTreeMap::new();
    check(
        "a lost event",
        |oracle, now| {
            oracle.arrived(W, arrival(0, 1, now, true));
            oracle.check_settled(W, counts(2, 2, 0, 0), &none);
        },
        |fault| matches!(fault, Fault::Lost { number: 1, .. }),
    );
    check(
        "an event that was only refused",
        |oracle, now| {
            oracle.arrived(W, arrival(0, 1, now, true));
            oracle.arrived(W, arrival(1, 1, now, false));
            oracle.check_settled(W, counts(2, 2, 0, 0), &none);
        },
        |fault| matches!(fault, Fault::Lost { number: 1, .. }),
    );
    check(
        "books that don't balance",
        |oracle, _| oracle.check_delivery_counts(W, counts(2, 1, 0, 0), 2),
        |fault| matches!(fault, Fault::Unbalanced { .. }),
    );
    check(
        "an event missing from the books",
        |oracle, _| oracle.check_delivery_counts(W, counts(1, 1, 0, 0), 2),
        |fault| matches!(fault, Fault::Miscounted { .. }),
    );
    check(
        "an event too many in the books",
        |oracle, _| oracle.check_delivery_counts(W, counts(3, 3, 0, 0), 2),
        |fault| matches!(fault, Fault::Miscounted { .. }),
    );
    check(
        "something pending in the end",
        |oracle, _| oracle.check_settled(W, counts(2, 1, 1, 0), &none),
        |fault| matches!(fault, Fault::StillPending { .. }),
    );
    check(
        "a dead letter that is gone",
        |oracle, _| oracle.check_settled(W, counts(2, 1, 0, 1), &none),
        |fault| matches!(fault, Fault::DeadLetters { .. }),
    );
    check(
        "a death before its time",
        |oracle, _| oracle.check_settled(W, counts(2, 1, 0, 1), &BTreeMap::from([(0, 3)])),
        |fault| matches!(fault, Fault::DiedEarly { .. }),
    );
    check(
        "a hasty retry",
        |oracle, now| {
            oracle.arrived(W, arrival(0, 2, now, false));
            oracle.arrived(W, arrival(0, 3, now + Duration::from_millis(150), false));
        },
        |fault| matches!(fault, Fault::TooEarly { .. }),
    );
    check(
        "an event that came late",
        |oracle, now| oracle.arrived(W, arrival(0, 1, now + Duration::from_secs(2), true)),
        |fault| matches!(fault, Fault::Late { number: 0, .. }),
    );
    check(
        "an attempt after its successor",
        |oracle, now| {
            oracle.arrived(W, arrival(0, 2, now, false));
            oracle.arrived(W, arrival(0, 1, now, false));
        },
        |fault| matches!(fault, Fault::WentBack { .. }),
    );
    check(
        "one event told as two",
        |oracle, now| {
            oracle.arrived(W, arrival(0, 1, now, true));
            let event = 99;
            oracle.arrived(
                W,
                Arrival {
                    event,
                    ..arrival(0, 1, now, true)
                },
            );
        },
        |fault| matches!(fault, Fault::TwoEvents { .. }),
    );
    check(
        "an event that nobody sent",
        |oracle, now| oracle.arrived(W, arrival(2, 1, now, true)),
        |fault| matches!(fault, Fault::NeverSent { .. }),
    );
}

#[test]
fn transaction_ids_that_are_not_unique_are_found() {
    let (mut oracle, now) = oracle();
    for number in 0..2 {
        oracle.sends(KIND, now);
        oracle.answered(number, Some(7), now);
    }
    let numbers = [0, 1];
    assert_eq!(
        oracle.faults(),
        [Fault::TransactionTwice { id: 7, numbers }]
    );
    let transaction = Some(8);
    oracle.arrived(
        W,
        Arrival {
            transaction,
            ..arrival(0, 1, now, true)
        },
    );
    let ids = [7, 8];
    assert_eq!(oracle.faults(), [Fault::TwoTransactions { number: 0, ids }]);
}

#[test]
fn what_a_webhook_did_not_want_for_certain_is_not_missed() {
    let (mut oracle, now) = oracle();
    let before = oracle.sends(KIND, now);
    oracle.may_not_want(W);
    oracle.answered(before, None, now);
    oracle.wants(W, KINDS, true, now + Duration::from_secs(1));
    let during = oracle.sends(KIND, now);
    oracle.answered(during, None, now);
    let after = oracle.sends(KIND, now + Duration::from_secs(2));
    oracle.answered(after, None, now);
    oracle.check_settled(W, counts(3, 3, 0, 0), &BTreeMap::new());
    let lost = Fault::Lost {
        webhook: W,
        number: after,
        kind: KIND,
    };
    assert_eq!(oracle.faults(), [lost]);
}

fn shape(name: &str) -> Shape {
    Shape {
        name: name.to_owned(),
        url: "http://127.0.0.1/1".to_owned(),
        events: vec![KIND.to_owned()],
        enabled: true,
    }
}

/// Creates a webhook as `a`, asks to have it changed to `b`, and finds it as this afterwards.
fn is_right(answered: bool, found: Option<&str>) -> bool {
    let mut registrations = Registrations::default();
    registrations.asks(W, Some(shape("a")));
    registrations.answered(W, Instant::now());
    registrations.asks(W, Some(shape("b")));
    if answered {
        registrations.answered(W, Instant::now());
    }
    let found = found.map(|name| (W, shape(name)));
    let found = found.into_iter().collect();
    registrations.check(&found, true, Instant::now()).is_empty()
}

#[test]
fn a_change_that_was_answered_holds_and_another_may() {
    assert!(is_right(true, Some("b")));
    assert!(!is_right(true, Some("a")));
    assert!(!is_right(true, None));
    assert!(is_right(false, Some("a")));
    assert!(is_right(false, Some("b")));
    assert!(!is_right(false, Some("c")));
    assert!(!is_right(false, None));
}

#[test]
fn what_is_deleted_stays_so() {
    let mut registrations = Registrations::default();
    registrations.asks(W, Some(shape("a")));
    registrations.answered(W, Instant::now());
    registrations.asks(W, None);
    let now = Instant::now();
    assert_eq!(registrations.check(&BTreeMap::new(), true, now), []);
    let back = BTreeMap::from([(W, shape("a"))]);
    assert_eq!(registrations.check(&back, true, now).len(), 1);
}

#[test]
fn what_is_sent_goes_where_the_webhook_is() {
    let at = |url: &str| {
        let url = url.to_owned();
        Some(Shape { url, ..shape("a") })
    };
    let (now, mut registrations) = (Instant::now(), Registrations::default());
    assert!(!registrations.may_be_at(W, "one", now));
    registrations.asks(W, at("one"));
    assert!(registrations.may_be_at(W, "one", now));
    registrations.answered(W, now);
    registrations.asks(W, at("two"));
    registrations.answered(W, now);
    registrations.asks(W, None);
    registrations.answered(W, now);
    for (now, expected) in [(now, true), (now + 2 * Registrations::SETTLES, false)] {
        for url in ["one", "two"] {
            assert_eq!(registrations.may_be_at(W, url, now), expected, "{url}");
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Makes a key, which lives for two seconds where it doesn't live for ever, and does something to it.
/// Whether it was right then to let the caller in, and not to, so many seconds later.
fn may(lives_for_ever: bool, change: impl Fn(&mut Keys), seconds: u32) -> [bool; 2] {
    [true, false].map(|let_in| {
        let now = Instant::now();
        let mut keys = Keys::default();
        keys.made(CreatedKey {
            id: 1,
            key: String::new(),
            life: (!lives_for_ever).then_some(2 * SECOND),
            asked: now,
            answered: now + SECOND / 2,
        });
        change(&mut keys);
        let at = now + seconds * SECOND;
        let faults = keys.called(1, let_in, at, at);
        // The uncertainty is over.
        assert_eq!(keys.called(1, let_in, at, at).is_empty(), faults.is_empty());
        faults.is_empty()
    })
}

#[test]
fn a_key_lets_in_until_it_is_revoked_or_expires() {
    const MUST: [bool; 2] = [true, false];
    const MUST_NOT: [bool; 2] = [false, true];
    const MAY: [bool; 2] = [true, true];
    let nothing = |_: &mut Keys| {};
    let asked = |keys: &mut Keys| keys.revokes(1);
    let answered = |keys: &mut Keys| {
        keys.revokes(1);
        keys.revoked(1);
    };
    assert_eq!(may(true, nothing, 9), MUST);
    assert_eq!(may(true, asked, 9), MAY);
    assert_eq!(may(true, answered, 9), MUST_NOT);
    assert_eq!(may(false, nothing, 1), MUST);
    assert_eq!(may(false, nothing, 2), MAY);
    assert_eq!(may(false, nothing, 3), MUST_NOT);
    assert_eq!(may(false, asked, 3), MUST_NOT);
    assert_eq!(may(false, answered, 1), MUST_NOT);
    let mut keys = Keys::default();
    asked(&mut keys);
    let now = Instant::now();
    assert_eq!(keys.called(1, true, now, now), []);
}

#[test]
fn a_secret_and_the_one_before_sign_together() {
    let (now, mut rotation) = (Instant::now(), Rotation::default());
    let later = now + 2 * Registrations::SETTLES;
    rotation.asks();
    assert_eq!(rotation.pairs(later), Some(vec![[0, 0]]));
    for _ in 0..2 {
        rotation.answered(now);
        rotation.asks();
    }
    let underway = vec![[0, 0], [1, 0], [2, 1]];
    assert_eq!(rotation.pairs(now), Some(underway));
    assert_eq!(rotation.pairs(later), Some(vec![[2, 1]]));
    // What was replaced signs on, but not for ever.
    rotation.asks();
    assert_eq!(rotation.pairs(later), Some(vec![[2, 1]]));
    rotation.asks();
    assert_eq!(rotation.pairs(later), None);
    rotation.answered(later);
    assert_eq!(rotation.pairs(later), None);
    let last = later + 2 * Registrations::SETTLES;
    assert_eq!(rotation.pairs(last), Some(vec![[5, 2]]));
    rotation.asks();
    rotation.answered(last);
    assert_eq!(
        rotation.pairs(last + 2 * Registrations::SETTLES),
        Some(vec![[6, 5]])
    );
}
