//! A wire between two processes that a test can cut, or leave standing without a byte coming
//! through. Knows nothing of what is spoken on it.

use std::net::SocketAddr;
use std::time::Duration;

use hapax::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::world::LIMIT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Passes,
    Holds,
    Cut,
}

#[derive(Debug, Clone, Copy)]
struct State {
    wire: Wire,
    /// How often it was cut: whoever looks seldom sees that it was.
    cuts: u32,
}

/// A TCP proxy at a loopback port. All its connections end when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Starts one that passes everything between its port and `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a bound address").port();
        let wire = Wire::Passes;
        let (sender, state) = watch::channel(State { wire, cuts: 0 });
        tokio::spawn(accept(listener, target, state));
        let state = sender;
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and every new one at once.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| {
            state.wire = Wire::Cut;
            state.cuts += 1;
        });
    }

    /// Keeps all connections open, and takes new ones, but forwards nothing that is sent from now
    /// on. It is not lost: it goes on its way when the proxy passes again.
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| state.wire = Wire::Holds);
    }

    /// Forwards everything again.
    pub(crate) fn pass(&self) {
        self.state.send_modify(|state| state.wire = Wire::Passes);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mut state: watch::Receiver<State>) {
    let all = state.clone();
    // Ends, with an error, when the proxy is dropped.
    let dropped = state.wait_for(|_| false);
    tokio::pin!(dropped);
    loop {
        tokio::select! {
            _ = &mut dropped => return,
            accepted = listener.accept() => {
                let (near, _) = accepted.expect("a connection");
                tokio::spawn(connection(near, target, all.clone()));
            }
        }
    }
}

async fn connection(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let carried = carry(near, target, cuts, state.clone());
    tokio::select! {
        () = carried => {}
        // Or the proxy is dropped.
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// Carries bytes both ways until both ends have closed.
async fn carry(near: TcpStream, target: SocketAddr, cuts: u32, mut state: watch::Receiver<State>) {
    if !passes(&mut state, cuts).await {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    // A wire of its own would not wait to fill its packets.
    for end in [&near, &far] {
        end.set_nodelay(true).expect("a socket has that option");
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = forward(near_read, far_write, cuts, state.clone());
    tokio::join!(there, forward(far_read, near_write, cuts, state));
}

/// Waits while the wire holds; whether it passes then, or is cut, or was since `cuts`: what was
/// held before a cut must not come through after it.
async fn passes(state: &mut watch::Receiver<State>, cuts: u32) -> bool {
    let is_decided = |state: &State| state.wire != Wire::Holds || state.cuts != cuts;
    let decided = state.wait_for(is_decided).await;
    decided.is_ok_and(|state| state.wire == Wire::Passes && state.cuts == cuts)
}

/// Forwards one direction until its end.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    cuts: u32,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let goes_on = passes(&mut state, cuts).await && length > 0;
        if !goes_on || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// A connection through the proxy: both of its ends.
async fn reach(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(("127.0.0.1", proxy.port())).await;
    let (far, _) = listener.accept().await.expect("it comes through");
    (near.expect("the proxy accepts"), far)
}

/// Says a byte at one end and waits for it at the other.
async fn is_heard(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"a").await.expect("it is sent");
    let heard = Clock::system().timeout(LIMIT, to.read_u8()).await;
    assert_eq!(heard.expect("in time").expect("a byte"), b'a');
}

async fn is_closed(end: &mut TcpStream) {
    let read = Clock::system().timeout(LIMIT, end.read(&mut [0])).await;
    let read = read.expect("in time");
    assert!(read.is_err() || read.is_ok_and(|length| length == 0));
}

#[tokio::test]
async fn a_proxy_passes_and_holds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = listener.local_addr().expect("a bound address");
    let proxy = Proxy::start(target).await;
    let (mut near, mut far) = reach(&proxy, &listener).await;
    is_heard(&mut near, &mut far).await;
    is_heard(&mut far, &mut near).await;

    proxy.hold();
    near.write_all(b"b").await.expect("it is taken");
    let wait = Duration::from_millis(100);
    let early = Clock::system().timeout(wait, far.read_u8()).await;
    assert!(early.is_err(), "nothing comes through");
    proxy.pass();
    let heard = Clock::system().timeout(LIMIT, far.read_u8()).await;
    assert_eq!(heard.expect("in time").expect("a byte"), b'b');

    drop(near);
    is_closed(&mut far).await;
}

#[tokio::test]
async fn a_proxy_that_is_cut_closes_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = listener.local_addr().expect("a bound address");
    let proxy = Proxy::start(target).await;
    let (mut near, mut far) = reach(&proxy, &listener).await;
    proxy.cut();
    is_closed(&mut near).await;
    is_closed(&mut far).await;
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await;
    is_closed(&mut refused.expect("the proxy listens")).await;

    proxy.pass();
    let (mut near, mut far) = reach(&proxy, &listener).await;
    is_heard(&mut near, &mut far).await;
    // However short the cut.
    proxy.cut();
    proxy.pass();
    is_closed(&mut near).await;
    // And what was held is lost.
    let (mut near, mut far) = reach(&proxy, &listener).await;
    proxy.hold();
    near.write_all(b"a").await.expect("it is taken");
    proxy.cut();
    proxy.pass();
    is_closed(&mut far).await;
    let (mut near, _far) = reach(&proxy, &listener).await;
    drop(proxy);
    is_closed(&mut near).await;
}
