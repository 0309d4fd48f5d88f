//! What the facts about stations mean.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;

use super::finding::{Finding, ago, moment, since};
use crate::words::counted;

/// A handshake that was refused longer ago keeps nobody out now.
const LATELY: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn handshakes(refused: u64) -> Finding {
    if refused == 0 {
        return Finding::ok("stations", "no handshake was refused");
    }
    let message = format!("handshakes refused since the start: {refused}");
    Finding::warning("stations", "handshakes_refused", message)
        .hint("`pipeletctl stations list` shows who is registered; the latest refusals follow")
}

pub(super) fn refused_handshake(refused: &v1::RefusedHandshake, now: Timestamp) -> Finding {
    let station = refused.station_id.as_deref();
    let who = match (station, refused.path.as_str()) {
        (Some(station), path) => format!("{station} at {path}"),
        (None, "") => "no request".to_owned(),
        (None, path) => path.to_owned(),
    };
    let mut message = format!(
        "{} from {}: {}",
        who, refused.remote_address, refused.detail
    );
    if !refused.subprotocols.is_empty() {
        let _ = write!(message, "; offered: {}", refused.subprotocols.join(", "));
    }
    let _ = write!(message, " ({}", counted(refused.count, "time", "times"));
    if refused.count > 1 {
        message.push_str(&since(refused.first_at, now));
    }
    if let Some(last) = moment(refused.last_at) {
        let _ = write!(message, ", last {}", ago(now.duration_since(last)));
    }
    message.push(')');
    let finding = Finding {
        code: refused.reason.clone().into(),
        ..Finding::warning("stations", "handshakes_refused", message).of_station(station)
    };
    match refused.reason.as_str() {
        "no_common_subprotocol" => finding.hint("set the charger to OCPP 1.6J (JSON)"),
        "bad_station_id" | "not_found" => {
            finding.hint("the charger's URL is ws://HOST:PORT/ocpp/ and its id")
        }
        "not_registered" => finding.hint("`pipeletctl stations add` registers it"),
        "no_credentials" | "wrong_credentials" | "wrong_security_profile" => {
            finding.hint("`pipeletctl stations set` changes what is asked of it")
        }
        _ => finding,
    }
}

pub(super) fn unstable(unstable: &v1::UnstableStation, now: Timestamp) -> Finding {
    let id = &unstable.station_id;
    let (code, what) = match unstable.reason.as_str() {
        "boot_loop" => ("boot_loop", "boots again and again"),
        _ => ("reconnect_loop", "connects again and again"),
    };
    let ended = unstable.last_end_reason.as_deref();
    let hint = match (code, ended) {
        ("boot_loop", _) => "look at its power supply and firmware",
        (_, Some("closed_by_station")) => {
            "the station closes it: look at its settings and firmware"
        }
        (_, Some("replaced")) => {
            "it dials anew beside a connection that holds, or two have this id"
        }
        (_, _) => "look at its network",
    };
    let since = since(unstable.since, now);
    let mut message = format!("{id} {what}: {} times{since}", unstable.count);
    if let Some(ended) = ended {
        let _ = write!(message, "; the last connection ended: {ended}");
    }
    let finding = Finding::warning("stations", code, message).of_station(Some(id));
    finding.hint(format!(
        "{hint}; `pipeletctl events list --station {id}` shows what it sends"
    ))
}

/// What keeps stations from being served, or one of them, a line each.
pub(crate) fn troubled_stations(
    status: &v1::GetStatusResponse,
    only: Option<&str>,
    now: Timestamp,
) -> Vec<String> {
    let lately = |at| moment(at).is_some_and(|at| now.duration_since(at) < LATELY);
    let refused = status.refused_handshakes.iter();
    let refused = refused.filter(|refused| lately(refused.last_at));
    let refused = refused.map(|refused| refused_handshake(refused, now));
    let loops = status.unstable_stations.iter();
    let loops = loops.map(|station| unstable(station, now));
    let all = refused.chain(loops);
    let wanted = all.filter(|it| only.is_none_or(|only| it.station_id.as_deref() == Some(only)));
    wanted
        .map(|finding| format!("! {}", finding.message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::finding::{
            Level,
            tests::{NOW, at, check, wire},
        },
        *,
    };

    #[test]
    fn refused_handshakes() {
        check(&handshakes(0), Level::Ok, "no handshake");
        check(&handshakes(3), Level::Warning, ": 3");
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut refused = v1::RefusedHandshake {
            reason: "no_common_subprotocol".to_owned(),
            detail: "another one is spoken".to_owned(),
            station_id: Some("CP1".to_owned()),
            path: "/ocpp/CP1".to_owned(),
            subprotocols: vec!["ocpp2.0.1".to_owned(), "ocpp2.1".to_owned()],
            remote_address: "10.0.0.7".to_owned(),
            count: 3,
            first_at: Some(wire(1_000_000 - 7_200)),
            last_at: Some(wire(1_000_000 - 300)),
        };
        let expected = "CP1 at /ocpp/CP1 from 10.0.0.7: another one is spoken; \
                        offered: ocpp2.0.1, ocpp2.1 (3 times since 1970-01-12T11:46:40Z (2 h), last 5 min \
                        ago)";
        check(&refused_handshake(&refused, now), Level::Warning, expected);
        refused.station_id = None;
        refused.path.clear();
        refused.subprotocols.clear();
        let expected = "no request from 10.0.0.7: another one is spoken (3 times";
        check(&refused_handshake(&refused, now), Level::Warning, expected);
    }

    #[test]
    fn stations_that_cannot_settle_are_named() {
        let station = v1::UnstableStation {
            station_id: "CP1".to_owned(),
            reason: "boot_loop".to_owned(),
            count: 12,
            since: Some(wire(NOW - 60)),
            last_at: Some(wire(NOW)),
            last_end_reason: Some("connection_lost".to_owned()),
        };
        let finding = unstable(&station, at(NOW));
        let words = "CP1 boots again and again: 12 times since 2026-04-14T12:33:56Z (1 min)";
        check(&finding, Level::Warning, words);
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(
            (&json["code"], &json["station_id"]),
            (&"boot_loop".into(), &"CP1".into())
        );
    }
}
