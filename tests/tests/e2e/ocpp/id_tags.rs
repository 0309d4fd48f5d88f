//! Who may charge: the registered tags, and what stations are told about them.

use futures_util::future::join_all;
use pipelet_tests::{Builder, Station};
use serde_json::{Value, json};

use crate::scene::{Scene, daemon};

fn registered() -> Builder {
    daemon().flag("--authorize", "registered")
}

async fn authorize(station: &mut Station, tag: &str) -> Value {
    let answer = station.ok("Authorize", json!({"idTag": tag})).await;
    answer["idTagInfo"].clone()
}

async fn start(station: &mut Station, connector: u32, tag: &str) -> (i64, Value) {
    let payload = json!({
        "connectorId": connector, "idTag": tag, "meterStart": 0,
        "timestamp": "2026-04-14T12:00:00Z",
    });
    let answer = station.ok("StartTransaction", payload).await;
    let id = answer["transactionId"].as_i64().expect("transactionId");
    (id, answer["idTagInfo"]["status"].clone())
}

async fn stop(station: &mut Station, id: i64, tag: &str) -> Value {
    let payload = json!({
        "transactionId": id, "idTag": tag, "meterStop": 5, "timestamp": "2026-04-14T13:00:00Z",
    });
    station.ok("StopTransaction", payload).await["idTagInfo"]["status"].clone()
}

#[tokio::test]
async fn every_status_is_told() {
    let scene = Scene::with(registered(), &["StartTransaction"]).await;
    for tag in [
        json!({"id_tag": "Good", "parent_id_tag": "Fleet", "expiry_date": "2999-01-01T00:00:00Z"}),
        json!({"id_tag": "Late", "expiry_date": "2020-01-01T00:00:00+02:00"}),
        json!({"id_tag": "Stolen", "status": "Blocked"}),
        json!({"id_tag": "Gone", "status": "Invalid"}),
    ] {
        scene.api.post("/id-tags", &tag).await.expect(201);
    }
    let mut station = scene.station("S1").await;
    for (connector, (tag, status)) in (1..).zip([
        ("Good", "Accepted"),
        ("gOOD", "Accepted"),
        ("Late", "Expired"),
        ("Stolen", "Blocked"),
        ("Gone", "Invalid"),
        ("Unknown", "Invalid"),
        ("", "Invalid"),
    ]) {
        assert_eq!(
            authorize(&mut station, tag).await["status"],
            status,
            "{tag}"
        );
        // A rejected tag gets an id, too: its transaction happens, or has happened.
        let (id, told) = start(&mut station, connector, tag).await;
        assert_eq!(told, status, "{tag}");
        assert!(id > 0);
        let known = scene.api.get(&format!("/transactions/{id}")).await;
        assert_eq!(known.expect(200)["id_tag_status"], status, "{tag}");
        assert_eq!(stop(&mut station, id, tag).await, status, "{tag}");
    }
    scene.receiver.await_requests(7).await;
    assert_eq!(
        authorize(&mut station, "Good").await,
        json!({
            "status": "Accepted", "expiryDate": "2999-01-01T00:00:00.000Z", "parentIdTag": "Fleet",
        })
    );
    assert_eq!(
        station.ok("Authorize", "{}").await["idTagInfo"]["status"],
        "Invalid"
    );
}

#[tokio::test]
async fn without_the_flag_everybody_may_charge() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let blocked = json!({"id_tag": "Stolen", "status": "Blocked"});
    scene.api.post("/id-tags", &blocked).await.expect(201);
    let mut station = scene.station("S1").await;
    assert_eq!(
        authorize(&mut station, "Stolen").await,
        json!({"status": "Accepted"})
    );
    assert_eq!(start(&mut station, 1, "Unknown").await.1, "Accepted");
    assert_eq!(start(&mut station, 2, "Unknown").await.1, "Accepted");
}

#[tokio::test]
async fn a_tag_charges_in_one_place_at_a_time() {
    let mut scene = Scene::with(registered(), &["StartTransaction"]).await;
    scene
        .api
        .post("/id-tags", &json!({"id_tag": "A"}))
        .await
        .expect(201);
    let mut here = scene.station("S1").await;
    let (first, status) = start(&mut here, 1, "A").await;
    assert_eq!(status, "Accepted");
    let mut there = scene.station("S2").await;
    assert_eq!(start(&mut there, 1, "a").await.1, "ConcurrentTx");
    assert_eq!(start(&mut here, 2, "A").await.1, "ConcurrentTx");
    assert_eq!(authorize(&mut there, "A").await["status"], "Accepted");

    // It is still known after a crash, and the end of the first lets the next one begin.
    scene.crash().await;
    let mut there = scene.station("S2").await;
    assert_eq!(start(&mut there, 3, "A").await.1, "ConcurrentTx");
    let mut here = scene.station("S1").await;
    assert_eq!(stop(&mut here, first, "A").await, "Accepted");
    assert_eq!(start(&mut there, 4, "A").await.1, "Accepted");
}

