//! Ten thousand frames that were valid before somebody's memory or line failed.

use std::collections::HashMap;

use pipelet_tests::{
    RawSocket, Request,
    raw::first_byte::{self, TEXT},
};
use tokio::task::JoinSet;

use crate::scene::Scene;

/// Nothing of it ends the daemon, and no connection ends without a reason.
#[tokio::test]
async fn mutated_frames_end_nothing_without_a_reason() {
    const SEED: u64 = 0x0cc9_16a5_ee09_57a7;
    /// So many that none of them floods.
    const CONNECTIONS: u64 = 40;
    const FRAMES: u32 = 10_000 / 40;

    let scene = Scene::new(&["StationDisconnected"]).await;
    let mut talking = JoinSet::new();
    for number in 0..CONNECTIONS {
        let ocpp = scene.daemon.ocpp();
        talking.spawn(async move {
            let mut random = Random(SEED ^ number);
            let id = format!("S{number}");
            let mut socket = RawSocket::open(ocpp, &id).await;
            let mut ended = 0;
            for frame in 0..FRAMES {
                let (first_byte, bytes) = mutated(&mut random);
                socket.frame(first_byte, &bytes).await;
                if frame % 25 == 24 && !answers(&mut socket, frame).await {
                    ended += 1;
                    socket = RawSocket::open(ocpp, &id).await;
                }
            }
            ended
        });
    }
    let mut ended = 0;
    while let Some(station) = talking.join_next().await {
        ended += station.expect("a station that could go on");
    }
    assert!(ended > 0, "no text that is no UTF-8 was among them");
    let sane = |request: &Request| request.json()["station_id"] == "SANE";
    scene.station("SANE").await.close().await;
    scene.receiver.await_request("the last end", sane).await;
    let mut reasons = HashMap::<String, u32>::new();
    for request in scene.receiver.requests().iter().filter(|r| !sane(r)) {
        let reason = request.json()["payload"]["reason"].clone();
        *reasons
            .entry(reason.as_str().expect("a reason").to_owned())
            .or_default() += 1;
    }
    // What the stations broke off themselves, at the end, may still be on its way.
    reasons.remove("connection_lost");
    assert_eq!(
        reasons,
        HashMap::from([("not_utf8".to_owned(), ended)]),
        "seed {SEED:#x}"
    );
}

/// Whether the connection still answers; whatever comes before that is read. It is no JSON of
/// ours always: an id with half a surrogate pair comes back as it was.
async fn answers(socket: &mut RawSocket, number: u32) -> bool {
    let call = format!(r#"[2,"alive-{number}","Heartbeat",{{}}]"#);
    let answer = format!(r#"[3,"alive-{number}","#);
    socket.frame(TEXT, call.as_bytes()).await;
    while let Some(text) = socket.next_text().await {
        if text.starts_with(&answer) {
            return true;
        }
    }
    false
}

const VALID: &[&str] = &[
    r#"[2,"a1","BootNotification",{"chargePointVendor":"Acme","chargePointModel":"Wallbox"}]"#,
    r#"[2,"a2","StartTransaction",{"connectorId":1,"idTag":"T","meterStart":7,"timestamp":"2026-04-14T12:34:56Z"}]"#,
    r#"[2,"a3","MeterValues",{"connectorId":1,"transactionId":42,"meterValue":[{"timestamp":"2026-04-14T12:34:56Z","sampledValue":[{"value":"1.5","unit":"Wh"}]}]}]"#,
    r#"[2,"a4","StopTransaction",{"transactionId":42,"meterStop":9,"timestamp":"2026-04-14T13:00:00+02:00","idTag":"ä"}]"#,
    r#"[2,"a5","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available","info":"ä"}]"#,
    r#"[2,"a6","DataTransfer",{"vendorId":"acme","data":"{"a":[1,null,true]}"}]"#,
    r#"[3,"a7",{"status":"Accepted"}]"#,
    r#"[4,"a8","InternalError","why",{}]"#,
];

/// A frame with one to four mutations. What has become no text goes out as binary, where it is
/// one frame among others, and rarely as text, where it ends the connection.
fn mutated(random: &mut Random) -> (u8, Vec<u8>) {
    let mut bytes = VALID[random.below(VALID.len())].as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        random.mutate(&mut bytes);
    }
    let is_text = std::str::from_utf8(&bytes).is_ok();
    let first_byte = if is_text || random.below(50) == 0 {
        TEXT
    } else {
        first_byte::BINARY
    };
    (first_byte, bytes)
}

/// `SplitMix64`: the same numbers for the same seed, on every machine and for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const TOKENS: &[&[u8]] = &[
            b"[",
            b"]",
            b"{",
            b"}",
            b"\"",
            b",",
            b"null",
            b"-1",
            b"1e999",
            b"\\u0000",
            b"\\ud800",
            b"[[[[[[[[",
        ];
        let at = self.below(bytes.len().max(1)).min(bytes.len());
        let end = at + self.below(bytes.len() - at + 1).min(16);
        match self.below(6) {
            0 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(7),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let token = TOKENS[self.below(TOKENS.len())];
                drop(bytes.splice(at..end, token.iter().copied()));
            }
        }
    }
}
