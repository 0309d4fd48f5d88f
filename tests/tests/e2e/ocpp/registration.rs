//! Which stations may come, and what their boot is answered with.

use pipelet_tests::Dial;
use serde_json::{Value, json};

use crate::scene::{Scene, ctl, daemon};

const BOOT: &str = r#"{"chargePointVendor":"Acme","chargePointModel":"Wallbox"}"#;

#[tokio::test]
async fn unknown_stations_stay_out_where_they_have_to_be_registered() {
    let builder = daemon().flag("--stations", "registered");
    let mut scene = Scene::with(builder, &["StationDisconnected"]).await;
    let ocpp = scene.daemon.ocpp();
    assert_eq!(Dial::new(ocpp, "S%201").refused().await, 404);

    let created = scene.api.put("/stations/S%201", &json!({})).await;
    assert_eq!(created.header("location"), Some("/api/v1/stations/S%201"));
    let created = created.expect(201);
    assert_eq!(
        (&created["id"], &created["connected"]),
        (&json!("S 1"), &json!(false))
    );
    assert_eq!(created["registration"]["boot_policy"], "Accepted");
    scene
        .api
        .put("/stations/S%201", &json!({}))
        .await
        .expect(200);

    scene.crash().await;
    let ocpp = scene.daemon.ocpp();
    assert_eq!(Dial::new(ocpp, "S2").refused().await, 404);
    let mut station = scene.station("S%201").await;
    station.ok("Heartbeat", "{}").await;

    scene.api.delete("/stations/S%201").await.expect(204);
    assert_eq!(station.closed().await, Some(1008));
    assert_eq!(Dial::new(ocpp, "S%201").refused().await, 404);
    let event = scene.receiver.await_requests(1).await[0].json();
    assert_eq!(event["payload"]["reason"], "unregistered");
    let duration = event["payload"]["duration"].as_f64().expect("a number");
    assert!((0.0..30.0).contains(&duration), "{event}");
    scene.api.delete("/stations/S%201").await.expect(404);

    let status = scene.ctl().json("status").await;
    assert_eq!(status["handshakes_refused"], 2, "since the start: {status}");
}

#[tokio::test]
async fn a_boot_is_answered_as_its_operator_wants() {
    let scene = Scene::new(&["BootNotification", "Heartbeat"]).await;
    let policy = async |status: &str| {
        let body = json!({"boot_policy": status});
        let answer = scene.api.put("/stations/S1", &body).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    };
    let shown = async || scene.api.get("/stations/S1").await.expect(200)["boot_status"].clone();

    policy("Pending").await;
    assert_eq!(shown().await, Value::Null);
    let mut station = scene.station("S1").await;
    let answer = station
        .call_as("1", "BootNotification", BOOT)
        .await
        .result();
    assert_eq!(answer["status"], "Pending");
    assert!(answer["interval"].is_u64(), "{answer}");
    assert_eq!(shown().await, "Pending");
    assert_eq!(
        station.call("Heartbeat", "{}").await.error_code(),
        "SecurityError"
    );

    policy("Rejected").await;
    let answer = station
        .call_as("1", "BootNotification", BOOT)
        .await
        .result();
    assert_eq!(answer["status"], "Rejected");
    assert_eq!(
        station.call("Heartbeat", "{}").await.error_code(),
        "SecurityError"
    );

    // The same message once more, as of a station that counts from 1.
    policy("Accepted").await;
    station.ok("Heartbeat", "{}").await;
    let answer = station
        .call_as("1", "BootNotification", BOOT)
        .await
        .result();
    assert_eq!(answer["status"], "Accepted");
    assert_eq!(shown().await, "Accepted");

    // Every boot is told of, whatever its answer and its message id, and what was refused is not.
    let kinds = scene.receiver.await_requests(4).await;
    let kinds: Vec<_> = kinds
        .iter()
        .map(|event| event.json()["event"].clone())
        .collect();
    let boot = "BootNotification";
    assert_eq!(kinds, [boot, boot, "Heartbeat", boot]);
}

