//! One POST.

use jiff::Timestamp;
use pipelet_proto::{json::moment, v1::Attempt};

use super::time::shown;
use crate::{table, words::or_dash};

/// From its beginning to its end.
pub(super) fn span(attempt: &Attempt) -> Option<(Timestamp, Timestamp)> {
    let at = moment(attempt.at)?;
    let duration = std::time::Duration::from_millis(attempt.duration_ms);
    Some((at, at + duration))
}

/// The code of the failure, or the status of the success.
pub(super) fn outcome(attempt: &Attempt) -> String {
    let status = attempt.status_code.map(|status| status.to_string());
    or_dash(attempt.code.clone().or(status))
}

/// Where its time went; nothing where that is not known.
pub(super) fn parts(attempt: &Attempt) -> Option<String> {
    let parts = [
        ("DNS", attempt.lookup_us),
        ("connect", attempt.connect_us),
        ("TLS", attempt.tls_us),
        ("first byte", attempt.first_byte_us),
    ];
    let told = parts.iter().filter_map(|(name, time)| {
        #[expect(clippy::cast_precision_loss, reason = "it is for people")]
        let millis = (*time)? as f64 / 1000.0;
        Some(format!("{name} {millis:.1} ms"))
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let kept = attempt.connect_us.is_none() && attempt.first_byte_us.is_some();
    match (told.is_empty(), kept) {
        (true, _) => None,
        (false, true) => Some(format!("kept connection, {told}")),
        (false, false) => Some(told),
    }
}

pub(super) fn table(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return String::new();
    }
    let rows = attempts.iter().map(|attempt| {
        vec![
            attempt.number.to_string(),
            shown(attempt.at),
            or_dash(attempt.status_code),
            format!("{} ms", attempt.duration_ms),
            or_dash(attempt.code.as_ref()),
            or_dash(attempt.error.as_ref()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    table::section(
        &["NO", "AT", "STATUS", "DURATION", "CODE", "ERROR"],
        &rows,
        &["STATUS"],
    )
}
