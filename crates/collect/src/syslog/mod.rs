//! A syslog receiver: RFC 5424 and RFC 3164 on UDP and TCP.
//!
//! Lives here: the sockets and their limits. Beside it: `message` (one message), `frames` (messages in a stream).
//!
//! One queue stands between the sockets and the sink. While the sink is busy it fills: then TCP senders are no longer
//! read, and what UDP brings is dropped and counted, as UDP has no way to tell its sender.

mod frames;
mod message;

use crate::deliver::{Parcel, count, deliver_or_count, failed, fatal};
use crate::lines::{self, LineContext};
use crate::supervise::{BoundAddresses, Surroundings};
use crate::{Attributes, LogEntry, Source, SourceContext, SourceError};
use async_trait::async_trait;
use frames::{Frame, Frames};
use message::Form;
use nightshift_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

/// Entries that wait for the sink.
const QUEUE: usize = 8_192;

/// Most entries handed in at once.
const BATCH: usize = 1_000;

/// How long an entry waits for others to go with.
const LINGER: Duration = Duration::from_millis(100);

/// A syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Address for datagrams; empty: none are taken. Port 0 takes any free one.
    pub udp_listen: String,
    /// Address for connections; empty: none are taken. Port 0 takes any free one.
    pub tcp_listen: String,
    /// Longest message, bytes; of a longer one the rest is cut, counted, and its size noted.
    #[schemars(range(min = 480, max = 1_048_576))]
    pub message_bytes_max: usize,
    /// Most connections at once; further ones are closed at once and counted.
    #[schemars(range(min = 1, max = 10_000))]
    pub connections_max: usize,
    /// A connection that sends nothing for this long is closed, seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_secs: u64,
    /// A message that has begun must end within this time, else its connection is closed, seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub message_secs: u64,
    /// Offset from UTC of times that name no zone, minutes east.
    #[schemars(range(min = -840, max = 840))]
    pub utc_offset_minutes: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp_listen: "127.0.0.1:5514".into(),
            tcp_listen: "127.0.0.1:5514".into(),
            message_bytes_max: 64 << 10,
            connections_max: 256,
            idle_secs: 3_600,
            message_secs: 30,
            utc_offset_minutes: 0,
        }
    }
}

impl Config {
    /// Checks the values; binds nothing.
    ///
    /// # Errors
    /// An address is none, or there is none at all.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<SyslogSource, SourceError> {
        let address = |key: &str, text: &str| match text {
            "" => Ok(None),
            text => text.parse::<SocketAddr>().map(Some).map_err(|_| {
                fatal(format!("receive syslog: {key} `{text}` is no address, write `IP:PORT` such as 127.0.0.1:5514"))
            }),
        };
        let (udp, tcp) = (address("udp_listen", &self.udp_listen)?, address("tcp_listen", &self.tcp_listen)?);
        if udp.is_none() && tcp.is_none() {
            return Err(fatal("receive syslog: set udp_listen or tcp_listen"));
        }
        let reader = Reader {
            source: name.to_owned(),
            host: around.host_name.clone(),
            utc_offset_secs: self.utc_offset_minutes * 60,
            bytes_max: self.message_bytes_max,
        };
        Ok(SyslogSource {
            name: name.to_owned(),
            config: self.clone(),
            udp,
            tcp,
            reader: Arc::new(reader),
            bound: around.bound.clone(),
        })
    }
}

/// Receives syslog.
#[derive(Debug)]
pub struct SyslogSource {
    name: String,
    config: Config,
    udp: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
    reader: Arc<Reader>,
    bound: BoundAddresses,
}

/// Messages into entries.
#[derive(Debug)]
struct Reader {
    source: String,
    host: String,
    utc_offset_secs: i32,
    bytes_max: usize,
}

impl Reader {
    /// One message from `peer` as an entry; `None` when it is blank. Tells whether it was no syslog.
    fn read(&self, bytes: &[u8], missing: u64, peer: IpAddr, now: Timestamp) -> Option<(LogEntry, bool)> {
        let mut text = lines::clean(bytes);
        if missing > 0 {
            text.push_str(&format!(" … [{missing} bytes cut]"));
        }
        let context =
            LineContext { now, utc_offset_secs: self.utc_offset_secs, host: "", body_bytes_max: self.bytes_max };
        let message = message::parse(&text, &context);
        let inner = lines::parse(message.body, &context);
        let mut body = if inner.body.is_empty() { text.trim().to_owned() } else { inner.body };
        if body.is_empty() {
            return None;
        }
        for (name, value) in &message.structured {
            body.push_str(&format!(" {name}={value:?}"));
        }
        lines::cut(&mut body, self.bytes_max);
        // A sender on this machine is this machine, whatever it calls itself.
        let named = !matches!(message.host, "" | "-" | "localhost");
        let host = match (named, peer.is_loopback()) {
            (true, _) => message.host.to_owned(),
            (false, true) => self.host.clone(),
            (false, false) => peer.to_string(),
        };
        let mut resource = Attributes::from([("host.name".to_owned(), host)]);
        resource.extend(inner.service.map(|s| ("service.name".to_owned(), s)));
        let entry = LogEntry {
            resource: Arc::new(resource),
            at: message.at.or(inner.at).unwrap_or(now),
            // A program's own level may be worse than the priority it is sent with, which is often a constant.
            severity: message.severity.max(inner.severity),
            body,
            trace_id: inner.trace_id,
            span_id: inner.span_id,
            stream: if message.app.is_empty() { "syslog".to_owned() } else { message.app.to_owned() },
        };
        Some((entry, message.form == Form::Plain))
    }
}

/// What the socket tasks share.
#[derive(Clone)]
struct Inlet {
    reader: Arc<Reader>,
    queue: mpsc::Sender<LogEntry>,
    context: SourceContext,
}

