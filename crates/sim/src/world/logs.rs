//! What the parts write: chatter at rest, and the lines of those that are in trouble. A line follows from a state,
//! never from the name of a fault.

use super::flow::pick;
use super::{PENDING_MAX, World};
use crate::chance::{Stream, unit};
use crate::telemetry::{LogLine, SpanSample};
use std::fmt::Write;

const INFO: u32 = 9;
const WARN: u32 = 13;
const ERROR: u32 = 17;
const FATAL: u32 = 21;

/// Lines a second of one kind from one service at most: what is logged at full rate is sampled.
const LINES_MAX: f64 = 3.0;

impl World {
    pub(super) fn talk(&mut self) {
        for i in 0..self.services.len() {
            self.chatter(i);
            self.trouble(i);
            self.calls_seen(i);
        }
        self.others();
    }

    /// Writes a line.
    fn say(&mut self, entity: usize, severity: u32, text: std::fmt::Arguments<'_>) {
        if self.pending.logs.len() >= PENDING_MAX {
            return;
        }
        let start = self.pending.text.len();
        // Writing to a String cannot fail.
        let _ = self.pending.text.write_fmt(text);
        let (start, end) = (start as u32, self.pending.text.len() as u32);
        self.pending.logs.push(LogLine { at: self.now(), entity_index: entity as u32, severity, start, end });
    }

    /// How many lines this step brings of something that happens `rate` times a second.
    fn times(&self, entity: usize, kind: u64, rate: f64) -> u64 {
        let want = rate.min(LINES_MAX) * self.spec.dt_secs;
        let chance = unit(self.seed, Stream::Log(entity as u32), self.ticks.wrapping_mul(64).wrapping_add(kind));
        want.floor() as u64 + u64::from(chance < want.fract())
    }

    fn chatter(&mut self, i: usize) {
        if self.times(i, 1, 0.35) == 0 {
            return;
        }
        let n = pick(self.seed, i as u32, self.ticks);
        let (a, b) = (n >> 8 & 0xffff, n >> 24 & 0xffff);
        match n % 8 {
            0 | 1 => self.say(
                i,
                INFO,
                format_args!("request completed method=GET path=/v1/items/{a} status=200 duration={}ms", b % 90),
            ),
            2 => self.say(
                i,
                INFO,
                format_args!("request completed method=POST path=/v1/items status=201 duration={}ms", b % 120),
            ),
            3 => self.say(i, INFO, format_args!("health check ok in {}ms", b % 5)),
            4 => self.say(i, INFO, format_args!("connection from 10.1.{}.{} accepted", a % 8, b % 250)),
            5 => self.say(i, INFO, format_args!("config checked, nothing changed, revision {}", a % 50)),
            6 => self.say(i, INFO, format_args!("token of session {a:04x}{b:04x} renewed")),
            _ => self.say(i, WARN, format_args!("slow request path=/v1/items/{a} duration={}ms", 400 + b % 200)),
        }
    }

