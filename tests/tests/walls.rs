//! The walls between the modules, held by reading the sources.
//!
//! Each rule names a text and the only files where code may use it. Comments don't count, and
//! neither do the tests inside of a module.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is used, and the only places that may: paths from the root without their `.rs`, where
/// a directory stands for all in it.
const THIRD_PARTY: &[(&str, &[&str])] = &[
    ("sled::", &["pipeletd/src/store/sled"]),
    (
        "async_nats::",
        &[
            "pipeletd/src/store/jetstream",
            "pipeletd/src/cluster",
            "pipeletd/src/config",
        ],
    ),
    (
        "ring::",
        &[
            "pipeletd/src/store/sealing",
            "pipeletd/domain/src/webhooks/signing",
        ],
    ),
    ("lz4_flex::", &["pipeletd/src/store/byte_list"]),
    ("reqwest::", &["pipeletd/src/telemetry/exporter"]),
    (
        "prost::",
        &[
            "pipeletd/src/telemetry/otlp",
            "pipeletd/src/cluster",
            "pipeletd/src/ocpp/remote",
        ],
    ),
    (
        "hyper::",
        &[
            "pipeletd/src/delivery/http",
            "pipeletd/src/api/server",
            "pipeletd/src/api/readers",
        ],
    ),
    (
        "hyper_util::",
        &[
            "pipeletd/src/delivery/http",
            "pipeletd/src/api/server",
            "pipeletctl/src/forward",
        ],
    ),
    ("h2::", &["pipeletd/src/delivery/http"]),
    (
        "tokio_tungstenite::",
        &[
            "pipeletd/src/ocpp/ended",
            "pipeletd/src/ocpp/link",
            "pipeletd/src/ocpp/remote",
            "pipeletd/src/ocpp/session",
            "pipeletd/src/ocpp/handshake",
            "pipeletctl/simulator/src/connection",
        ],
    ),
    (
        "tokio_rustls::",
        &[
            "pipeletd/src/delivery/http",
            "pipeletd/src/ocpp/accept",
            "pipeletd/src/ocpp/gateway",
            "pipeletd/src/system/tls",
            "pipeletctl/simulator/src/connection",
        ],
    ),
    (
        "x509_parser::",
        &["pipeletd/src/ocpp/client_names", "pipeletd/src/system/tls"],
    ),
    ("prometheus::", &["pipeletd/src/api/metrics"]),
    (
        "pipelet_proto::",
        &["pipeletd/src/api", "pipeletd/src/app", "pipeletctl/src"],
    ),
    ("pipeletd::", &["pipeletd/src/main"]),
];

/// The modules of each program in layers: each knows those of the layers above its own in this
/// list, and no others. What all of them speak of is a crate below (`pipeletd/domain`).
const LAYERS: &[(&str, &[&[&str]])] = &[
    (
        "pipeletd/src",
        &[
            &["system"],
            &["auth", "telemetry"],
            &["store"],
            &["cluster"],
            &["journal", "registries"],
            &["delivery", "ocpp"],
            &["api", "config"],
            &["app", "fuzzing"],
        ],
    ),
    (
        "pipeletctl/src",
        &[
            &["system", "table", "overview", "words"],
            &["cli"],
            &["settings"],
            &["error"],
            &["forward", "output"],
            &["client", "view"],
            &["commands"],
        ],
    ),
];

/// What a pure module must not use: no I/O, no tasks, no clock.
const PURE: &[(&str, &[&str])] = &[
    ("domain/src", &["std::fs", "std::net::Tcp", "std::thread"]),
    (
        "src/delivery/policy",
        &["tokio::", "std::fs", "std::net::Tcp"],
    ),
    (
        "src/ocpp/admission",
        &["tokio::", "std::fs", "std::net::Tcp"],
    ),
    ("src/api", &["sled", "reqwest", "tokio_tungstenite"]),
];

struct Source {
    /// From the root, without `.rs`.
    path: String,
    code: String,
}

#[test]
fn third_party_crates_stay_behind_their_walls() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were not found");
    for source in &sources {
        let code = without_own_imports(&source.code);
        for (used, allowed) in THIRD_PARTY {
            let at_home = allowed.iter().any(|place| within(&source.path, place));
            assert!(
                at_home || !uses(&code, used),
                "{}.rs uses {used}, which only {allowed:?} may",
                source.path
            );
        }
    }
}

#[test]
fn a_module_knows_only_the_layers_below_it() {
    let sources = sources();
    for (package, layers) in LAYERS {
        let layer = |module: &str| layers.iter().position(|layer| layer.contains(&module));
        let module = |source: &Source| {
            let path = source.path.strip_prefix(package)?.strip_prefix('/')?;
            let module = path.split('/').next()?.to_owned();
            (!["lib", "main"].contains(&module.as_str())).then_some(module)
        };
        for source in &sources {
            let Some(module) = module(source) else {
                continue;
            };
            let own = layer(&module).unwrap_or_else(|| panic!("{module} is in no layer"));
            for other in layers[own..].concat() {
                assert!(
                    other == module || !knows(&source.code, other),
                    "{}.rs knows {other}, which is not below it",
                    source.path
                );
            }
        }
    }
}

