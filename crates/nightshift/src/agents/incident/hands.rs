//! Errands under way: what the workflow ordered, carried out by others, brought back as its inputs.
//!
//! Futures of the agent itself, not tasks: a crash (or a test that drops the agent) ends them where they are, and in
//! virtual time they run when the agent is turned.

use futures::stream::{FuturesUnordered, StreamExt as _};
use std::future::Future;
use std::pin::Pin;

/// One errand.
type Errand<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The errands of an agent.
pub(super) struct Hands<T> {
    running: FuturesUnordered<Errand<T>>,
}

impl<T> Hands<T> {
    pub(super) fn new() -> Self {
        Self { running: FuturesUnordered::new() }
    }

    /// Begins one. It moves on only while the agent waits in [`Self::next`].
    pub(super) fn begin(&mut self, errand: impl Future<Output = T> + Send + 'static) {
        self.running.push(Box::pin(errand));
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next one that is done; waits for ever when there is none.
    pub(super) async fn next(&mut self) -> T {
        match self.running.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Those that are done by now.
    pub(super) fn done(&mut self) -> Vec<T> {
        let mut out = Vec::new();
        while let Some(Some(done)) = futures::FutureExt::now_or_never(self.running.next()) {
            out.push(done);
        }
        out
    }
}