    fn trouble(&mut self, i: usize) {
        let m = self.services[i].measured;
        let fx = self.effects[i];
        let n = pick(self.seed, i as u32, self.ticks ^ 0x5555);
        let (a, b) = (n & 0xffff, n >> 16 & 0xffff);
        if m.no_connection > 0.01 {
            let (used, max) = (m.connections, self.services[i].pool_max);
            for _ in 0..self.times(i, 2, m.rate * m.no_connection) {
                self.say(
                    i,
                    ERROR,
                    format_args!(
                        "connection pool exhausted: {used:.0} of {max:.0} in use, waited 3000ms for a connection"
                    ),
                );
            }
        }
        if fx.handshakes > 0.01 {
            for _ in 0..self.times(i, 3, m.rate * fx.handshakes * 0.1) {
                self.say(
                    i,
                    ERROR,
                    format_args!(
                        "tls handshake with 10.1.{}.{} failed: x509: certificate has expired or is not yet valid",
                        a % 8,
                        b % 250
                    ),
                );
            }
        }
        if m.dns_errors > 0.5 {
            let name = self.dependency_name(i);
            for _ in 0..self.times(i, 4, m.dns_errors * 0.1) {
                self.say(
                    i,
                    ERROR,
                    format_args!("dial tcp: lookup {name} on 10.96.0.10:53: temporary failure in name resolution"),
                );
            }
        }
        let bad = fx.version.filter(|(v, share)| *share > 0.02 && self.services[i].version == *v);
        if bad.is_some() {
            let version = self.services[i].versions[usize::from(self.services[i].version)].clone();
            for _ in 0..self.times(i, 5, m.rate * m.errors * 0.05) {
                self.say(
                    i,
                    ERROR,
                    format_args!(
                        "unhandled error in handler: NullPointerException: field `profile` is null (version {version})"
                    ),
                );
            }
        }
        if fx.all_errors > 0.02 {
            let flag = self.spec.services[i].flags.first().map(|f| f.0.clone()).unwrap_or_default();
            for _ in 0..self.times(i, 6, m.rate * fx.all_errors * 0.05) {
                self.say(
                    i,
                    ERROR,
                    format_args!("request failed in branch of flag {flag}: index out of range [{}]", a % 9),
                );
            }
        }
        if m.misdirected > 0.5 {
            for _ in 0..self.times(i, 7, m.misdirected * 0.05) {
                self.say(
                    i,
                    WARN,
                    format_args!("421 misdirected request: no handler for host of route legacy, path /v1/items/{a}"),
                );
            }
        }
        if m.calls_failed > 0.02 {
            let name = self.dependency_name(i);
            for _ in 0..self.times(i, 8, m.rate * m.calls_failed * 0.05) {
                self.say(
                    i,
                    ERROR,
                    format_args!("call to {name} failed: deadline exceeded after {} attempts", 1 + b % 3),
                );
            }
        }
        if m.no_worker > 0.02 || m.queue > 50.0 {
            for _ in 0..self.times(i, 9, 0.5) {
                self.say(i, WARN, format_args!("no free worker: {:.0} requests wait", m.queue));
            }
        }
        if self.services[i].replicas.iter().any(|r| r.thrash > 0.3) {
            for _ in 0..self.times(i, 10, 0.6) {
                self.say(
                    i,
                    WARN,
                    format_args!(
                        "full collection took {}ms, {:.0} % of the heap in use after it",
                        800 + a % 900,
                        m.memory
                    ),
                );
            }
        }
        if m.lag > 5_000.0 && self.spec.services[i].consumer.is_some() {
            for _ in 0..self.times(i, 11, 0.3) {
                self.say(i, WARN, format_args!("consumer is {:.0} messages behind on partition {}", m.lag, a % 12));
            }
        }
        if fx
            .crash
            .is_some_and(|v| self.services[i].replicas.iter().any(|r| r.version == v && r.ready_at > self.now_secs()))
        {
            for _ in 0..self.times(i, 12, 0.25) {
                self.say(i, FATAL, format_args!("start failed: required setting PAYMENT_URL is not set; exit 1"));
            }
        }
        if fx.errors > 0.02
            && fx.only.is_none()
            && fx.slow <= 1.0
            && self.services[i].replicas.iter().any(|r| r.born < fx.before)
        {
            for _ in 0..self.times(i, 13, m.rate * fx.errors * 0.05) {
                self.say(
                    i,
                    ERROR,
                    format_args!("request failed: state machine in illegal state, order {a:04x}{b:04x}"),
                );
            }
        }
        if fx.only.is_some()
            && fx.errors > 0.02
            && self.services[i].replicas.first().is_some_and(|r| r.born < fx.before)
        {
            for _ in 0..self.times(i, 14, 0.8) {
                self.say(i, ERROR, format_args!("replica 0: request failed: local volume is gone"));
            }
        }
        // What fails at rest is logged like anything else.
        for _ in 0..self.times(i, 15, 0.02) {
            self.say(i, ERROR, format_args!("request failed status=500 path=/v1/items/{a} id={b:04x}"));
        }
    }

