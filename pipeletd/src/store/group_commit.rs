//! One writer for what many send: what arrives while one write runs goes into the next.
//!
//! The writer owns what it writes, and its requests wait in a bounded queue. While the store has an
//! outage, the write is tried again and again; what then becomes of requests is the writer's
//! business. A stop writes what was sent before it.
//!
//! It runs on a thread of its own, which a store may block: a write waits for nobody's reads, and a
//! group's notifications for nobody's work.

use std::{fmt, thread, time::Duration};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::StoreError;

/// How often a store that can't write is tried again.
pub const TRY_EVERY: Duration = Duration::from_millis(250);

/// Who writes.
#[async_trait]
pub trait GroupWriter: Send + 'static {
    type Request: Send + 'static;

    /// Takes a request into the batch that is gathered. One that needs this batch to be written
    /// before comes back.
    fn take(&mut self, request: Self::Request) -> Option<Self::Request>;

    fn is_empty(&self) -> bool;

    /// Whether the batch takes no more.
    fn is_full(&self) -> bool;

    /// Until then more is gathered, while the batch is neither empty nor full.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// When [`Self::write`] is called though nothing was sent.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }

    /// Writes the batch, and once it is durable notifies those who wait for it.
    async fn write(&mut self) -> Result<(), StoreError>;

    /// A write has failed: by an outage, after which it is called again, or for good.
    fn suspend(&mut self, error: &StoreError);

    /// The outage is over.
    fn resume(&mut self);

    /// Takes a request, or refuses it by dropping it, while nothing can be written.
    fn take_suspended(&mut self, request: Self::Request);

    /// Adds what is to be written last.
    fn finish(&mut self) {}
}

/// Sends requests to a writer. Cheap to clone.
pub struct GroupCommit<R>(mpsc::Sender<Message<R>>);

enum Message<R> {
    Request(R),
    Stop(oneshot::Sender<()>),
}

/// The writer has ended.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

/// Ends when the writer does: without an error only after [`GroupCommit::stop`], or a panic.
#[derive(Debug)]
pub struct WriterThread(oneshot::Receiver<Result<(), StoreError>>);

impl WriterThread {
    pub async fn ended(&mut self) -> Result<(), StoreError> {
        (&mut self.0).await.unwrap_or(Ok(()))
    }
}

impl<R> Clone for GroupCommit<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> fmt::Debug for GroupCommit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").finish_non_exhaustive()
    }
}

impl<R: Send + 'static> GroupCommit<R> {
    /// The name is the thread's. So many requests may wait in the queue; further ones wait for
    /// room. Must be called within a runtime. Once `ending` is cancelled, an outage of the store is
    /// not waited out any more. One that the store has now is waited out before anything is written.
    pub fn start(
        name: &str,
        mut writer: impl GroupWriter<Request = R>,
        queue: usize,
        ending: CancellationToken,
        outage: Option<StoreError>,
    ) -> Result<(Self, WriterThread), StoreError> {
        let (requests, queue) = mpsc::channel(queue);
        if let Some(error) = &outage {
            writer.suspend(error);
        }
        let run = Run {
            writer,
            queue,
            ending,
            waiting: None,
        };
        let (done, ended) = oneshot::channel();
        let runtime = Handle::current();
        let thread = thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || {
            let result = runtime.block_on(run.run(outage));
            // Nobody listens any more when the process is ending anyway.
            let _ = done.send(result);
        });
        started.map_err(StoreError::Sync)?;
        Ok((Self(requests), WriterThread(ended)))
    }

    pub async fn send(&self, request: R) -> Result<(), Closed> {
        let sent = self.0.send(Message::Request(request)).await;
        sent.map_err(|_| Closed)
    }

    /// Writes what was sent so far and ends the writer.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.send(Message::Stop(done)).await.is_ok() {
            // An error means that it ended by itself, which is the same here.
            let _ = stopped.await;
        }
    }
}

