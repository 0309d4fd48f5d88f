//! The Compose example, as far as it can be checked without containers.

use std::{collections::BTreeSet, path::PathBuf};

use pipelet_tests::documents::root;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::{promtool, scene::daemon};

fn example() -> PathBuf {
    root().join("examples/compose")
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(example().join(name)).expect(name);
    let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
    value.apply_merge().expect("merges");
    serde_json::to_value(value).expect("keys that are texts")
}

fn variables(service: &Value) -> &Map<String, Value> {
    service["environment"].as_object().expect("variables")
}

#[tokio::test]
async fn the_daemon_takes_its_settings() {
    let compose = read("compose.yaml");
    let mut builder = daemon().switch("--check");
    let help = daemon().switch("--help").run_to_end().await.stdout;
    for (name, value) in variables(&compose["services"]["pipeletd"]) {
        let value = value.as_str().expect("a text");
        if name.starts_with("PIPELETD_") {
            let is_setting = help.contains(&format!("[env: {name}="));
            assert!(is_setting || name == "PIPELETD_BOOTSTRAP_KEY", "{name}");
            builder = builder.variable(name, value);
        } else {
            assert_eq!(name, "PIPELET_API_KEY");
        }
    }
    let ended = builder.run_to_end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn its_parts_fit_together() {
    let compose = read("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|it| it.as_str().expect("a text").to_owned())
            .collect()
    };
    for (name, service) in services {
        for volume in texts(&service["volumes"]) {
            let (from, _) = volume.split_once(':').expect("a place");
            let is_there = if from.starts_with('.') {
                example().join(from).exists()
            } else {
                compose["volumes"].get(from).is_some()
            };
            assert!(is_there, "{name}: {volume}");
        }
        for other in texts(&service["depends_on"]) {
            assert!(services.contains_key(&other), "{name}: {other}");
        }
    }
    let build = &services["pipeletd"]["build"];
    let context = example().join(build["context"].as_str().expect("a context"));
    let file = build["dockerfile"].as_str().expect("a file");
    assert!(context.join(file).exists(), "{build}");

    // What the receiver needs, and what the webhook of the README is made with.
    let app = std::fs::read_to_string(example().join("../receivers/python-flask/app.py"));
    let app = app.expect("the receiver");
    let readme = std::fs::read_to_string(example().join("README.md")).expect("README.md");
    let given = variables(&services["receiver"]);
    for (name, value) in given {
        assert!(app.contains(&format!("\"{name}\"")), "{name}");
        if name.ends_with("SECRET") {
            assert!(readme.contains(value.as_str().expect("a text")), "{name}");
        }
    }
    let subnet = &compose["networks"]["default"]["ipam"]["config"][0]["subnet"];
    let allowed = &variables(&services["pipeletd"])["PIPELETD_ALLOW_TARGET"];
    assert_eq!(subnet, allowed);

    let prometheus = read("prometheus.yml");
    let target = prometheus["scrape_configs"][0]["static_configs"][0]["targets"][0].clone();
    let (host, port) = target
        .as_str()
        .expect("a target")
        .split_once(':')
        .expect("a port");
    assert!(services.contains_key(host), "{target}");
    let published: BTreeSet<_> = texts(&services[host]["ports"]).into_iter().collect();
    assert!(
        published.iter().any(|it| it.ends_with(port)),
        "{published:?}"
    );
    let args = ["check", "config", "--syntax-only", "prometheus.yml"];
    promtool::finds_nothing(&example(), &args, "").await;
}

/// The words that begin so, as far as names of variables go.
fn names<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(beginning).map(move |(at, _)| {
        let rest = &text[at..];
        let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        &rest[..end]
    })
}

/// A template as YAML: with something in the place of what Helm puts in.
fn rendered(template: &str) -> String {
    let is_flow = |line: &&str| line.trim().starts_with("{{-");
    let lines = template.lines().filter(|line| !is_flow(line));
    let filled = lines.map(|line| {
        let mut line = line.to_owned();
        while let (Some(from), Some(to)) = (line.find("{{"), line.find("}}")) {
            line.replace_range(from..to + 2, "x");
        }
        line
    });
    filled.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_cluster_examples_say_what_the_daemon_understands() {
    let help = daemon().switch("--help").run_to_end().await.stdout;
    let directory = root().join("examples/cluster");
    let files = [
        "compose.yaml",
        "pipeletd-cluster.conf",
        "helm/templates/statefulset.yaml",
    ];
    for file in files {
        let text = std::fs::read_to_string(directory.join(file)).expect(file);
        let mut count = 0;
        for name in names(&text, "PIPELETD_") {
            let is_setting = help.contains(&format!("[env: {name}="));
            assert!(
                is_setting || name == "PIPELETD_BOOTSTRAP_KEY",
                "{file}: {name}"
            );
            count += 1;
        }
        assert!(count >= 3, "{file}");
    }
    for file in ["compose.yaml", "helm/Chart.yaml", "helm/values.yaml"] {
        let text = std::fs::read_to_string(directory.join(file)).expect(file);
        let _: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect(file);
    }
    for file in ["statefulset.yaml", "services.yaml"] {
        let text = std::fs::read_to_string(directory.join("helm/templates").join(file));
        let text = rendered(&text.expect(file));
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let value = serde_yaml_ng::Value::deserialize(document).expect(file);
            assert!(value.get("kind").is_some(), "{file}: {value:?}");
        }
    }
}
