//! A server on a thread and a runtime of its own, so that stopping it closes every socket at once,
//! and so that what it measures does not depend on what the test is doing meanwhile.

use std::{convert::Infallible, future::Future, net::SocketAddr, thread::JoinHandle};

use tokio::{net::TcpListener, runtime, sync::oneshot};

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
                let listener = TcpListener::bind(address).await.expect("a free port");
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

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("the receiver's thread");
        }
    }
}