struct Run<W: GroupWriter> {
    writer: W,
    queue: mpsc::Receiver<Message<W::Request>>,
    ending: CancellationToken,
    /// For the batch before it to be written.
    waiting: Option<W::Request>,
}

/// What gathering or waiting has come to.
enum Next {
    Write,
    /// Who waits for the end, if anyone.
    End(Option<oneshot::Sender<()>>),
}

impl<W: GroupWriter> Run<W> {
    async fn run(mut self, outage: Option<StoreError>) -> Result<(), StoreError> {
        let ended = self.write_all(outage).await;
        if let Err(error) = &ended {
            // Before the queue is dropped: who finds it closed asks for the reason.
            self.writer.suspend(error);
        }
        let stopped = ended?;
        // Nobody waits for a stop any longer than for this.
        drop(self);
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
        Ok(())
    }

    async fn write_all(
        &mut self,
        outage: Option<StoreError>,
    ) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        if let Some(error) = outage
            && let Next::End(stopped) = self.wait_out(error).await?
        {
            return Ok(stopped);
        }
        loop {
            match self.gather().await {
                Next::Write => {
                    if let Next::End(stopped) = self.write().await? {
                        return Ok(stopped);
                    }
                }
                Next::End(stopped) => {
                    self.finish().await?;
                    return Ok(stopped);
                }
            }
        }
    }

    async fn gather(&mut self) -> Next {
        loop {
            if let Some(request) = self.waiting.take() {
                self.waiting = self.writer.take(request);
            }
            if self.waiting.is_some() || self.writer.is_full() {
                return Next::Write;
            }
            let next = match self.queue.try_recv() {
                Ok(next) => Some(next),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) => {
                    let until = match (self.writer.is_empty(), self.writer.due()) {
                        (true, _) => self.writer.wakes_at(),
                        (false, Some(due)) => Some(due),
                        (false, None) => return Next::Write,
                    };
                    match until {
                        None => self.queue.recv().await,
                        Some(until) => match timeout_at(until, self.queue.recv()).await {
                            Ok(next) => next,
                            Err(_) => return Next::Write,
                        },
                    }
                }
            };
            match next {
                Some(Message::Request(request)) => self.waiting = Some(request),
                Some(Message::Stop(done)) => return Next::End(Some(done)),
                None => return Next::End(None),
            }
        }
    }

    /// Writes the batch; waits an outage out.
    async fn write(&mut self) -> Result<Next, StoreError> {
        match self.writer.write().await {
            Err(error) if error.is_outage() => self.wait_out(error).await,
            written => written.map(|()| Next::Write),
        }
    }

    async fn wait_out(&mut self, mut error: StoreError) -> Result<Next, StoreError> {
        loop {
            self.writer.suspend(&error);
            if let Next::End(stopped) = self.wait_for_recovery().await {
                return Ok(Next::End(stopped));
            }
            match self.writer.write().await {
                Ok(()) => {
                    self.writer.resume();
                    return Ok(Next::Write);
                }
                Err(again) if again.is_outage() => error = again,
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Until the next try. Once the daemon is ending, there is nobody left to wait for, as after a
    /// stop.
    async fn wait_for_recovery(&mut self) -> Next {
        let next_try = Instant::now() + TRY_EVERY;
        loop {
            tokio::select! {
                () = sleep_until(next_try) => return Next::Write,
                () = self.ending.cancelled() => return Next::End(None),
                next = self.queue.recv(), if !self.writer.is_full() => match next {
                    Some(Message::Request(request)) => self.writer.take_suspended(request),
                    Some(Message::Stop(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    /// Writes what is still queued.
    async fn finish(&mut self) -> Result<(), StoreError> {
        self.queue.close();
        while let Some(next) = self.queue.recv().await {
            let Message::Request(request) = next else {
                continue;
            };
            let mut request = self.writer.take(request);
            while request.is_some() || self.writer.is_full() {
                self.writer.write().await?;
                request = request.and_then(|request| self.writer.take(request));
            }
        }
        self.writer.finish();
        while !self.writer.is_empty() {
            self.writer.write().await?;
        }
        Ok(())
    }
}