    fn dependency_name(&self, i: usize) -> String {
        let spec = &self.spec.services[i];
        let worst = spec.calls.iter().max_by(|x, y| {
            let of = |c: &crate::CallSpec| {
                self.services[c.to].measured.errors
                    + self.services[c.to].measured.p99_ms / self.spec.services[c.to].p99_ms.max(1.0)
            };
            of(x).total_cmp(&of(y))
        });
        match (worst, spec.database) {
            (Some(c), _) => self.spec.services[c.to].name.clone(),
            (None, Some(d)) => self.spec.databases[d].name.clone(),
            (None, None) => "upstream".to_owned(),
        }
    }

    /// A pod was killed for lack of memory.
    pub(super) fn killed(&mut self, i: usize) {
        if self.talking {
            let limit = self.services[i].memory_limit_mb;
            self.say(i, ERROR, format_args!("container app was OOMKilled: memory limit of {limit:.0}Mi exceeded"));
        }
    }

    /// One span in a while for each dependency, the more often the more calls there are.
    fn calls_seen(&mut self, i: usize) {
        for k in 0..self.spec.services[i].calls.len() {
            let call = &self.spec.services[i].calls[k];
            let (to, share) = (call.to, call.share);
            let n = (i * 64 + k) as u32;
            let chance = unit(self.seed, Stream::Span(n), self.ticks);
            if chance < 0.25 * self.spec.dt_secs.min(4.0) && self.pending.spans.len() < PENDING_MAX && share > 0.0 {
                let m = self.services[to].measured;
                // Exponential with that 99th percentile.
                let u = unit(self.seed, Stream::Span(n), self.ticks ^ (1 << 60));
                let duration_ms = (-m.p99_ms / 4.605 * (1.0 - u).max(1e-9).ln()).min(call.timeout_ms);
                let error = unit(self.seed, Stream::Span(n), self.ticks ^ (1 << 61)) < m.errors;
                self.pending.spans.push(SpanSample {
                    at: self.now(),
                    from: i as u32,
                    to: to as u32,
                    duration_ms,
                    error,
                });
            }
        }
    }

    /// Databases, nodes and the resolver.
    fn others(&mut self) {
        let ns = self.services.len();
        for d in 0..self.databases.len() {
            let (full, locks, up) = {
                let db = &self.databases[d];
                (db.disk_used_gb / db.disk_gb.max(1e-9), db.locks, db.up)
            };
            let e = ns + d;
            if self.times(e, 1, 0.1) > 0 {
                self.say(
                    e,
                    INFO,
                    format_args!(
                        "checkpoint complete: wrote {} buffers",
                        200 + pick(self.seed, e as u32, self.ticks) % 900
                    ),
                );
            }
            if full >= 0.985 && self.times(e, 2, 1.0) > 0 {
                self.say(e, ERROR, format_args!("could not extend file \"base/16384/24576\": No space left on device"));
            }
            if locks > 2.0 && self.times(e, 3, 0.8) > 0 {
                self.say(
                    e,
                    ERROR,
                    format_args!("canceling statement due to lock timeout while updating tuple in relation \"orders\""),
                );
            }
            if !up && self.times(e, 4, 1.0) > 0 {
                self.say(e, FATAL, format_args!("the database system is shutting down"));
            }
        }
        let first_node = ns + self.databases.len() + self.spec.topics.len();
        for n in 0..self.nodes.len() {
            if !self.nodes[n].ready && self.times(first_node + n, 1, 0.2) > 0 {
                self.say(
                    first_node + n,
                    ERROR,
                    format_args!("node status is NotReady: kubelet stopped posting node status"),
                );
            }
        }
        let e = first_node + self.nodes.len();
        if self.resolver.failing > 0.02 && self.times(e, 1, 1.0) > 0 {
            self.say(e, ERROR, format_args!("plugin/errors: SERVFAIL: read udp 10.96.0.10:53: i/o timeout"));
        }
    }
}
