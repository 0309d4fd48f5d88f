//! Keys that stand twice in one JSON object: which of the two is meant, no reader can know.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// More are not told: a megabyte of them needs no megabytes of complaint.
const MAX_FOUND: usize = 64;

/// A JSON pointer (RFC 6901) to each key that repeats one of its object, up to where the JSON can't
/// be read.
pub fn repeated_keys(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let scan = Scan {
        at: &At::Root,
        found: &mut found,
    };
    let mut json = serde_json::Deserializer::from_slice(json);
    // Whoever reads the JSON itself tells what is wrong with it.
    let _ = scan.deserialize(&mut json);
    found
}

struct Scan<'a> {
    at: &'a At<'a>,
    found: &'a mut Vec<String>,
}

/// Where in the JSON something stands. Written out for a fault only: a long key has many elements
/// below it, and each would bear it.
enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl At<'_> {
    /// As a JSON pointer (RFC 6901).
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(parent, key) => {
                // A name without end is cut: it points well enough.
                let key = &key[..key.floor_char_boundary(100)];
                let key = key.replace('~', "~0").replace('/', "~1");
                format!("{}/{key}", parent.pointer())
            }
            Self::Index(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let element = Scan {
                at: &At::Index(self.at, index),
                found: &mut *self.found,
            };
            if elements.next_element_seed(element)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            let at = At::Key(self.at, &key);
            if seen.contains(&key) && self.found.len() < MAX_FOUND {
                self.found.push(at.pointer());
            }
            fields.next_value_seed(Scan {
                at: &at,
                found: &mut *self.found,
            })?;
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repetition_is_a_fault() {
        let check = |json: &str, pointers: &[&str]| {
            assert_eq!(repeated_keys(json.as_bytes()), pointers, "{json}");
        };
        check(r#"{"a":1,"b":{"a":[-1,1.5,true,null,"a"]}}"#, &[]);
        check(r#"{"type":"Soft","typ\u0065":"Hard"}"#, &["/type"]);
        check(
            r#"{"a":[{},{"b/c":1,"b/c":2,"b/c":3}],"a":0}"#,
            &["/a/1/b~1c", "/a/1/b~1c", "/a"],
        );
    }

    #[test]
    fn a_long_key_is_not_copied_for_each_thing_below_it() {
        // 50 GB of copies otherwise.
        let json = format!(
            r#"{{"{}":[{}0],"b":1,"b":2}}"#,
            "k".repeat(500_000),
            "0,".repeat(100_000)
        );
        let found = repeated_keys(json.as_bytes());
        assert_eq!(found.len(), 1);
        let json = format!(r#"{{"{0}":1,"{0}":2}}"#, "k".repeat(500_000));
        let found = repeated_keys(json.as_bytes());
        assert_eq!(found[0].len(), 101);
    }
}