#[test]
fn pure_modules_do_no_io() {
    for source in sources() {
        for (module, refused) in PURE {
            if !within(&source.path, &format!("pipeletd/{module}")) {
                continue;
            }
            for used in *refused {
                let found = uses(&source.code, used);
                assert!(
                    !found,
                    "{}.rs uses {used}, but {module} must not",
                    source.path
                );
            }
        }
    }
}

/// A package that inherits no lints would be free of all of them, this one included.
#[test]
fn unsafe_code_is_forbidden_in_every_package() {
    let manifest = |directory: &Path| {
        let path = directory.join("Cargo.toml");
        fs::read_to_string(path).expect("a manifest")
    };
    let forbids = |manifest: &str, section: &str| {
        let section = manifest.split(&format!("\n[{section}]\n")).nth(1);
        let lines = section.unwrap_or_default().lines();
        let mut lines = lines.take_while(|line| !line.starts_with('['));
        lines.any(|line| line == r#"unsafe_code = "forbid""#)
    };
    let workspace = manifest(&root());
    assert!(forbids(&workspace, "workspace.lints.rust"));
    let members = workspace.lines().find_map(|line| {
        let list = line.strip_prefix("members = [")?;
        Some(list.trim_end_matches(']').split(", "))
    });
    for member in members.expect("members in one line") {
        let manifest = manifest(&root().join(member.trim_matches('"')));
        let inherits = manifest.contains("\n[lints]\nworkspace = true\n");
        assert!(
            inherits || forbids(&manifest, "lints.rust"),
            "{member} may be unsafe"
        );
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for path in files() {
        if stem(&path).ends_with("tests") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        assert!(
            text.starts_with("//!"),
            "{} opens without //!",
            path.display()
        );
    }
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    for path in files() {
        let name = stem(&path);
        let refused = [
            "utils", "util", "common", "helpers", "helper", "types", "misc",
        ];
        assert!(!refused.contains(&name), "{}", path.display());
    }
}

/// Whether a path is this place, something that begins with its name, or inside of it.
fn within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '_']))
}

/// Whether the code uses a crate or path by this name, and not one that ends with it.
fn uses(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        // A path may begin with colons, or go through a module of ours that has the crate's name.
        let before = code[..at].strip_suffix("::").unwrap_or(&code[..at]);
        let before = before.chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(part_of_a_word)
            && (name.ends_with(':') || !after.is_some_and(part_of_a_word))
    })
}

/// The code less its imports from our own modules, which may have the names of crates.
fn without_own_imports(code: &str) -> String {
    let mut statements: Vec<_> = code.split(';').collect();
    statements.retain(|statement| {
        let imported = statement.trim_start().trim_start_matches("pub ");
        !["use crate::", "use super::", "use self::"]
            .iter()
            .any(|own| imported.starts_with(own))
    });
    statements.join(";")
}

/// Whether the code imports `crate::other`, alone or in a group.
fn knows(code: &str, other: &str) -> bool {
    if uses(code, &format!("crate::{other}")) {
        return true;
    }
    code.split("use crate::{").skip(1).any(|group| {
        let group = group.split_once(';').map_or(group, |(group, _)| group);
        let mut depth = 0;
        let top: String = group
            .chars()
            .filter(|c| {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                depth == 0
            })
            .collect();
        top.split(',')
            .any(|item| item.trim().split("::").next() == Some(other))
    })
}

fn sources() -> Vec<Source> {
    let root = root();
    files()
        .into_iter()
        .filter(|path| !stem(path).ends_with("tests"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file");
            let path = path
                .strip_prefix(&root)
                .expect("under the root")
                .with_extension("");
            let path = path
                .to_str()
                .expect("UTF-8")
                .trim_end_matches("/mod")
                .to_owned();
            Source {
                path,
                code: code_of(&text),
            }
        })
        .collect()
}

/// The text without comments, and without the module's tests, which come last. Tests in a file of
/// their own are only named here.
fn code_of(text: &str) -> String {
    let tests = text.match_indices("#[cfg(test)]\n").find(|(at, _)| {
        let declared = text[*at..].lines().nth(1).unwrap_or_default();
        declared.contains("mod ") && declared.ends_with('{')
    });
    let code = tests.map_or(text, |(at, _)| &text[..at]);
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for package in [
        "printable/src",
        "pipeletd/domain/src",
        "pipeletd/src",
        "pipeletctl/simulator/src",
        "pipeletctl/src",
        "proto/src",
    ] {
        collect(&root().join(package), &mut found);
    }
    found.sort();
    found
}

fn stem(path: &Path) -> &str {
    path.file_stem()
        .and_then(|name| name.to_str())
        .expect("a UTF-8 name")
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}
