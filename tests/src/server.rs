//! A server on a thread and a runtime of its own, so that stopping it closes every socket at once,
//! and so that what it measures does not depend on what the test is doing meanwhile.

use std::{
    convert::Infallible, future::Future, io::ErrorKind, net::SocketAddr, thread::JoinHandle,
    time::Duration,
};

use tokio::{net::TcpListener, runtime, sync::oneshot, time::sleep};

use crate::deadline::within;

/// How often a port is asked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// It serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    running: Option<(oneshot::Sender<Infallible>, JoinHandle<()>)>,
}

impl Server {
    pub(crate) async fn start<F: Future<Output = ()>>(
        address: SocketAddr,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let (bound, address_of) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            // Dropping the runtime drops every connection with it.
            runtime.expect("a runtime").block_on(async {
                let listener = within("a free port", bound_to(address)).await;
                let _ = bound.send(listener.local_addr().expect("a bound address"));
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: address_of.await.expect("the receiver's address"),
            running: Some((stop, thread)),
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port that a server had before may be somebody's who connects elsewhere just now.
async fn bound_to(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("{address} can't be bound: {error}"),
        }
        sleep(LOOK_AGAIN).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("the receiver's thread");
        }
    }
}
