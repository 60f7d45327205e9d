//! HTTP towards clients that may be slow, broken or hostile.
//!
//! Lives here: a server that bounds connections, headers and idle time, and [`Gate`], through which bodies are read:
//! bounded in size, in time, in how slowly they may come, and in what all of them together may hold.
//! Never here: what a request means.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::{HeaderValue, Request, StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes that one permit of the budget for bodies stands for.
const PERMIT_BYTES: usize = 4 << 10;

/// How long connections may still work when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// How a server treats its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HttpLimits {
    /// Most connections at a time; further ones are closed at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_max: usize,
    /// Most connections of one address.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_peer_max: usize,
    /// Time for the head of a request.
    #[schemars(range(min = 1, max = 600))]
    pub header_secs: u64,
    /// Time for a body.
    #[schemars(range(min = 1, max = 3600))]
    pub body_secs: u64,
    /// Slowest a body may come, after its first five seconds, bytes per second.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub body_rate_min_bytes: u64,
    /// Time in which a connection must move at least a byte in either direction.
    #[schemars(range(min = 1, max = 3600))]
    pub idle_secs: u64,
    /// Bytes that the bodies of all requests together may hold; what comes when they do is told to come later.
    #[schemars(range(min = 1_048_576, max = 17_179_869_184_u64))]
    pub in_flight_bytes_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_peer_max: 512,
            header_secs: 10,
            body_secs: 60,
            body_rate_min_bytes: 1_024,
            idle_secs: 120,
            in_flight_bytes_max: 128 << 20,
        }
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than is taken.
    #[error("body has more than {limit_bytes} bytes; send it in parts")]
    TooLarge {
        /// What is taken.
        limit_bytes: usize,
    },
    /// It came too slowly.
    #[error("body came too slowly")]
    Slow,
    /// The client went away, or broke HTTP.
    #[error("body ended early")]
    Broken,
    /// Too many bodies at a time.
    #[error("busy, come back in {} s", retry_after_secs(*retry_after))]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
}

impl BodyError {
    /// The reason it is counted under.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Slow => "too_slow",
            Self::Broken => "body_broken",
            Self::Busy { .. } => "busy",
        }
    }
}

fn retry_after_secs(retry_after: Duration) -> u64 {
    retry_after.as_millis().div_ceil(1_000).clamp(1, 600) as u64
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut response = (status, format!("{self}\n")).into_response();
        match self {
            Self::Busy { retry_after } => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_secs(retry_after)));
            }
            // What is left of the body would be read as the next request.
            _ => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        response
    }
}

/// A body in memory. Its share of the budget returns when it is dropped.
#[derive(Debug)]
pub struct HeldBody {
    bytes: Bytes,
    _budget: Option<OwnedSemaphorePermit>,
}

impl HeldBody {
    /// Its bytes, without a copy. The budget is held by this value, so keep it until they are done with.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl std::ops::Deref for HeldBody {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Through which bodies are read. All clones share one budget.
#[derive(Debug, Clone)]
pub struct Gate {
    budget: Arc<Semaphore>,
    body: Duration,
    rate_min_bytes: u64,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(limits: &HttpLimits) -> Self {
        let permits = (limits.in_flight_bytes_max / PERMIT_BYTES).clamp(1, u32::MAX as usize);
        Self {
            budget: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            body: Duration::from_secs(limits.body_secs),
            rate_min_bytes: limits.body_rate_min_bytes,
        }
    }

    /// Reads a body of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`BodyError`], which is an HTTP answer too.
    pub async fn read(&self, body: Body, limit_bytes: usize) -> Result<HeldBody, BodyError> {
        let hint = axum::body::HttpBody::size_hint(&body);
        if hint.lower() > limit_bytes as u64 {
            return Err(BodyError::TooLarge { limit_bytes });
        }
        let started = Instant::now();
        let mut reading = Reading { gate: self, limit_bytes, first: None, rest: Vec::new(), len: 0, budget: None };
        let mut body = body;
        loop {
            let frame = tokio::time::timeout_at(self.deadline(started, reading.len), body.frame()).await;
            match frame.map_err(|_| BodyError::Slow)? {
                None => return Ok(reading.finish()),
                Some(Err(_)) => return Err(BodyError::Broken),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        reading.push(data, hint.exact())?;
                    }
                }
            }
        }
    }

    /// When the next byte must be there: the end of the time for the body, or of that which its bytes have earned.
    fn deadline(&self, started: Instant, len: usize) -> Instant {
        let earned = (len as u64).checked_div(self.rate_min_bytes).map(|s| Duration::from_secs(s.saturating_add(5)));
        started + earned.unwrap_or(self.body).min(self.body)
    }
}