impl Inlet {
    fn count(&self, reason: &'static str) {
        count(&self.reader.source, reason, 1, &self.context);
    }

    fn read(&self, bytes: &[u8], missing: u64, peer: IpAddr) -> Option<LogEntry> {
        let (entry, garbage) = self.reader.read(bytes, missing, peer, self.context.clock.now())?;
        if garbage {
            self.count("not_syslog");
        }
        if missing > 0 {
            self.count("line_too_long");
        }
        Some(entry)
    }

    async fn datagrams(self, socket: UdpSocket) {
        let mut buffer = vec![0; (64 << 10) + 1];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = self.context.shutdown.cancelled() => return,
            };
            // An error belongs to an earlier peer (ICMP unreachable); the socket goes on.
            let Ok((n, peer)) = received else { continue };
            let kept = n.min(self.reader.bytes_max);
            // Several lines in one datagram are one message: RFC 5426.
            if let Some(entry) = self.read(&buffer[..kept], (n - kept) as u64, peer.ip())
                && self.queue.try_send(entry).is_err()
            {
                self.count("queue_full");
            }
        }
    }

    async fn connections(self, listener: TcpListener, config: Config) {
        let slots = Arc::new(Semaphore::new(config.connections_max));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.context.shutdown.cancelled() => break,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file handles, mostly: give others time to close some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.count("too_many_connections");
                continue;
            };
            let (inlet, config) = (self.clone(), config.clone());
            tasks.spawn(async move {
                inlet.connection(stream, peer.ip(), &config).await;
                drop(slot);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn connection(&self, stream: TcpStream, peer: IpAddr, config: &Config) {
        let mut frames = Frames::new(stream, config.message_bytes_max, Duration::from_secs(config.message_secs));
        let idle = Duration::from_secs(config.idle_secs);
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(idle, frames.next()) => next,
                () = self.context.shutdown.cancelled() => return,
            };
            let Ok(Ok(Some(Frame { bytes, missing }))) = next else { return };
            if let Some(entry) = self.read(&bytes, missing, peer)
                // Waits while the queue is full: the sender is no longer read, and waits too.
                && self.queue.send(entry).await.is_err()
            {
                return;
            }
        }
    }
}

#[async_trait]
impl Source for SyslogSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "syslog"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        // A child: the socket tasks end with this run, also when it fails.
        let shutdown = context.shutdown.child_token();
        let _ends = shutdown.clone().drop_guard();
        let (queue, mut entries) = mpsc::channel(QUEUE);
        let inner = SourceContext { shutdown, ..context.clone() };
        let inlet = Inlet { reader: Arc::clone(&self.reader), queue, context: inner };
        let mut doors = Vec::new();
        if let Some(address) = self.udp {
            let socket =
                UdpSocket::bind(address).await.map_err(|e| failed(format!("listen for syslog on UDP {address}"), e))?;
            let at = socket.local_addr().map_err(|e| failed("read the bound address", e))?;
            self.bound.set(&format!("{}.udp_listen", self.name), at);
            doors.push(format!("UDP {at}"));
            tokio::spawn(inlet.clone().datagrams(socket));
        }
        if let Some(address) = self.tcp {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|e| failed(format!("listen for syslog on TCP {address}"), e))?;
            let at = listener.local_addr().map_err(|e| failed("read the bound address", e))?;
            self.bound.set(&format!("{}.tcp_listen", self.name), at);
            doors.push(format!("TCP {at}"));
            tokio::spawn(inlet.clone().connections(listener, self.config.clone()));
        }
        // The tasks hold the other ends: the queue closes when they have ended.
        drop(inlet);
        let doors = doors.join(" and ");
        context.health.healthy(format!("listening on {doors}"));
        let mut taken = 0u64;
        let mut parcel = Parcel::default();
        while entries.recv_many(&mut parcel.logs, BATCH).await > 0 {
            if parcel.logs.len() < BATCH && !context.shutdown.is_cancelled() {
                tokio::time::sleep(LINGER).await;
                while parcel.logs.len() < BATCH
                    && let Ok(entry) = entries.try_recv()
                {
                    parcel.logs.push(entry);
                }
            }
            let Some(took) = deliver_or_count(&self.name, &mut parcel, context).await? else {
                // The sink is still busy and we must end: what waits in the queue cannot be kept either.
                count(&self.name, "shutdown", entries.len() as u64, context);
                return Ok(());
            };
            taken += took.accepted;
            context.health.healthy(format!("listening on {doors}, {taken} messages taken"));
        }
        Ok(())
    }
}

/// For the fuzzer: any bytes, as a datagram and as a stream, give bounded entries.
#[doc(hidden)]
pub fn fuzz_syslog(bytes: &[u8]) {
    let reader = Reader { source: "s".into(), host: "h".into(), utc_offset_secs: 0, bytes_max: 512 };
    let now = Timestamp::from_secs(1_767_225_600);
    let peer = IpAddr::from([127, 0, 0, 1]);
    let check = |bytes: &[u8]| {
        if let Some((entry, _)) = reader.read(bytes, 0, peer, now) {
            assert!(entry.body.len() <= 600 && entry.severity <= 24 && !entry.body.is_empty());
        }
    };
    check(bytes);
    let mut splitter = frames::Splitter::new(512);
    let mut buffer = bytes::BytesMut::from(bytes);
    let mut frames: Vec<Frame> = std::iter::from_fn(|| splitter.next(&mut buffer)).collect();
    frames.extend(splitter.finish(&mut buffer));
    for frame in frames {
        assert!(frame.bytes.len() <= 512, "a frame is bounded");
        check(&frame.bytes);
    }
}

#[cfg(test)]
mod tests;
