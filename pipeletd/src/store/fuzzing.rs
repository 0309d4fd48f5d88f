//! What must hold of every byte that stands in the store, whoever wrote it.
//!
//! A damaged record is an error or another record, and never a panic; a record that is read is
//! written again as it is, and asks for no more memory than it has bytes for.

use std::fmt::Debug;

use bytes::Bytes;
use pipelet_domain::{
    deliveries::{FailedId, RetryKey},
    events::Seq,
    webhooks::{Secret, WebhookId},
};

use super::{
    RestoreError, backup,
    block::{self, Block},
    codec, id_tag_record, keys, records, registration_record,
    sealing::{Place, SealError, SecretKey, SecretKeys},
    station_record, transaction_record,
};

/// A value of the journal: a single event, or a block of them.
pub(crate) fn event(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    leads_back(input, "an event", codec::decode_event, codec::encode_event);
    let first = Seq(7);
    let Ok(unpacked) = Block::unpack(first, &bytes) else {
        return;
    };
    let Ok(events) = unpacked.read_from(Seq(0)).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let end = block::end(first, &bytes).expect("what can be unpacked has an end");
    assert_eq!(end, Seq(first.0 + events.len() as u64));
    let plain: Vec<_> = events.iter().map(|(_, event)| event.clone()).collect();
    let mut again = Vec::new();
    for (first, value) in block::pack(first, &plain) {
        let block = Block::unpack(first, &value.into()).expect("what was packed can be unpacked");
        for event in block.read_from(Seq(0)) {
            again.push(event.expect("what was written can be read"));
        }
    }
    assert_eq!(again, events);
}

/// A backup's file. Nobody guesses its checksum, so the input is also what a backup is made of.
pub(crate) fn backup(input: &[u8]) {
    let read = |mut bytes: &[u8]| -> Result<Vec<backup::Record>, RestoreError> {
        let mut reader = backup::Reader::begin(&mut bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    };
    let _ = read(input);
    let Some((&[at, bit], rest)) = input.split_first_chunk() else {
        return;
    };
    let records: Vec<_> = rest
        .chunks(usize::from(bit).max(1))
        .map(|chunk| {
            let (key, value) = chunk.split_at(chunk.len() / 3);
            backup::Record {
                key: key.to_vec(),
                value: value.to_vec(),
            }
        })
        .collect();
    let mut file = Vec::new();
    let mut writer = backup::Writer::begin(&mut file).expect("memory takes all");
    for backup::Record { key, value } in &records {
        writer.record(key, value).expect("memory takes all");
    }
    writer.end().expect("memory takes all");
    assert_eq!(read(&file).expect("a whole backup"), records);
    let at = usize::from(at) * file.len() / 256;
    assert!(read(&file[..at]).is_err(), "it was cut at {at}");
    file[at] ^= 1 << (bit % 8);
    assert!(read(&file).is_err(), "it was changed at {at}");
}

/// A sealed secret, or one to be sealed; the first byte says what becomes of it on the disk.
pub(crate) fn sealed(input: &[u8]) {
    let Some((&at, rest)) = input.split_first() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    let key = |byte| SecretKey::from_bytes([byte; SecretKey::LEN]);
    let keys = SecretKeys::new([key(1), key(2)]).expect("there are two");
    let place = Place::WebhookSecret(WebhookId(at.into()));
    // The keys are known, and nobody has forged anything with them.
    let _ = keys.open(place, text);
    let sealed = keys.seal(place, &Secret::new(text)).expect("it is short");
    assert_eq!(keys.open(place, &sealed), Ok(Secret::new(text)));
    let elsewhere = Place::WebhookSecret(WebhookId(u64::from(at) + 1));
    assert_eq!(keys.open(elsewhere, &sealed), Err(SealError::Damaged));
    let others = SecretKeys::new([key(3)]).expect("there is one");
    assert_eq!(others.open(place, &sealed), Err(SealError::UnknownKey));
    let index = usize::from(at) % sealed.len();
    let mut changed = sealed.clone().into_bytes();
    changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("it is base64");
    assert!(keys.open(place, &changed).is_err(), "{changed} opens");
    assert!(keys.open(place, &sealed[..index]).is_err());
}

/// A record or a key of any other kind; the first byte says which.
pub(crate) fn record(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let retry_key = RetryKey {
        webhook: WebhookId(1),
        due_ms: 2,
        seq: Seq(3),
    };
    match kind % 13 {
        0 => webhook(bytes),
        1 => leads_back(
            bytes,
            "a retry",
            |bytes| records::decode_retry(retry_key, bytes),
            records::encode_retry,
        ),
        2 => leads_back(
            bytes,
            "a failed delivery",
            |bytes| records::decode_failed(FailedId(1), bytes),
            records::encode_failed,
        ),
        3 => leads_back(
            bytes,
            "an account",
            |bytes| records::decode_ledger_counts(bytes),
            records::encode_ledger_counts,
        ),
        4 => leads_back(
            bytes,
            "an API key",
            |bytes| records::decode_api_key(1, bytes),
            records::encode_api_key,
        ),
        5 => leads_back(
            bytes,
            "a station",
            |bytes| station_record::decode(bytes),
            station_record::encode,
        ),
        6 => leads_back(
            bytes,
            "a transaction",
            |bytes| transaction_record::decode_transaction(bytes),
            transaction_record::encode_transaction,
        ),
        7 => leads_back(
            bytes,
            "an id tag",
            |bytes| id_tag_record::decode_id_tag(bytes),
            id_tag_record::encode_id_tag,
        ),
        8 => leads_back(
            bytes,
            "a registration",
            |bytes| registration_record::decode_registration(bytes),
            registration_record::encode_registration,
        ),
        9 => leads_back(
            bytes,
            "a cursor",
            |bytes| codec::decode_cursor(bytes),
            codec::encode_cursor,
        ),
        10 => leads_back(
            bytes,
            "a count",
            |bytes| codec::decode_received(bytes),
            |received| codec::encode_received(*received),
        ),
        12 => leads_back(
            bytes,
            "a sum of books",
            |bytes| records::decode_archived_counts(bytes),
            records::encode_archived_counts,
        ),
        _ => {
            if let Some(key) = keys::read_retry(bytes) {
                assert_eq!(keys::read_retry(&keys::retry(key)), Some(key));
            }
            if let Some(seq) = keys::last_number(bytes) {
                assert_eq!(keys::last_number(&keys::event(Seq(seq))), Some(seq));
            }
        }
    }
}

fn webhook(bytes: &[u8]) {
    let keys = SecretKeys::new([SecretKey::from_bytes([1; 32])]).expect("there is one");
    leads_back(
        bytes,
        "a webhook",
        |bytes| records::decode_webhook(bytes, &keys),
        |stored| records::encode_webhook(stored, &keys).expect("a secret can be sealed"),
    );
}

/// What can be read is written so that the same is read again.
fn leads_back<T: PartialEq + Debug, E: Debug>(
    input: &[u8],
    what: &str,
    decode: impl Fn(&Bytes) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(read) = decode(&Bytes::copy_from_slice(input)) else {
        return;
    };
    let again = decode(&encode(&read).into());
    let again = again.unwrap_or_else(|error| panic!("{what} is lost: {error:?}"));
    assert_eq!(again, read, "{what} changes");
}
