//! The documents as texts: what they quote, link to and name is there, and their lists are those of
//! the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Component, Path, PathBuf},
};

use pipelet_domain::events::{Direction, EventType};
use pipelet_tests::documents::{Page, first_cells, root};
use serde_json::Value;

#[test]
fn the_event_catalogue_is_the_codes_own() {
    let mut table = "| Event | Direction | OCPP profile | Group |\n|---|---|---|---|\n".to_owned();
    for kind in EventType::ALL {
        let direction = match kind.direction() {
            Direction::StationToCsms => "station → CSMS",
            Direction::CsmsToStation => "CSMS → station",
            Direction::Both => "both",
            Direction::Connection => "(the connection itself)",
        };
        let (name, profile, group) = (kind.name(), kind.profile().name(), kind.group().name());
        writeln!(table, "| `{name}` | {direction} | {profile} | `{group}` |")
            .expect("a string takes all that is written");
    }
    Page::read("docs/events.md").holds("event catalogue", &table);
}

#[test]
fn the_operations_are_those_that_openapi_describes() {
    let document: Value = serde_json::from_str(&read("pipeletd/openapi.json")).expect("JSON");
    let mut table = "| Operation | | Role |\n|---|---|---|\n".to_owned();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Some(summary) = operation["summary"].as_str() else {
                continue;
            };
            let (method, path) = (method.to_uppercase(), path.trim_start_matches("/api/v1"));
            let role = operation["x-required-role"].as_str().unwrap_or("none");
            writeln!(table, "| `{method} {path}` | {summary} | `{role}` |")
                .expect("a string takes all that is written");
        }
    }
    Page::read("docs/api.md").holds("operations", &table);
}

#[test]
fn the_error_codes_are_those_of_the_code() {
    let page = Page::read("docs/troubleshooting.md");
    let mut codes = match_arms("pipeletd/src/api/error.rs");
    for source in sources("pipeletd/src") {
        codes.extend(codes_of_errors(&source).map(str::to_owned));
    }
    assert!(codes.len() > 35, "{codes:?}");
    let written = first_cells(page.section("Error codes")).map(str::to_owned);
    assert_eq!(written.collect::<BTreeSet<_>>(), codes);

    let attempts = match_arms("pipeletd/src/delivery/http/error.rs");
    let written = first_cells(page.section("Errors of attempts")).map(str::to_owned);
    assert_eq!(written.collect::<BTreeSet<_>>(), attempts);

    let all = [sources("pipeletd/src"), sources("pipeletd/domain/src")].concat();
    for fault in first_cells(page.section("Faults")) {
        let literal = format!("\"{fault}\"");
        assert!(
            all.iter().any(|source| source.contains(&literal)),
            "{fault}"
        );
    }
}

/// The texts that a `code` returns.
fn match_arms(path: &str) -> BTreeSet<String> {
    let source = read(path);
    let (_, body) = source.split_once("fn code(&self)").expect("a function");
    let (body, _) = body.split_once("\n    }\n").expect("its end");
    let arms = body.split("=> \"").skip(1);
    arms.filter_map(|arm| arm.split('"').next().map(str::to_owned))
        .collect()
}

/// The codes of what is constructed as `Variant { code: "…"`; a fault, which has its own, begins with
/// a pointer.
fn codes_of_errors(source: &str) -> impl Iterator<Item = &str> {
    const VARIANTS: [&str; 5] = ["NotFound", "Conflict", "TooMany", "Throttled", "NoAnswer"];
    source.match_indices("code: \"").filter_map(|(at, _)| {
        let before = source[..at].trim_end().strip_suffix('{')?.trim_end();
        let is_error = VARIANTS.iter().any(|variant| before.ends_with(variant));
        let code = source[at..].split('"').nth(1);
        code.filter(|_| is_error)
    })
}

#[test]
fn the_reasons_of_a_disconnection_are_those_of_the_session() {
    let source = read("pipeletd/src/ocpp/ended.rs");
    let (_, reasons) = source.split_once("const REASONS: [&str; ").expect("a list");
    let (reasons, _) = reasons.split_once("];").expect("its end");
    let reasons: BTreeSet<_> = reasons.split('"').skip(1).step_by(2).collect();
    let page = Page::read("docs/events.md");
    let written = first_cells(page.section("Connection events"));
    assert_eq!(written.collect::<BTreeSet<_>>(), reasons);
}

