//! `traceparent` (W3C Trace Context, section 3.2): by which a receiver's traces find together.
//!
//! The trace is the event's: its id has the 16 bytes that a trace's has, so every attempt at it and
//! every replay, to whatever webhook, is in one trace. Each attempt is a span of its own.

use std::{cell::Cell, ops::Range};

use http::{HeaderName, HeaderValue};
use pipelet_domain::events::EventId;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Version 0, and sampled. Where spans are exported, every attempt is. Where none are, the flag still
/// asks the receiver to record: without it, a sampler that goes by its parent's decision, as most do
/// by default, would keep nothing of what is done with an event.
const TEMPLATE: [u8; 55] = *b"00-00000000000000000000000000000000-0000000000000000-01";
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;

/// The header of an attempt at an event, which is this span of its trace.
pub(super) fn traceparent(event: EventId, span: u64) -> HeaderValue {
    let mut text = TEMPLATE;
    write_hex(&mut text[TRACE], &event.to_bytes());
    write_hex(&mut text[SPAN], &span.to_be_bytes());
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are ASCII")
}

/// By hand, because `format!` takes longer than the rest of the header together.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// An attempt's span. Not zero, which is no span's id. It has to differ and not to be secret, so it is drawn without
/// a call into the system: splitmix64, from a seed of the system's for each thread.
pub(super) fn new_span() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    // Without randomness, spans of two threads may get the same id: their traces differ.
    let _ = getrandom::fill(&mut seed);
    u64::from_ne_bytes(seed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_trace_is_the_events() {
        let event: EventId = "evt_0190a5d1c2f37a1b8c4d5e6f70819203".parse().unwrap();
        let expected = "00-0190a5d1c2f37a1b8c4d5e6f70819203-00000000000000ff-01";
        assert_eq!(traceparent(event, 0xff), expected);
    }

    #[test]
    fn spans_differ() {
        let spans: HashSet<u64> = (0..10_000).map(|_| new_span()).collect();
        assert_eq!(spans.len(), 10_000);
        assert!(!spans.contains(&0));
    }
}