#[tokio::test]
async fn of_many_starts_at_once_one_is_accepted() {
    let scene = Scene::with(registered(), &["StartTransaction"]).await;
    let tag = json!({"id_tag": "A"});
    scene.api.post("/id-tags", &tag).await.expect(201);
    let names: Vec<String> = (0..8).map(|number| format!("S{number}")).collect();
    let mut stations = join_all(names.iter().map(|name| scene.station(name))).await;
    let starts = stations.iter_mut().map(|station| start(station, 1, "A"));
    let told: Vec<Value> = join_all(starts)
        .await
        .into_iter()
        .map(|(_, told)| told)
        .collect();
    let accepted = told.iter().filter(|told| **told == "Accepted").count();
    let concurrent = told.iter().filter(|told| **told == "ConcurrentTx").count();
    assert_eq!((accepted, concurrent), (1, 7));
}

#[tokio::test]
async fn a_repeated_start_gets_the_same_answer() {
    let scene = Scene::with(registered(), &["StartTransaction"]).await;
    scene
        .api
        .post("/id-tags", &json!({"id_tag": "A"}))
        .await
        .expect(201);
    let mut station = scene.station("S1").await;
    let first = start(&mut station, 1, "A").await;
    drop(station);
    let mut station = scene.station("S1").await;
    assert_eq!(start(&mut station, 1, "A").await, first);
}

#[tokio::test]
async fn tags_are_kept_and_changed() {
    let mut scene = Scene::with(registered(), &["StartTransaction"]).await;
    let api = &scene.api;
    let created = api.post("/id-tags", &json!({"id_tag": "a/b +1"})).await;
    assert_eq!(
        created.header("location"),
        Some("/api/v1/id-tags/a%2Fb%20%2B1")
    );
    assert_eq!(created.expect(201)["status"], "Accepted");
    let path = "/id-tags/A%2FB%20%2B1";
    assert_eq!(api.get(path).await.expect(200)["id_tag"], "a/b +1");
    let again = api.post("/id-tags", &json!({"id_tag": "A/B +1"})).await;
    assert_eq!(again.expect(409)["code"], "id_tag_exists");
    let change = json!({"status": "Blocked", "parent_id_tag": "P"});
    api.put(path, &change).await.expect(200);

    scene.crash().await;
    let api = &scene.api;
    let kept = api.get(path).await.expect(200);
    assert_eq!(
        (&kept["status"], &kept["parent_id_tag"]),
        (&json!("Blocked"), &json!("P"))
    );
    let kept = api
        .put(path, &json!({"parent_id_tag": null}))
        .await
        .expect(200);
    assert_eq!(
        (&kept["status"], &kept["parent_id_tag"]),
        (&json!("Blocked"), &json!(null))
    );
    api.delete(path).await.expect(204);
    for gone in [
        api.get(path).await,
        api.delete(path).await,
        api.put(path, &json!({})).await,
    ] {
        assert_eq!(gone.expect(404)["code"], "no_such_id_tag");
    }

    let wrong = json!({"id_tag": "x".repeat(21), "status": "Expired", "expiry_date": 5, "more": 1});
    let problem = api.post("/id-tags", &wrong).await.expect(422);
    let mut pointers: Vec<&str> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|fault| fault["pointer"].as_str().expect("a pointer"))
        .collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/expiry_date", "/id_tag", "/more", "/status"]);
}

#[tokio::test]
async fn pipeletctl_manages_tags() {
    let scene = Scene::with(registered(), &["StartTransaction"]).await;
    let ctl = scene.ctl();
    for tag in ["C", "a", "B"] {
        ctl.line(&format!("id-tags add {tag}")).await.ok();
    }
    let shown =
        ctl.json("id-tags add D --status Blocked --expires 2030-01-01T00:00:00Z --parent P");
    let shown = shown.await;
    assert_eq!(shown["expiry_date"], "2030-01-01T00:00:00.000Z");
    assert_eq!(ctl.json("id-tags show d").await, shown);
    let set = ctl
        .json("id-tags set d --status Accepted --no-expiry --no-parent")
        .await;
    assert_eq!(
        (&set["status"], &set["expiry_date"], &set["parent_id_tag"]),
        (&json!("Accepted"), &json!(null), &json!(null))
    );
    ctl.line("id-tags remove b --yes").await.ok();
    let left = ctl.json("id-tags list").await;
    let names: Vec<&Value> = left
        .as_array()
        .expect("a list")
        .iter()
        .map(|tag| &tag["id_tag"])
        .collect();
    assert_eq!(names, ["a", "C", "D"]);
    assert_eq!(ctl.line("id-tags show b").await.code, 3);
    assert_eq!(ctl.line("id-tags add A").await.code, 5);
    assert_eq!(ctl.line("id-tags add E --status Expired").await.code, 2);

    let page = scene.api.get("/id-tags?limit=2").await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let rest = scene
        .api
        .get(&format!("/id-tags?limit=2&cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(rest["data"][0]["id_tag"], "D");
}
