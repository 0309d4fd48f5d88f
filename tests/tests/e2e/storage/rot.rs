//! Bits that rot on the disk: the daemon works, or says that the store is damaged and what to do.

use std::{fs, path::Path};

use pipelet_tests::{Answer, deadline::within};

use crate::{
    scene::{Scene, daemon},
    storage::backup::copy,
};

const EVENTS: &[&str] = &["*"];
/// How often bits of each database's file rot.
const TIMES: u32 = 20;
/// How many at once: one is mostly met as a checksum that is wrong, many make sled panic.
const BITS: [u32; 2] = [1, 20];

/// Events, transactions, dead letters and stations, in a few segments; killed, so that much of it
/// is only in sled's log.
async fn store(data_dir: &Path) {
    let builder = daemon()
        .in_data_dir(data_dir.to_owned())
        .flag("--max-attempts", "1");
    let mut scene = Scene::with(builder, EVENTS).await;
    for _ in 0..3 {
        scene.receiver.answer(Answer::Status(500));
        let mut station = scene.station("S1").await;
        station.boot().await;
        for meter in 0..60 {
            station.start_transaction(meter).await;
        }
        scene.receiver.answer(Answer::Status(200));
        let data = format!(r#"{{"vendorId":"V","data":"{}"}}"#, "x".repeat(20_000));
        for _ in 0..20 {
            station.ok("DataTransfer", &data).await;
        }
        scene.crash().await;
    }
    scene.daemon.kill9().await;
}

#[tokio::test]
async fn rotten_bits_are_told_in_words_or_do_no_harm() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let whole = home.path().join("whole");
    store(&whole).await;
    let mut random = fastrand::Rng::with_seed(11);
    let (mut refused, mut works) = (0, 0);
    let files = [
        ("cold/db", TIMES),
        ("hot/db", TIMES),
        ("cold/conf", 2),
        ("hot/conf", 2),
    ];
    for ((name, times), bits) in files
        .into_iter()
        .flat_map(|file| BITS.map(|bits| (file, bits)))
    {
        for time in 0..times {
            let what = format!("{bits} bits of {name}, time {time}");
            let rotten = home.path().join("rotten");
            copy(&whole, &rotten);
            let mut bytes = fs::read(rotten.join(name)).expect("a file");
            for _ in 0..bits {
                let at = random.usize(0..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
            }
            fs::write(rotten.join(name), bytes).expect("a writable file");

            let started = daemon().in_data_dir(rotten.clone()).start_or_end().await;
            let ended = match started {
                Ok(mut daemon) => {
                    let api = daemon.api();
                    for path in [
                        "/events",
                        "/transactions",
                        "/failed-deliveries",
                        "/stations",
                    ] {
                        // It may end by itself meanwhile.
                        let _ = api.ask(http::Method::GET, path, None).await;
                    }
                    let status = within(&what, daemon.terminate()).await;
                    (status.code(), daemon.log())
                }
                Err(ended) => (ended.code, ended.stderr),
            };
            let (code, log) = ended;
            assert!(!log.contains("panicked at"), "{what}: {log}");
            match code {
                Some(0) => works += 1,
                Some(1) => {
                    refused += 1;
                    assert!(log.contains("is damaged: "), "{what}: {log}");
                    assert!(log.contains("restore a backup"), "{what}: {log}");
                }
                code => panic!("{what}: exit {code:?}: {log}"),
            }
            fs::remove_dir_all(rotten).expect("a directory of ours");
        }
    }
    assert!(refused > 0 && works > 0, "{refused} refused, {works} work");
}
