//! `/docs`, as a browser has it: it works without a network, and its "try it" really asks.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::{browser::Page, scene::Scene};

/// The page at the operation that was tried.
const PICTURE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/docs.png");

#[tokio::test]
async fn the_page_is_served_whole_and_names_nothing_elsewhere() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.build().expect("a client");
    let http = scene.daemon.http();
    let get = async |path: &str| {
        let answer = client.get(format!("http://{http}{path}")).send().await;
        answer.expect("an answer")
    };
    for path in ["/", "/docs/"] {
        let sent_on = get(path).await;
        assert_eq!(sent_on.status(), 303, "{path}");
        assert_eq!(sent_on.headers()["location"], "/docs");
    }
    let page = get("/docs").await;
    let policy = page.headers()["content-security-policy"].to_str();
    let policy = policy.expect("text").to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("http"), "{policy}");
    let page = page.text().await.expect("text");
    assert!(!page.contains("://"), "{page}");
    let named = page.split('"').filter(|text| text.starts_with("/docs/"));
    let named: BTreeSet<_> = named.collect();
    assert_eq!(named.len(), 3, "{named:?}");
    for path in named {
        let answer = get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let kind = answer.headers()["content-type"].to_str().expect("text");
        let kind = kind.to_owned();
        let expected = if path == "/docs/swagger-ui.css" {
            "text/css"
        } else {
            "text/javascript"
        };
        assert!(kind.starts_with(expected), "{path}: {kind}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let packed = path.contains("swagger-ui");
        let encoding = answer.headers().get("content-encoding").cloned();
        assert_eq!(encoding.is_some(), packed, "{path}");
        let bytes = answer.bytes().await.expect("a body");
        assert!(!packed || bytes.starts_with(&[0x1f, 0x8b]), "{path}");
    }
}

#[tokio::test]
async fn the_api_can_be_tried_in_a_browser() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let Some(mut page) = Page::open().await else {
        return;
    };
    let origin = format!("http://{}/", scene.daemon.http());
    page.go_to(&origin).await;
    page.run("await until(() => find('#operations-Webhooks-listWebhooks'));")
        .await;
    let title = page.run("return document.title;").await;
    assert_eq!(title, "Pipelet's REST API");

    // Without a key it is refused.
    let try_it = "
        const operation = await until(() => find('#operations-Webhooks-listWebhooks'));
        if (!operation.classList.contains('is-open')) {
            operation.querySelector('.opblock-summary-control').click();
            (await until(() => operation.querySelector('.try-out__btn'))).click();
        }
        operation.querySelector('.btn-clear')?.click();
        await until(() => !operation.querySelector('.live-responses-table'));
        (await until(() => operation.querySelector('.execute'))).click();
        const answer = await until(() => operation.querySelector('.live-responses-table'));
        operation.scrollIntoView();
        return {
            status: answer.querySelector('tbody .response-col_status').textContent.trim(),
            body: answer.querySelector('.highlight-code').textContent,
        };
    ";
    let refused = page.run(try_it).await;
    assert_eq!(status(&refused), "401", "{refused}");

    page.run(
        "find('.btn.authorize').click();
         (await until(() => find('.auth-container input'))).focus();",
    )
    .await;
    page.write(&scene.daemon.key()).await;
    page.run(
        "find('.auth-container .authorize').click();
         await until(() => find('.auth-container .btn-done') &&
                           !find('.auth-container input'));
         find('.auth-container .btn-done').click();
         await until(() => !find('.auth-container'));",
    )
    .await;
    let listed = page.run(try_it).await;
    assert_eq!(status(&listed), "200", "{listed}");
    let body = listed["body"].as_str().expect("a body");
    assert!(body.contains(&scene.receiver.url()), "{body}");

    // It has asked nobody else, and nothing of it was forbidden.
    let asked = page.happened("Network.requestWillBeSent");
    let urls = asked
        .iter()
        .map(|asked| asked["request"]["url"].as_str().expect("a URL"));
    let urls: Vec<_> = urls.filter(|url| *url != "about:blank").collect();
    assert!(urls.len() >= 6, "{urls:?}");
    let is_ours = |url: &&str| url.starts_with(&origin) || url.starts_with("data:");
    assert!(urls.iter().all(is_ours), "{urls:?}");
    let told = page.happened("Log.entryAdded");
    let told = told.iter().map(|told| &told["entry"]);
    let told: Vec<_> = told.filter(|told| told["level"] == "error").collect();
    // The refusal that was asked for.
    let refused = |told: &&Value| {
        told["text"]
            .as_str()
            .is_some_and(|text| text.contains("401"))
    };
    assert!(told.iter().all(refused), "{told:?}");
    assert_eq!(page.happened("Runtime.exceptionThrown").len(), 0);

    let picture = page.picture().await;
    assert!(picture.len() > 20_000, "{}", picture.len());
    fs::write(Path::new(PICTURE), picture).expect("a writable file");
    // The key goes with the page.
    let kept = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie]);";
    let kept = page.run(kept).await;
    let kept = kept.as_str().expect("text");
    assert!(!kept.contains(&scene.daemon.key()), "{kept}");
    assert_eq!(
        serde_json::from_str::<Value>(kept).expect("JSON")[2],
        json!("")
    );
}

/// The status begins with the number; what comes behind it is the page's.
fn status(answer: &Value) -> &str {
    let text = answer["status"].as_str().expect("a status");
    text.get(..3).unwrap_or(text)
}
