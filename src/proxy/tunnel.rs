//! A tunnel: bytes both ways, unread, until one side has had enough or nothing moves any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// How long nothing may move: longer than any answer takes that a bot would wait for.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// After a stop, an answer that has not gone on for so long has ended.
const QUIET: Duration = Duration::from_secs(1);

/// When something last moved, and who would have to move next.
struct Activity {
    clock: Clock,
    /// Since boot, in milliseconds.
    last: AtomicU64,
    /// The client spoke last: it waits for an answer.
    waits: AtomicBool,
}

impl Activity {
    fn note(&self, by_client: bool) {
        let now = u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
        self.waits.store(by_client, Ordering::Relaxed);
    }

    fn quiet_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.clock.boottime().saturating_sub(last)
    }

    /// Returns when nothing has moved for too long.
    async fn idle(&self) {
        loop {
            let left = IDLE_MAX.saturating_sub(self.quiet_for());
            if left.is_zero() {
                return;
            }
            self.clock.sleep(left).await;
        }
    }

    /// Returns when nobody waits for an answer any more, `drain` from now at the latest.
    async fn at_rest(&self, drain: Duration) {
        let until = self.clock.boottime().saturating_add(drain);
        loop {
            let left = until.saturating_sub(self.clock.boottime());
            let rests = !self.waits.load(Ordering::Relaxed) && self.quiet_for() >= QUIET;
            if left.is_zero() || rests {
                return;
            }
            self.clock.sleep(left.min(QUIET)).await;
        }
    }
}

/// Carries bytes between a client and a far side to their end. After `stop` an exchange that is
/// under way may finish, within `drain`.
pub(super) async fn carry<C, F>(
    client: C,
    far: F,
    clock: Clock,
    stop: CancellationToken,
    drain: Duration,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Arc::new(Activity {
        clock,
        last: AtomicU64::new(0),
        waits: AtomicBool::new(false),
    });
    activity.note(false);
    let mut client = Watched {
        stream: client,
        activity: Arc::clone(&activity),
        is_client: true,
    };
    let mut far = Watched {
        stream: far,
        activity: Arc::clone(&activity),
        is_client: false,
    };
    tokio::select! {
        // How a tunnel ends is the affair of both ends alone.
        _ = copy_bidirectional(&mut client, &mut far) => {}
        () = activity.idle() => {}
        () = async {
            stop.cancelled().await;
            activity.at_rest(drain).await;
        } => {}
    }
}

/// A stream that notes when something comes from it.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    is_client: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.note(self.is_client);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::model::Timestamp;

    const DRAIN: Duration = Duration::from_secs(10);

    struct Laid {
        client: DuplexStream,
        far: DuplexStream,
        clock: Clock,
        stop: CancellationToken,
        carried: JoinHandle<()>,
    }

    fn lay() -> Laid {
        let (client, near) = duplex(64);
        let (beyond, far) = duplex(64);
        let clock = Clock::manual(Timestamp(0));
        let stop = CancellationToken::new();
        let carried = tokio::spawn(carry(near, beyond, clock.clone(), stop.clone(), DRAIN));
        Laid {
            client,
            far,
            clock,
            stop,
            carried,
        }
    }

    impl Laid {
        async fn ask(&mut self) {
            self.client.write_all(b"?").await.expect("writes");
            assert_eq!(self.far.read_u8().await.expect("reads"), b'?');
        }

        async fn answer(&mut self) {
            self.far.write_all(b"!").await.expect("writes");
            assert_eq!(self.client.read_u8().await.expect("reads"), b'!');
        }

        /// Time goes by for whoever waits, in small steps.
        async fn pass(&self, time: Duration) {
            let step = Duration::from_millis(500);
            let mut passed = Duration::ZERO;
            while passed < time {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                self.clock.advance(step);
                passed += step;
            }
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn it_ends_when_an_end_has_ended() {
        let mut laid = lay();
        laid.ask().await;
        laid.answer().await;
        drop(laid.far);
        assert_eq!(laid.client.read(&mut [0]).await.expect("is closed"), 0);
        drop(laid.client);
        laid.carried.await.expect("ends");
    }

    #[tokio::test]
    async fn it_ends_when_nothing_moves_for_long_and_not_before() {
        let mut laid = lay();
        laid.pass(IDLE_MAX - QUIET).await;
        laid.ask().await;
        laid.pass(IDLE_MAX - QUIET).await;
        assert!(!laid.carried.is_finished());
        laid.pass(QUIET).await;
        laid.carried.await.expect("ends");
    }

    #[tokio::test]
    async fn after_the_stop_an_answer_may_come_and_then_it_ends() {
        let mut laid = lay();
        laid.ask().await;
        laid.stop.cancel();
        laid.pass(QUIET * 5).await;
        assert!(!laid.carried.is_finished(), "an answer is waited for");
        laid.answer().await;
        laid.pass(QUIET * 2).await;
        laid.carried.await.expect("ends");
    }

    #[tokio::test]
    async fn after_the_stop_no_answer_is_waited_for_longer_than_the_drain() {
        let mut laid = lay();
        laid.ask().await;
        laid.stop.cancel();
        laid.pass(DRAIN - QUIET).await;
        assert!(!laid.carried.is_finished());
        laid.pass(QUIET * 2).await;
        laid.carried.await.expect("ends");
    }

    #[tokio::test]
    async fn at_the_stop_one_at_rest_ends() {
        let mut laid = lay();
        laid.ask().await;
        laid.answer().await;
        laid.pass(QUIET).await;
        laid.stop.cancel();
        laid.carried.await.expect("ends");
    }
}
