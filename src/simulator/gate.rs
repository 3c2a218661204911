//! A gate that a test closes and opens: whoever comes while it is closed waits. What replaces
//! sleeping when something has to happen while something else is under way.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets everybody pass until [`Gate::hold`].
    pub fn open() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }

    /// Lets nobody pass until [`Gate::release`].
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Closes the gate for who comes now.
    pub fn hold(&self) {
        self.0.send_replace(false);
    }

    /// Opens the gate and lets pass who waits.
    pub fn release(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the gate is open. The caller sets the limit.
    pub async fn pass(&self) {
        // The sender is `self`, so this ends only when the gate is open.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_while_it_is_closed_waits() {
        let gate = Gate::closed();
        let waiter = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        gate.release();
        waiter.await.unwrap();
        gate.pass().await;
    }
}
