//! A wire between two processes that can be cut, slowed, or left standing without a byte coming
//! through. Knows nothing of what is spoken on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::clock::Clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Passes,
    Holds,
    Cut,
}

#[derive(Debug, Clone, Copy)]
struct State {
    flow: Flow,
    /// How long each piece is on its way.
    delay: Duration,
    /// How often it was cut: whoever looks seldom sees that it was.
    cuts: u32,
}

/// A TCP proxy at a loopback port. All its connections end when it is dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    turn: Mutex<()>,
}

impl Wire {
    /// Starts one that passes everything between its port and `target`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr, clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, state) = watch::channel(State {
            flow: Flow::Passes,
            delay: Duration::ZERO,
            cuts: 0,
        });
        tokio::spawn(accept(listener, Far { target, clock }, state));
        Ok(Self {
            address,
            state: sender,
            turn: Mutex::default(),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where it listens.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Who breaks it while others do so, too, holds this meanwhile: to pass again is to pass
    /// whoever held it before.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// From now on each piece that goes either way is so long on its way.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Closes all connections, and every new one at once.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Cut;
            state.cuts += 1;
        });
    }

    /// Keeps all connections open, and takes new ones, but forwards nothing that is sent from now
    /// on. It is not lost: it goes on its way when the wire passes again.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.flow = Flow::Holds);
    }

    /// Forwards everything again, at once.
    pub fn pass(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Passes;
            state.delay = Duration::ZERO;
        });
    }
}

/// Where the wire leads.
#[derive(Clone)]
struct Far {
    target: SocketAddr,
    clock: Clock,
}

async fn accept(listener: TcpListener, far: Far, mut state: watch::Receiver<State>) {
    let all = state.clone();
    // Ends, with an error, when the wire is dropped.
    let dropped = async {
        let _ = state.wait_for(|_| false).await;
    };
    tokio::pin!(dropped);
    loop {
        tokio::select! {
            () = &mut dropped => return,
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => {
                    tokio::spawn(connection(near, far.clone(), all.clone()));
                }
                // Out of file descriptors, or the caller is gone already: neither may spin.
                Err(_) => far.clock.sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

async fn connection(near: TcpStream, far: Far, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let carried = carry(near, far, cuts, state.clone());
    tokio::select! {
        () = carried => {}
        // Or the wire is dropped.
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// Carries bytes both ways until both ends have closed.
async fn carry(near: TcpStream, far: Far, cuts: u32, mut state: watch::Receiver<State>) {
    if !passes(&mut state, cuts).await {
        return;
    }
    let clock = far.clock;
    let Ok(far) = TcpStream::connect(far.target).await else {
        return;
    };
    for end in [&near, &far] {
        // A wire of its own would not wait to fill its packets.
        let _ = end.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let way = Way { cuts, state, clock };
    let there = forward(near_read, far_write, way.clone());
    tokio::join!(there, forward(far_read, near_write, way));
}

/// Waits while the wire holds; whether it passes then, or is cut, or was since `cuts`: what was
/// held before a cut must not come through after it.
async fn passes(state: &mut watch::Receiver<State>, cuts: u32) -> bool {
    let is_decided = |state: &State| state.flow != Flow::Holds || state.cuts != cuts;
    let decided = state.wait_for(is_decided).await;
    decided.is_ok_and(|state| state.flow == Flow::Passes && state.cuts == cuts)
}

/// What both directions of a connection know.
#[derive(Clone)]
struct Way {
    cuts: u32,
    state: watch::Receiver<State>,
    clock: Clock,
}

/// Forwards one direction until its end.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let delay = way.state.borrow().delay;
        if !delay.is_zero() {
            way.clock.sleep(delay).await;
        }
        let goes_on = passes(&mut way.state, way.cuts).await && length > 0;
        if !goes_on || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(90);

    async fn start(target: SocketAddr) -> Wire {
        Wire::start(target, Clock::system()).await.expect("a port")
    }

    /// A connection through the wire: both of its ends.
    async fn reach(wire: &Wire, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(("127.0.0.1", wire.port())).await;
        let (far, _) = listener.accept().await.expect("it comes through");
        (near.expect("the wire accepts"), far)
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
    async fn a_wire_passes_and_holds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = listener.local_addr().expect("a bound address");
        let wire = start(target).await;
        let (mut near, mut far) = reach(&wire, &listener).await;
        is_heard(&mut near, &mut far).await;
        is_heard(&mut far, &mut near).await;

        wire.hold();
        near.write_all(b"b").await.expect("it is taken");
        let wait = Duration::from_millis(100);
        let early = Clock::system().timeout(wait, far.read_u8()).await;
        assert!(early.is_err(), "nothing comes through");
        wire.pass();
        let heard = Clock::system().timeout(LIMIT, far.read_u8()).await;
        assert_eq!(heard.expect("in time").expect("a byte"), b'b');

        drop(near);
        is_closed(&mut far).await;
    }

    #[tokio::test]
    async fn a_wire_that_is_cut_closes_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = listener.local_addr().expect("a bound address");
        let wire = start(target).await;
        let (mut near, mut far) = reach(&wire, &listener).await;
        wire.cut();
        is_closed(&mut near).await;
        is_closed(&mut far).await;
        let refused = TcpStream::connect(("127.0.0.1", wire.port())).await;
        is_closed(&mut refused.expect("the wire listens")).await;

        wire.pass();
        let (mut near, mut far) = reach(&wire, &listener).await;
        is_heard(&mut near, &mut far).await;
        // However short the cut.
        wire.cut();
        wire.pass();
        is_closed(&mut near).await;
        // And what was held is lost.
        let (mut near, mut far) = reach(&wire, &listener).await;
        wire.hold();
        near.write_all(b"a").await.expect("it is taken");
        wire.cut();
        wire.pass();
        is_closed(&mut far).await;
        let (mut near, _far) = reach(&wire, &listener).await;
        drop(wire);
        is_closed(&mut near).await;
    }

    #[tokio::test]
    async fn a_wire_can_be_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = listener.local_addr().expect("a bound address");
        let wire = start(target).await;
        let (mut near, mut far) = reach(&wire, &listener).await;
        let delay = Duration::from_millis(50);
        wire.delay(delay);
        let before = Clock::system().boottime();
        is_heard(&mut near, &mut far).await;
        assert!(Clock::system().boottime() - before >= delay);
    }
}
