//! An address where connections are neither accepted nor refused, as behind a firewall that drops
//! what it does not like.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::deadline::within;

/// For as long as it lives, who connects there waits.
#[derive(Debug)]
pub struct Blackhole {
    _listener: TcpListener,
    /// They fill its queue, behind which the kernel drops every further SYN.
    _waiting: Vec<TcpStream>,
}

impl Blackhole {
    pub async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address).expect("a free port");
        // The kernel takes one more than it is asked to.
        let listener = socket.listen(0).expect("a listening socket");
        let first = within(
            "a connection that nobody accepts",
            TcpStream::connect(address),
        )
        .await;
        Self {
            _listener: listener,
            _waiting: vec![first.expect("a connection")],
        }
    }
}
