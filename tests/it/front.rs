//! One address in front of several nodes, as a balancer of TCP connections has it: each connection
//! goes to one of those that take it. Knows nothing of HTTP.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A balancer at a loopback port. All its connections end when it is dropped.
pub(crate) struct Front {
    address: SocketAddr,
    nodes: watch::Sender<Vec<SocketAddr>>,
}

impl Front {
    /// Starts one that has no node yet.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound address");
        let (nodes, known) = watch::channel(Vec::new());
        tokio::spawn(accept(listener, known));
        Self { address, nodes }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go to these from now on; the old ones stay as they are.
    pub(crate) fn lead_to(&self, nodes: Vec<SocketAddr>) {
        self.nodes.send_replace(nodes);
    }
}

async fn accept(listener: TcpListener, nodes: watch::Receiver<Vec<SocketAddr>>) {
    let mut until_dropped = nodes.clone();
    // Ends, with an error, when the balancer is dropped.
    let dropped = until_dropped.wait_for(|_| false);
    tokio::pin!(dropped);
    for count in 0.. {
        tokio::select! {
            _ = &mut dropped => return,
            accepted = listener.accept() => {
                let (near, _) = accepted.expect("a connection");
                tokio::spawn(connection(near, count, nodes.clone()));
            }
        }
    }
}

/// The nodes take turns; one that does not take the connection is passed over.
async fn connection(
    mut near: TcpStream,
    count: usize,
    mut nodes: watch::Receiver<Vec<SocketAddr>>,
) {
    let known = nodes.borrow().clone();
    for index in 0..known.len() {
        let node = known[(count + index) % known.len()];
        let Ok(mut far) = TcpStream::connect(node).await else {
            continue;
        };
        for end in [&near, &far] {
            end.set_nodelay(true).expect("a socket has that option");
        }
        tokio::select! {
            // An end that breaks is seen by the other one.
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = nodes.wait_for(|_| false) => {}
        }
        return;
    }
}