#[test]
fn the_findings_codes_are_those_of_doctor() {
    let sources = ["cluster", "finding", "mod", "stations", "webhooks"].map(|name| {
        let source = read(&format!("pipeletctl/src/view/doctor/{name}.rs"));
        let (source, _) = source.split_once("#[cfg(test)]").expect("its tests");
        source.to_owned()
    });
    let source = sources.concat();
    let page = Page::read("docs/operating.md");
    let cells = page
        .section("Doctor")
        .lines()
        .filter(|line| line.starts_with("| `"));
    let cells = cells.filter_map(|row| row.split(" | ").next());
    let written: BTreeSet<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(written.len() > 20, "{written:?}");
    for code in &written {
        assert!(source.contains(&format!("\"{code}\"")), "{code} is none");
    }
    // What is given where a finding is made.
    for made in ["Finding::warning(", "Finding::problem("] {
        for (at, _) in source.match_indices(made) {
            let arguments = &source[at + made.len()..];
            let (_, second) = arguments.split_once(',').expect("two arguments");
            // Some are chosen before.
            if let Some(code) = second.trim_start().strip_prefix('"') {
                let code = code.split('"').next().unwrap_or_default();
                assert!(written.contains(code), "{code} is not documented");
            }
        }
    }
}

#[test]
fn the_exit_codes_are_those_of_the_tool() {
    let source = read("pipeletctl/src/error.rs");
    let (_, variants) = source.split_once("enum ExitStatus {").expect("the enum");
    let (variants, _) = variants.split_once("\n}").expect("its end");
    let numbers = variants.lines().filter_map(|line| {
        let (_, number) = line.trim_end_matches(',').split_once(" = ")?;
        number.parse::<u8>().ok()
    });
    let page = Page::read("docs/cli.md");
    let rows = page.section("Exit codes").lines();
    let written = rows.filter_map(|row| row.trim_start_matches("| ").split(" | ").next());
    let written = written.filter_map(|cell| cell.parse::<u8>().ok());
    assert_eq!(written.collect::<Vec<_>>(), numbers.collect::<Vec<_>>());
}

#[test]
fn the_layers_are_those_that_walls_holds() {
    let walls = read("tests/tests/walls.rs");
    let (_, layers) = walls.split_once("const LAYERS").expect("the layers");
    let (layers, _) = layers.split_once("\n];").expect("their end");
    let page = Page::read("docs/developing/architecture.md");
    for (package, section) in [
        ("pipeletd/src", "Layers of the daemon"),
        ("pipeletctl/src", "Layers of the tool"),
    ] {
        let (_, layers) = layers.split_once(package).expect(package);
        let layers = layers.lines().skip(1);
        let layers = layers.take_while(|line| line.trim() != "),");
        let layers = layers.filter_map(|line| line.trim().strip_prefix("&[\""));
        let layers = layers.map(|line| line.trim_end_matches("\"],").replace("\", \"", "`, `"));
        let rows = page.section(section).lines();
        let written = rows.filter_map(|row| row.strip_prefix("| `")?.split("` |").next());
        assert_eq!(written.collect::<Vec<_>>(), layers.collect::<Vec<_>>());
    }
}

#[test]
fn the_disk_format_is_that_of_the_store() {
    let page = Page::read("docs/developing/disk-format.md");
    let keys = read("pipeletd/src/store/keys.rs");
    for (name, section) in [("Kind", "Keys"), ("Meta", "Single values")] {
        let variants = body(&keys, &format!("enum {name} {{")).lines();
        let variants = variants.filter_map(|line| line.trim().split_once(" = "));
        let variants = variants.map(|(name, code)| {
            let code = code.trim_end_matches(',').trim_start_matches('b');
            (name, code.trim_matches('\''))
        });
        let rows = page.section(section).lines();
        let written = rows.filter_map(|row| {
            let mut cells = row.strip_prefix("| `")?.split(" | ");
            let (name, code) = (cells.next()?, cells.next()?);
            Some((name.trim_end_matches('`'), code.trim_matches('`')))
        });
        assert_eq!(
            written.collect::<BTreeMap<_, _>>(),
            variants.collect::<BTreeMap<_, _>>()
        );
    }
    let backup = read("pipeletd/src/store/backup.rs");
    let (_, version) = backup
        .split_once("FORMAT_VERSION: u64 = ")
        .expect("a number");
    let (version, _) = version.split_once(';').expect("its end");
    assert!(page.text.contains(&format!(": format {version}.")));

    let mut table = "| Record | Fields |\n|---|---|\n".to_owned();
    for file in [
        "records",
        "id_tag_record",
        "registration_record",
        "station_record",
        "transaction_record",
    ] {
        let source = read(&format!("pipeletd/src/store/{file}.rs"));
        let records = source.split("\nstruct ").skip(1);
        writeln!(table, "| **`{file}.rs`** | |").expect("a string takes all that is written");
        for record in records {
            let (name, _) = record.split_once(" {\n").expect("a body");
            let fields = body(record, " {").lines().map(str::trim);
            let fields = fields.filter(|line| !line.starts_with(['/', '#']) && !line.is_empty());
            let fields = fields.map(|field| format!("`{}`", field.trim_end_matches(',')));
            let fields = fields.collect::<Vec<_>>().join(", ");
            writeln!(table, "| `{name}` | {fields} |").expect("a string takes all that is written");
        }
    }
    page.holds("records", &table);
}

