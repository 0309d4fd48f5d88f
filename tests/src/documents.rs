//! The documents that people read, as tests see them: pages, sections, tables and fenced blocks.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A Markdown file.
#[derive(Debug)]
pub struct Page {
    /// From the repository's root.
    pub path: String,
    pub text: String,
}

/// A fenced block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// All that stands behind the opening fence.
    pub language: &'a str,
    pub text: &'a str,
}

/// The repository's root.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace")
}

impl Page {
    pub fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        Self {
            path: path.to_owned(),
            text: text.unwrap_or_else(|error| panic!("{path}: {error}")),
        }
    }

    /// The pages at the root, those in `docs/`, and those beside the examples.
    pub fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(root()).expect("the root") {
            paths.push(entry.expect("an entry").path());
        }
        paths.retain(|path| path.is_file());
        for directory in ["docs", "examples"] {
            collect(&root().join(directory), &mut paths);
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        paths.sort();
        let pages = paths.iter().map(|path| {
            let path = path.strip_prefix(root()).expect("below the root");
            Self::read(path.to_str().expect("UTF-8"))
        });
        pages.collect()
    }

    /// The text under a heading of the second level.
    pub fn section(&self, heading: &str) -> &str {
        let (_, rest) = self
            .text
            .split_once(&format!("\n## {heading}\n"))
            .unwrap_or_else(|| panic!("{} has no {heading:?}", self.path));
        rest.split("\n## ").next().unwrap_or(rest)
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        blocks(&self.text)
    }

    /// The lines outside of fenced blocks.
    pub fn prose(&self) -> String {
        let mut is_fenced = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.starts_with("```");
            is_fenced ^= is_fence;
            !is_fence && !is_fenced
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What stands between backticks in a line of text, with line breaks as spaces.
    pub fn code(&self) -> Vec<String> {
        let prose = self.prose().replace('\n', " ").replace("\\|", "|");
        let code = prose.split('`').skip(1).step_by(2);
        code.map(str::to_owned).collect()
    }

    /// Holds a part that is made from code, between the marks `<!-- NAME: begin -->` and
    /// `<!-- NAME: end -->`. With `UPDATE_DOCUMENTS` in the environment, it is written.
    pub fn holds(&self, name: &str, made: &str) {
        let (begin, end) = (
            format!("<!-- {name}: begin -->\n"),
            format!("<!-- {name}: end -->"),
        );
        let (before, rest) = self.text.split_once(&begin).expect("the first mark");
        let (shown, after) = rest.split_once(&end).expect("the second mark");
        if shown == made {
            return;
        }
        let path = &self.path;
        assert!(
            env::var_os("UPDATE_DOCUMENTS").is_some(),
            "{path} differs: UPDATE_DOCUMENTS=1 puts this between its marks:\n{made}"
        );
        let text = format!("{before}{begin}{made}{end}{after}");
        fs::write(root().join(path), text).expect("a writable document");
    }
}

/// The fenced blocks of a text.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    let blocks = blocks.map(|block| {
        let (language, text) = block.split_once('\n').expect("a line");
        Block { language, text }
    });
    blocks.collect()
}

/// What stands between backticks in the first cells of a text's tables.
pub fn first_cells(text: &str) -> impl Iterator<Item = &str> {
    let cells = text.lines().filter_map(|line| {
        let row = line.strip_prefix("| `")?;
        row.split(" | ").next()
    });
    cells.flat_map(|cell| cell.split('`').step_by(2))
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("node_modules" | "target") => {}
            _ if path.is_dir() => collect(&path, found),
            _ => found.push(path),
        }
    }
}
