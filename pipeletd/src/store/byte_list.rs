//! A list of byte strings as one value, compressed where that makes it shorter.
//!
//! A record for each string costs the engine far more than its bytes, and neighbours repeat each
//! other's names. A list is a version byte, how it is packed, the number of strings, the length
//! before compression, and then each string's length and bytes.
//!
//! What is read is not trusted: no length is believed before the bytes are there.

use bytes::Bytes;

use super::{
    StoreError,
    codec::{Reader, put_varint, record_error, split_version},
};

const VERSION: u8 = 3;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// No LZ4 block unpacks to more bytes for each of its own.
const LZ4_BEST_RATIO: usize = 255;
const WHAT: &str = "block";

/// A list that is being filled.
#[derive(Default)]
pub(super) struct ByteList {
    count: u64,
    plain: Vec<u8>,
}

impl ByteList {
    pub(super) fn add(&mut self, string: &[u8]) {
        put_varint(&mut self.plain, string.len() as u64);
        self.plain.extend_from_slice(string);
        self.count += 1;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In bytes, before compression.
    pub(super) const fn plain_len(&self) -> usize {
        self.plain.len()
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let packed = lz4_flex::block::compress(&self.plain);
        let (packing, body) = if packed.len() < self.plain.len() {
            (LZ4, &packed)
        } else {
            (PLAIN, &self.plain)
        };
        let mut out = Vec::with_capacity(body.len() + 16);
        out.extend_from_slice(&[VERSION, packing]);
        put_varint(&mut out, self.count);
        put_varint(&mut out, self.plain.len() as u64);
        out.extend_from_slice(body);
        out
    }
}

/// The number of strings in a list, which is not unpacked for it.
pub(super) fn count(value: &[u8]) -> Result<u64, StoreError> {
    Ok(Head::read(value)?.0.count)
}

pub(super) fn decode(value: &Bytes) -> Result<Vec<Bytes>, StoreError> {
    let (head, packed) = Head::read(value)?;
    let plain = head.unpack(value.slice_ref(packed))?;
    let mut rest = Reader::at(&plain, WHAT);
    let mut strings = Vec::new();
    for _ in 0..head.count {
        let len = rest.varint()?;
        strings.push(plain.slice_ref(rest.bytes(len)?));
    }
    if !rest.rest().is_empty() {
        return Err(record_error(WHAT, "something stands behind its end"));
    }
    Ok(strings)
}

struct Head {
    packing: u8,
    count: u64,
    plain_len: usize,
}

impl Head {
    /// Returns what stands behind it, too.
    fn read(value: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let mut rest = Reader::at(split_version(value, VERSION, WHAT)?, WHAT);
        let packing = rest.byte()?;
        let count = rest.varint()?;
        let plain_len = rest.varint()?;
        let packed = rest.rest();
        let most = match packing {
            PLAIN => packed.len(),
            LZ4 => packed.len().saturating_mul(LZ4_BEST_RATIO),
            _ => return Err(record_error(WHAT, "its packing is not known")),
        };
        let plain_len = usize::try_from(plain_len).ok().filter(|len| *len <= most);
        let plain_len = plain_len.ok_or_else(|| record_error(WHAT, "it is cut short"))?;
        if count == 0 || count > plain_len as u64 {
            return Err(record_error(WHAT, "its count can't be right"));
        }
        let head = Self {
            packing,
            count,
            plain_len,
        };
        Ok((head, packed))
    }

    fn unpack(&self, packed: Bytes) -> Result<Bytes, StoreError> {
        let plain = if self.packing == LZ4 {
            let mut plain = vec![0; self.plain_len];
            let len = lz4_flex::block::decompress_into(&packed, &mut plain)
                .map_err(|error| record_error(WHAT, error))?;
            plain.truncate(len);
            plain.into()
        } else {
            packed
        };
        if plain.len() == self.plain_len {
            Ok(plain)
        } else {
            Err(record_error(WHAT, "it has another length than it says"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(strings: &[Vec<u8>]) -> Bytes {
        let mut list = ByteList::default();
        for string in strings {
            list.add(string);
        }
        list.encode().into()
    }

    fn any_strings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let string = prop_oneof![any::<Vec<u8>>(), Just(vec![7; 300])];
        prop::collection::vec(string, 1..40)
    }

    proptest! {
        #[test]
        fn strings_come_back(strings in any_strings()) {
            let value = encoded(&strings);
            prop_assert_eq!(count(&value).unwrap(), strings.len() as u64);
            prop_assert_eq!(decode(&value).unwrap(), strings);
        }

        #[test]
        fn a_cut_list_is_an_error(strings in any_strings(), at: prop::sample::Index) {
            let value = encoded(&strings);
            prop_assert!(decode(&value.slice(..at.index(value.len()))).is_err());
        }

        #[test]
        fn a_changed_byte_never_panics(
            strings in any_strings(), at: prop::sample::Index, to: u8,
        ) {
            let mut value = encoded(&strings).to_vec();
            let at = at.index(value.len());
            value[at] = to;
            never_panics(value);
        }

        #[test]
        fn random_bytes_never_panic(packing in 0..3_u8, bytes: Vec<u8>) {
            never_panics([&[VERSION, packing], bytes.as_slice()].concat());
            never_panics(bytes);
        }
    }

    fn never_panics(value: Vec<u8>) {
        let _ = count(&value);
        let _ = decode(&value.into());
    }

    #[test]
    fn lengths_are_not_believed() {
        let huge = [&[VERSION, LZ4][..], &[0xff; 8], &[0x7f], &[1; 40]].concat();
        let error = decode(&huge.into()).err().unwrap();
        assert!(error.to_string().contains("block"), "{error}");
        // A count of one, and 200 MB out of ten bytes.
        let long = [&[VERSION, LZ4, 1][..], &[0x80, 0x84, 0xaf, 0x5f], &[0; 10]].concat();
        let error = decode(&long.into()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "a stored block can't be read: it is cut short"
        );
    }
}
