//! Where spans are left: a bounded queue that never makes anybody wait.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::Span;

/// Spans that may wait for the exporter, at about half a kilobyte each; further ones are dropped.
const QUEUE: usize = 8192;

/// Takes spans; by default there is nowhere to export them to, and none are made. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Arc<Queue>>);

#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<Span>,
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// What became of spans, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanCounts {
    /// A collector took them.
    pub exported: u64,
    /// The queue was full, or the collector did not take them.
    pub dropped: u64,
}

impl Spans {
    pub(super) fn queued() -> (Self, mpsc::Receiver<Span>) {
        let (spans, queue) = mpsc::channel(QUEUE);
        let queued = Queue {
            spans,
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        (Self(Some(Arc::new(queued))), queue)
    }

    /// Makes a span, where there is somewhere to export it to.
    pub fn record(&self, span: impl FnOnce() -> Span) {
        let Some(queue) = &self.0 else { return };
        // The room first: a span that is dropped is not made either.
        match queue.spans.try_reserve() {
            Ok(room) => room.send(span()),
            Err(_) => self.dropped(1),
        }
    }

    pub fn counts(&self) -> SpanCounts {
        let of = |queue: &Arc<Queue>| SpanCounts {
            exported: queue.exported.load(Ordering::Relaxed),
            dropped: queue.dropped.load(Ordering::Relaxed),
        };
        self.0.as_ref().map(of).unwrap_or_default()
    }

    pub(super) fn exported(&self, count: usize) {
        if let Some(queue) = &self.0 {
            queue.exported.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self, count: usize) {
        if let Some(queue) = &self.0 {
            queue.dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::telemetry::Kind;

    fn span() -> Span {
        Span {
            trace: [1; 16],
            id: 1,
            parent: None,
            name: "POST",
            kind: Kind::Client,
            began: Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            failed: false,
            attributes: Vec::new(),
        }
    }

    #[test]
    fn without_a_collector_no_span_is_made() {
        let spans = Spans::default();
        spans.record(|| unreachable!("nobody wants it"));
        assert_eq!(spans.counts(), SpanCounts::default());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_not_made() {
        let (spans, _queue) = Spans::queued();
        for _ in 0..QUEUE {
            spans.record(span);
        }
        assert_eq!(spans.counts().dropped, 0);
        spans.record(|| unreachable!("there is no room for it"));
        assert_eq!(spans.counts().dropped, 1);
    }
}