#[tokio::test]
async fn operators_register_stations_from_the_command_line() {
    let daemon = daemon().start().await;
    let ctl = ctl(&daemon);
    let secret = "a password of S1";
    let input = format!("{secret}\n");
    let add = [
        "stations",
        "add",
        "S1",
        "--password-file",
        "-",
        "--security-profile",
        "1",
    ];
    let added = ctl.run_with_input(&add, &input).await.ok();
    assert!(added.contains("S1") && !added.contains(secret), "{added}");
    assert_eq!(ctl.line("stations add S1").await.code, 5);

    let entry = ctl.json("stations show S1").await["registration"].clone();
    assert_eq!(
        (&entry["security_profile"], &entry["has_password"]),
        (&json!(1), &json!(true))
    );
    let changed = ctl.json("stations set S1 --boot-policy Pending").await;
    assert_eq!(changed["registration"]["boot_policy"], "Pending");
    assert_eq!(changed["registration"]["has_password"], true);

    // A lock without a key is refused, and so is a change of nothing.
    let refused = ctl.line("stations set S1 --clear-password").await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("password: security profile 1"),
        "{refused:?}"
    );
    assert_eq!(ctl.line("stations set S1").await.code, 2);
    let open = ctl
        .json("stations set S1 --clear-password --clear-security-profile")
        .await;
    assert_eq!(open["registration"]["has_password"], false);
    assert_eq!(open["registration"]["security_profile"], Value::Null);

    ctl.line("stations remove S1 --yes").await.ok();
    for line in ["stations remove S1 --yes", "stations show S1"] {
        assert_eq!(ctl.line(line).await.code, 3, "{line}");
    }
    let unknown = ctl.line("stations set S1 --boot-policy Pending").await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.stderr.contains("`pipeletctl stations add S1`"));
}

#[tokio::test]
async fn registered_stations_are_listed_among_the_others() {
    let scene = Scene::new(&["Heartbeat"]).await;
    for id in ["A", "C", "E"] {
        scene
            .api
            .put(&format!("/stations/{id}"), &json!({}))
            .await
            .expect(201);
    }
    let mut stations = Vec::new();
    for id in ["B", "C", "D"] {
        let mut station = scene.station(id).await;
        station.ok("Heartbeat", "{}").await;
        stations.push(station);
    }
    let listed = async |query: &str| {
        let page = scene
            .api
            .get(&format!("/stations?limit=2{query}"))
            .await
            .expect(200);
        let ids = page["data"].as_array().expect("data").iter();
        let ids: Vec<_> = ids
            .map(|station| station["id"].as_str().expect("id").to_owned())
            .collect();
        (
            ids.join(" "),
            page["next_cursor"].as_str().map(str::to_owned),
        )
    };
    for (filter, pages) in [
        ("", vec!["A B", "C D", "E"]),
        ("&connected=true", vec!["B C", "D"]),
        ("&connected=false", vec!["A E"]),
    ] {
        let mut cursor = String::new();
        for expected in &pages {
            let (ids, next) = listed(&format!("{filter}{cursor}")).await;
            assert_eq!(&ids, expected, "{filter}");
            cursor = next.map_or_else(String::new, |next| format!("&cursor={next}"));
        }
        assert_eq!(cursor, "", "{filter}");
    }
}

#[tokio::test]
async fn every_fault_of_a_registration_is_told_at_once() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let body = json!({
        "password": "short", "security_profile": 4, "boot_policy": 1, "pasword": "typo",
    });
    let problem = scene.api.put("/stations/S1", &body).await.expect(422);
    let mut faults: Vec<_> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|fault| format!("{} {}", fault["pointer"], fault["code"]).replace('"', ""))
        .collect();
    faults.sort();
    let expected = [
        "/boot_policy wrong_type",
        "/password invalid_password",
        "/pasword unknown_field",
        "/security_profile invalid_security_profile",
    ];
    assert_eq!(faults, expected);
    assert!(!problem.to_string().contains("short"), "{problem}");
    scene.api.get("/stations/S1").await.expect(404);
}
