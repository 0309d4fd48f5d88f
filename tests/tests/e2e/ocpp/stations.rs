//! What the API knows of stations.

use pipelet_tests::deadline::eventually;
use serde_json::{Value, json};

use crate::scene::Scene;

#[tokio::test]
async fn a_station_is_known_once_it_connected() {
    let scene = Scene::new(&["Heartbeat"]).await;
    scene.api.get("/stations/S1").await.expect(404);
    let mut station = scene.station("S1").await;
    let boot = json!({
        "chargePointVendor": "Acme", "chargePointModel": "Wallbox",
        "chargePointSerialNumber": "SN-1", "firmwareVersion": "1.2.3",
    });
    station.ok("BootNotification", boot).await;
    let status = json!({"connectorId": 1, "errorCode": "NoError", "status": "Preparing"});
    station.ok("StatusNotification", status).await;
    let transaction = station.start_transaction(5).await;

    let known = scene.api.get("/stations/S1").await.expect(200);
    let text = |key: &str| {
        known[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {known}"))
    };
    assert_eq!(text("id"), "S1");
    assert_eq!(known["connected"], true);
    assert_eq!(text("vendor"), "Acme");
    assert_eq!(text("model"), "Wallbox");
    assert_eq!(text("serial_number"), "SN-1");
    assert_eq!(text("firmware_version"), "1.2.3");
    assert_eq!(text("boot_status"), "Accepted");
    for time in ["connected_since", "last_seen_at", "last_boot_at"] {
        assert!(
            text(time).ends_with('Z') && text(time).contains('.'),
            "{time}: {}",
            text(time)
        );
    }
    let connector = &known["connectors"][0];
    assert_eq!(connector["connector_id"], 1);
    assert_eq!(connector["status"], "Preparing");
    assert_eq!(connector["error_code"], "NoError");
    assert!(connector["updated_at"].is_string(), "{connector}");
    let open = &known["open_transactions"][0];
    assert_eq!(open["transaction_id"], transaction);
    assert_eq!(open["connector_id"], 1);
    assert_eq!(open["id_tag"], "RFID_12345678");
    assert_eq!(open["meter_start"], 5);
    assert!(open["started_at"].is_string(), "{open}");

    let stop =
        json!({"transactionId": transaction, "meterStop": 9, "timestamp": "2026-04-14T13:00:00Z"});
    station.ok("StopTransaction", stop).await;
    let known = scene.api.get("/stations/S1").await.expect(200);
    assert_eq!(known["open_transactions"], json!([]));

    assert_eq!(
        scene.ctl().json("stations show S1").await["model"],
        "Wallbox"
    );
    station.close().await;
    let state = || async { scene.api.get("/stations/S1").await.expect(200) };
    eventually("S1 to be gone", state, |known| known["connected"] == false).await;
}

#[tokio::test]
async fn stations_are_listed_by_id_and_in_pages() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut stations = Vec::new();
    for id in ["C", "A", "B"] {
        let mut station = scene.station(id).await;
        station.ok("Heartbeat", "{}").await;
        stations.push(station);
    }
    let ids = |list: &Value| -> Vec<String> {
        let list = list.as_array().expect("an array");
        list.iter()
            .map(|station| station["id"].as_str().expect("id").to_owned())
            .collect()
    };
    let first = scene.api.get("/stations?limit=2").await.expect(200);
    assert_eq!(ids(&first["data"]), ["A", "B"]);
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let rest = scene
        .api
        .get(&format!("/stations?limit=2&cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(ids(&rest["data"]), ["C"]);
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(
        ids(&scene.ctl().json("stations list --connected").await),
        ["A", "B", "C"]
    );
}