struct Reading<'a> {
    gate: &'a Gate,
    limit_bytes: usize,
    /// The only piece, as long as there is one: most bodies are one frame and need no copy.
    first: Option<Bytes>,
    rest: Vec<u8>,
    len: usize,
    budget: Option<OwnedSemaphorePermit>,
}

impl Reading<'_> {
    fn push(&mut self, data: Bytes, whole: Option<u64>) -> Result<(), BodyError> {
        self.len += data.len();
        if self.len > self.limit_bytes {
            return Err(BodyError::TooLarge { limit_bytes: self.limit_bytes });
        }
        let held = self.budget.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = self.len.div_ceil(PERMIT_BYTES).saturating_sub(held);
        if more > 0 {
            let more = u32::try_from(more).map_err(|_| BodyError::TooLarge { limit_bytes: self.limit_bytes })?;
            // Never waits: two half-read bodies would wait for each other.
            let busy = BodyError::Busy { retry_after: Duration::from_secs(1) };
            let permit = self.gate.budget.clone().try_acquire_many_owned(more).map_err(|_| busy)?;
            match &mut self.budget {
                Some(budget) => budget.merge(permit),
                None => self.budget = Some(permit),
            }
        }
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(data),
            first => {
                if let Some(first) = first {
                    // The length that the client says, as far as it has paid for it already.
                    let whole = whole.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                    self.rest.reserve(whole.min(self.limit_bytes).min(1 << 20).max(self.len));
                    self.rest.extend_from_slice(&first);
                }
                self.rest.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    fn finish(self) -> HeldBody {
        HeldBody { bytes: self.first.unwrap_or_else(|| self.rest.into()), _budget: self.budget }
    }
}

/// Address of the client, where the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0)))
    }
}

/// Connections by address, so that one client cannot take them all.
#[derive(Debug, Default)]
struct Peers(parking_lot::Mutex<HashMap<IpAddr, usize>>);

struct PeerSlot(Arc<Peers>, IpAddr);

impl Peers {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<PeerSlot> {
        let mut peers = self.0.lock();
        let n = peers.entry(address).or_insert(0);
        if *n >= most {
            return None;
        }
        *n += 1;
        drop(peers);
        Some(PeerSlot(self.clone(), address))
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut peers = self.0.0.lock();
        if let Some(n) = peers.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                peers.remove(&self.1);
            }
        }
    }
}

/// Serves HTTP/1 and HTTP/2 (without TLS) until `shutdown`; then connections have five seconds to end. Requests carry
/// `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let peers = Arc::new(Peers::default());
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors: goes by when connections end. Not a reason to end, nor to spin.
                tracing::warn!(error = %e, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else { continue };
        let Some(slot) = peers.enter(peer.ip(), limits.connections_per_peer_max) else { continue };
        let _ = stream.set_nodelay(true);
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        tracker.spawn(async move {
            let _held = (permit, slot);
            connection(IdleIo::new(stream, Duration::from_secs(limits.idle_secs)), peer, router, &limits, shutdown)
                .await;
        });
    }
    tracker.close();
    // What is left then is dropped with the runtime, or ends by its own limits.
    let _ = tokio::time::timeout(GRACE, tracker.wait()).await;
}

async fn connection<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: IO,
    peer: SocketAddr,
    router: Router,
    limits: &HttpLimits,
    shutdown: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_secs))
        .max_headers(64)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, serving).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, %peer, "a connection broke");
    }
}

/// Ends a connection on which nothing moves. `auto::Builder` waits for the first bytes without a limit of its own.
struct IdleIo<T> {
    io: T,
    idle: Duration,
    deadline: Instant,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl<T> IdleIo<T> {
    fn new(io: T, idle: Duration) -> Self {
        let deadline = Instant::now() + idle;
        Self { io, idle, deadline, sleep: Box::pin(tokio::time::sleep_until(deadline)) }
    }

    fn moved(&mut self) {
        self.deadline = Instant::now() + self.idle;
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Error> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(std::io::ErrorKind::TimedOut.into());
            }
            let deadline = self.deadline;
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn watch<R>(&mut self, cx: &mut Context<'_>, polled: Poll<std::io::Result<R>>) -> Poll<std::io::Result<R>> {
        match polled {
            Poll::Ready(done) => {
                self.moved();
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_idle(cx).map(Err),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for IdleIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.watch(cx, polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for IdleIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
