//! SIGINT, SIGTERM and SIGHUP while something is measured or rehearsed: the work ends, and what
//! was made for it can still be taken away.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens from its making on.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    pub(super) fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Does the work; a signal cancels `stop`, and the work ends itself. A second one drops it.
    pub(super) async fn stops<T>(
        &mut self,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
        stop.cancel();
        tokio::select! {
            done = work => done,
            _ = self.interrupt.recv() => Err("interrupted, and not cleaned up".to_owned()),
            _ = self.terminate.recv() => Err("terminated, and not cleaned up".to_owned()),
            _ = self.hangup.recv() => Err("hung up, and not cleaned up".to_owned()),
        }
    }

    /// Does the work; a signal drops it where it stands.
    pub(super) async fn cuts<T>(
        &mut self,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        tokio::select! {
            done = work => done,
            _ = self.interrupt.recv() => Err("interrupted".to_owned()),
            _ = self.terminate.recv() => Err("terminated".to_owned()),
            _ = self.hangup.recv() => Err("hung up".to_owned()),
        }
    }
}
