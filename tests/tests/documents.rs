//! The README's event catalogue is the code's own table.

use std::{fmt::Write as _, fs, path::Path};

use pipelet_domain::events::{Direction, EventType};

const BEGIN: &str = "<!-- event catalogue: begin -->\n";
const END: &str = "<!-- event catalogue: end -->";

#[test]
fn the_readme_shows_the_catalogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let readme = root.expect("the workspace").join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let shown = readme
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(block, _)| block.trim());
    let table = rendered();
    assert!(
        shown == Some(table.trim()),
        "put this into README.md, between its marks:\n{BEGIN}{table}{END}"
    );
}

/// The catalogue as a Markdown table.
fn rendered() -> String {
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
    table
}
