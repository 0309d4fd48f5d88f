//! A thread that writes, so that no write waits behind reads.

use std::{
    panic::{self, AssertUnwindSafe},
    thread,
};

use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// Calls that may wait; each has one caller at a time.
const QUEUE: usize = 16;

type Call = Box<dyn FnOnce() + Send>;

/// Runs calls one after the other. The thread ends with it.
#[derive(Debug)]
pub(super) struct Writer(mpsc::Sender<Call>);

impl Writer {
    pub(super) fn start(name: &str) -> Result<Self, StoreError> {
        let (calls, mut waiting) = mpsc::channel::<Call>(QUEUE);
        let run = move || {
            while let Some(call) = waiting.blocking_recv() {
                call();
            }
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(run);
        started.map_err(StoreError::Sync)?;
        Ok(Self(calls))
    }

    /// Runs a call to its end, whether or not its caller waits; a panic in it goes on here.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (done, ended) = oneshot::channel();
        let call = move || {
            // What panicked is used no more: the panic ends whoever owns it.
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(call)));
        };
        // The thread lives as long as its handle, and a call ends, whichever way.
        let _ = self.0.send(Box::new(call)).await;
        match ended.await.expect("a call that was sent is run") {
            Ok(value) => value,
            Err(panic) => panic::resume_unwind(panic),
        }
    }
}
