//! Looks for what should not be there: the very bytes, and what they look like in base64 and hex.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use memchr::memmem;

/// The files below a directory, or the file, that have these bytes in them in any form.
pub fn holds(path: &Path, wanted: &[u8]) -> Vec<PathBuf> {
    if !path.is_dir() {
        let bytes = fs::read(path).expect("a readable file");
        let is_in = forms(wanted)
            .iter()
            .any(|form| memmem::find(&bytes, form).is_some());
        return if is_in { vec![path.to_owned()] } else { vec![] };
    }
    let entries = fs::read_dir(path).expect("a readable directory");
    let found = entries.flat_map(|entry| holds(&entry.expect("an entry").path(), wanted));
    found.collect()
}

fn forms(wanted: &[u8]) -> Vec<Vec<u8>> {
    let hex = |digits: &str| {
        let digits = digits.as_bytes();
        let digit = |nibble: u8| digits[usize::from(nibble)];
        let pairs = wanted
            .iter()
            .map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        pairs.flatten().collect()
    };
    let mut forms = vec![
        wanted.to_vec(),
        hex("0123456789abcdef"),
        hex("0123456789ABCDEF"),
    ];
    // Base64 has three forms, by how many bytes are before these; what mixes with a neighbour
    // is left out.
    for before in 0..3 {
        let text = STANDARD_NO_PAD.encode([&vec![0; before], wanted].concat());
        let (begin, end) = ((before * 8).div_ceil(6), (before + wanted.len()) * 8 / 6);
        forms.push(text.as_bytes()[begin..end].to_vec());
    }
    forms
}

#[test]
fn every_form_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    for form in [
        "id:a secret",
        "aWQ6YSBzZWNyZXQ=",
        "612073656372657400",
        "61207365637265742E",
    ] {
        fs::write(&file, form).expect("a writable file");
        assert_eq!(
            holds(directory.path(), b"a secret"),
            std::slice::from_ref(&file),
            "{form}"
        );
    }
    fs::write(&file, "another secret").expect("a writable file");
    assert!(holds(directory.path(), b"a secret").is_empty());
}