/// What stands between these braces of an item.
fn body<'a>(source: &'a str, opening: &str) -> &'a str {
    let (_, body) = source.split_once(opening).expect(opening);
    body.split_once("\n}").expect("its end").0
}

#[test]
fn what_is_quoted_is_there() {
    let mut originals = sources("examples/receivers");
    originals.extend(sources("tests/tests/e2e"));
    for page in Page::all() {
        for block in page.blocks() {
            match block.language {
                // Run, or asked for, by the end-to-end tests.
                "sh" | "sh background" | "console" | "toml" | "text" => {}
                "json" => {
                    let parsed = serde_json::from_str::<Value>(block.text);
                    assert!(parsed.is_ok(), "{}: {}", page.path, block.text);
                }
                "python" | "js" | "go" | "rust" => {
                    let is_quoted = originals.iter().any(|it| it.contains(block.text));
                    assert!(is_quoted, "{}: {}", page.path, block.text);
                }
                other => panic!("{}: nothing holds a block of {other:?}", page.path),
            }
        }
    }
}

#[test]
fn links_lead_somewhere_and_every_page_is_linked() {
    let pages = Page::all();
    let page_at = |path: &str| pages.iter().find(|page| page.path == path);
    let mut linked = BTreeSet::from(["README.md".to_owned()]);
    for page in &pages {
        let prose = page.prose();
        let links = prose.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() {
                page.path.clone()
            } else {
                beside(&page.path, file)
            };
            assert!(root().join(&path).exists(), "{}: {link}", page.path);
            if let Some(target) = page_at(&path).filter(|_| !anchor.is_empty()) {
                let has_anchor = anchors(target).any(|it| it == anchor);
                assert!(has_anchor, "{}: {link}", page.path);
            }
            if path != page.path {
                linked.insert(path);
            }
        }
    }
    for page in &pages {
        assert!(
            linked.contains(&page.path),
            "no page links to {}",
            page.path
        );
    }
}

/// The path of a link in a page.
fn beside(page: &str, link: &str) -> String {
    let mut path = PathBuf::from(page);
    path.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{page}: {link}"),
            component => path.push(component),
        }
    }
    path.to_str().expect("UTF-8").to_owned()
}

/// As GitHub makes them of headings.
fn anchors(page: &Page) -> impl Iterator<Item = String> {
    let prose = page.prose();
    let headings: Vec<_> = prose
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches(['#', ' ']).to_lowercase())
        .collect();
    let kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    headings.into_iter().map(move |heading| {
        let kept: String = heading.chars().filter(kept).collect();
        kept.replace(' ', "-")
    })
}

#[test]
fn paths_that_are_named_exist() {
    let is_path = |code: &String| {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "._-/".contains(it);
        let first = code.split('/').next().unwrap_or_default();
        let rooms = [
            "pipeletd",
            "pipeletctl",
            "proto",
            "tests",
            "docs",
            "examples",
            ".ci",
        ];
        code.contains('/') && code.chars().all(is_plain) && rooms.contains(&first)
    };
    let mut found = 0;
    for page in Page::all() {
        for path in page.code().into_iter().filter(is_path) {
            assert!(root().join(&path).exists(), "{}: {path}", page.path);
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of all files below, without what tests them within.
fn sources(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(directory)).expect("a directory") {
        let path = entry.expect("an entry").path();
        let path = path
            .strip_prefix(root())
            .expect("below the root")
            .to_owned();
        let path = path.to_str().expect("UTF-8");
        let name = path.rsplit('/').next().unwrap_or(path);
        if root().join(path).is_dir() {
            if !["node_modules", "target", "snapshots"].contains(&name) {
                found.extend(sources(path));
            }
        } else if let Ok(text) = fs::read_to_string(root().join(path)) {
            let own = text.split("#[cfg(test)]\nmod ").next();
            found.push(own.unwrap_or(&text).to_owned());
        }
    }
    found
}
