//! What must hold of every setting that can be read, and of what a receiver asks for.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use pipelet_domain::webhooks::{AllowedTarget, TargetPolicy};

use super::{ByteSize, Loaded, Sources, Surroundings, arguments::short_time, file, show};
use crate::{
    delivery::policy::{self, MAX_RETRY_AFTER, Outcome, RetrySchedule, Verdict},
    system::limits::Rate,
};

/// A setting's value, or a whole file; and a `Retry-After`.
pub(crate) fn setting(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Ok(schedule) = text.parse::<RetrySchedule>() {
        assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
        for attempt in [0, 1, 7, u32::MAX] {
            let wait = schedule.wait_after(attempt);
            assert!((RetrySchedule::MIN_WAIT..=RetrySchedule::MAX_WAIT).contains(&wait));
        }
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    if let Ok(target) = text.parse::<AllowedTarget>() {
        let policy = TargetPolicy {
            allow_private: false,
            allowed: vec![target],
        };
        let named = text.split('/').next().and_then(|text| text.parse().ok());
        assert!(named.is_some_and(|address| policy.allows(address)));
    }
    let _ = text.parse::<Rate>();
    let some = Duration::from_millis(1)..=Duration::from_hours(1);
    if let Ok(time) = short_time(text) {
        assert!(some.contains(&time));
    }
    retry_after(text);
    let surroundings = Surroundings {
        home: Some("/home".into()),
        ..Surroundings::default()
    };
    let sources = Sources::new(["pipeletd"], surroundings).expect("nothing is said");
    let (entries, faults) = file::parse(text, Path::new("pipeletd.toml"));
    if let Ok(Loaded { config, settings }) = sources.combine(entries, faults) {
        assert!(config.max_attempts > 0 && config.max_connections > 0);
        assert!(!config.delivery_timeout.is_zero() && !config.ping_interval.is_zero());
        // What is shown is a file that says the same.
        let (entries, faults) = file::parse(&show::as_toml(&settings, true), Path::new("again"));
        let again = sources
            .combine(entries, faults)
            .expect("it was right before");
        assert_eq!(format!("{:?}", again.config), format!("{config:?}"));
    }
}

/// Whatever a receiver asks for, the next attempt is no earlier than the schedule has it, and no
/// later than a day.
fn retry_after(value: &str) {
    let now = Timestamp::UNIX_EPOCH + Duration::from_hours(500_000);
    let asked = policy::parse_retry_after(value, now);
    let outcome = Outcome::<()>::Rejected {
        status: 503,
        retry_after: asked,
    };
    let waits: RetrySchedule = RetrySchedule::DEFAULT
        .parse()
        .expect("the default is right");
    let verdict = policy::decide(&outcome, 1, 7, &waits, now);
    let Verdict::RetryAt(due) = verdict else {
        panic!("it is no success, and not the last attempt: {verdict:?}");
    };
    assert!(due >= now + waits.wait_after(1) && due <= now + MAX_RETRY_AFTER);
}
