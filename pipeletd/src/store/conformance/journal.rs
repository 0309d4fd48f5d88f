//! The journal: what was appended one by one or together, read and forgotten.

use std::{ops::Range, sync::Arc};

use pipelet_domain::events::{Event, Seq};

use super::{check, check_reopened, event, events};
use crate::store::{ReadLimit, Store};

/// Appends events together, at the journal's end.
fn append(store: &dyn Store, numbers: Range<u64>) {
    let first = Seq(numbers.start);
    store.append(first, &events(numbers), &[]).unwrap();
}

fn append_each(store: &dyn Store, numbers: Range<u64>) {
    for number in numbers {
        append(store, number..number + 1);
    }
}

fn numbered(numbers: Range<u64>) -> Vec<(Seq, Arc<Event>)> {
    numbers.map(|n| (Seq(n), event(n, 300))).collect()
}

#[test]
fn the_journal_gives_back_what_was_appended() {
    check(|store| {
        assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(0));
        assert_eq!(store.read_from(Seq(0), ReadLimit::part(10)).unwrap(), []);
        assert_eq!(store.event(Seq(0)).unwrap(), None);
        append(store, 0..300);
        append(store, 300..700);
        assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(700));

        assert_eq!(
            store.read_from(Seq(295), ReadLimit::part(10)).unwrap(),
            numbered(295..305)
        );
        assert_eq!(store.event(Seq(699)).unwrap(), Some(event(699, 300)));
        assert_eq!(store.event(Seq(700)).unwrap(), None);
    });
}

#[test]
fn every_event_of_a_batch_can_be_read_from() {
    check(|store| {
        append_each(store, 0..2);
        append(store, 2..60);
        append_each(store, 60..61);
        append(store, 61..70);
        for from in 0..70 {
            for limit in [1, 2, 30, 100] {
                let until = 70.min(from + limit as u64);
                let read = store.read_from(Seq(from), ReadLimit::part(limit)).unwrap();
                assert_eq!(read, numbered(from..until), "{limit} from {from}");
            }
            assert_eq!(store.event(Seq(from)).unwrap(), Some(event(from, 300)));
        }
        assert_eq!(store.read_from(Seq(70), ReadLimit::part(10)).unwrap(), []);
        assert_eq!(store.read_from(Seq(5), ReadLimit::part(0)).unwrap(), []);
    });
}

#[test]
fn long_payloads_are_kept_whole() {
    check(|store| {
        let long = [
            event(0, 3_900),
            event(1, 4_000),
            event(2, 30_000),
            event(3, 1 << 20),
        ];
        for (seq, event) in (0..).map(Seq).zip(&long) {
            store.append(seq, std::slice::from_ref(event), &[]).unwrap();
        }
        // The same once more, together and among short ones.
        let together = [&[event(4, 10)], &long[..], &[event(9, 10)]].concat();
        store.append(Seq(4), &together, &[]).unwrap();

        let all = [&long[..], &together].concat();
        for bytes in [1, 100_000, usize::MAX] {
            let mut read = Vec::new();
            while read.len() < all.len() {
                let from = Seq(read.len() as u64);
                let part = store.read_from(from, ReadLimit { count: 99, bytes });
                let part = part.unwrap().into_iter().map(|(_, event)| event);
                let part: Vec<_> = part.collect();
                let size: usize = part.iter().map(|event| event.memory_size()).sum();
                assert!(size <= bytes || part.len() == 1, "{size} of {bytes}");
                read.extend(part);
            }
            assert_eq!(read, all, "{bytes} bytes at once");
        }
        store.drop_below(Seq(3), 10).unwrap();
        assert_eq!(store.event(Seq(2)).unwrap(), None);
        assert_eq!(store.event(Seq(3)).unwrap(), Some(Arc::clone(&long[3])));
    });
}

#[test]
fn dropping_keeps_the_journals_end() {
    check(|store| {
        append_each(store, 0..10);
        assert!(store.drop_below(Seq(4), 3).unwrap() > 3 * 50);
        assert_eq!(store.bounds().unwrap(), Seq(3)..Seq(10));
        assert_eq!(store.event(Seq(2)).unwrap(), None);
        assert_eq!(
            store.read_from(Seq(0), ReadLimit::part(1)).unwrap(),
            numbered(3..4)
        );
        store.drop_below(Seq(4), 100).unwrap();
        assert_eq!(store.bounds().unwrap(), Seq(4)..Seq(10));
        store.drop_below(Seq(1_000), 100).unwrap();
        assert_eq!(store.bounds().unwrap(), Seq(9)..Seq(10));
        assert_eq!(store.drop_below(Seq(1_000), 100).unwrap(), 0);
    });
}

#[test]
fn dropping_takes_nothing_at_the_floor_or_above() {
    check(|store| {
        for first in (0..500).step_by(50) {
            append(store, first..first + 50);
        }
        for floor in (0..500).step_by(7) {
            store.drop_below(Seq(floor), 1_000).unwrap();
            let bounds = store.bounds().unwrap();
            // What was appended together is all that may be left below the floor.
            assert!(bounds.start.0 <= floor && floor - bounds.start.0 < 50);
            assert_eq!(bounds.end, Seq(500));
            let left = numbered(bounds.start.0..500);
            assert_eq!(
                store.read_from(Seq(0), ReadLimit::part(1_000)).unwrap(),
                left
            );
        }
        store.drop_below(Seq(9_999), 1_000).unwrap();
        assert_eq!(store.event(Seq(499)).unwrap(), Some(event(499, 300)));
        append(store, 500..510);
        let start = store.bounds().unwrap().start;
        assert_eq!(
            store.read_from(start, ReadLimit::part(1_000)).unwrap(),
            numbered(start.0..510)
        );
    });
}

#[test]
fn every_drop_gets_on_however_small_its_limit() {
    check(|store| {
        append(store, 0..100);
        append(store, 100..200);
        let mut start = store.bounds().unwrap().start;
        while start < Seq(100) {
            assert!(store.drop_below(Seq(100), 1).unwrap() > 0);
            let left = store.bounds().unwrap();
            assert!(left.start > start && left.start <= Seq(100));
            start = left.start;
        }
        assert_eq!(store.drop_below(Seq(100), 1).unwrap(), 0);
        assert_eq!(store.bounds().unwrap(), Seq(100)..Seq(200));
    });
}

#[test]
fn numbers_go_on_after_a_restart() {
    check_reopened(
        |store| {
            append(store, 0..40);
            append(store, 40..45);
            store.drop_below(Seq(1_000), 1_000).unwrap();
            append(store, 45..48);
        },
        |store| {
            let bounds = store.bounds().unwrap();
            assert_eq!(bounds.end, Seq(48));
            append(store, 48..60);
            assert_eq!(store.bounds().unwrap(), bounds.start..Seq(60));
            assert_eq!(
                store.read_from(Seq(45), ReadLimit::part(99)).unwrap(),
                numbered(45..60)
            );
        },
    );
}

#[test]
fn what_is_cut_off_makes_room_for_other_events() {
    check_reopened(
        |store| {
            append(store, 0..50);
            append(store, 50..150);
            store.cut_off(Seq(150)).unwrap();
            assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(150));
            store.cut_off(Seq(50)).unwrap();
            assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(50));
            append(store, 50..52);
        },
        |store| {
            assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(52));
            assert_eq!(
                store.read_from(Seq(0), ReadLimit::part(200)).unwrap(),
                numbered(0..52)
            );
        },
    );
}
