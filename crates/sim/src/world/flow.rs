//! One step of every part: load, queues, calls, pools, memory.

use super::World;
use super::state::{Effects, Replica, Service, queueing};
use crate::chance::{Stream, bits, unit};
use crate::spec::{CallSpec, EstateSpec};

/// ln 100: an exponential latency with this 99th percentile has its mean this many times lower.
const LN_100: f64 = 4.605_170_185_988_092;
/// Patience of a client that storms, in 99th percentiles of rest.
const STORM_TIMEOUT: f64 = 4.0;
/// Memory from which collections thrash, and below which they stop, percent of the limit.
const THRASH_FROM: f64 = 90.0;
const THRASH_UNTIL: f64 = 87.0;
/// Seconds of queueing after which a server drops what waits.
const DROP_SECS: f64 = 8.0;

impl World {
    pub(super) fn flow(&mut self) {
        let now = self.now_secs();
        let dt = self.spec.dt_secs;
        let load = self.load_factor(now);
        self.move_pods(now);
        for s in &mut self.services {
            (s.inflow, s.inflow_retries) = (0.0, 0.0);
        }
        for db in &mut self.databases {
            db.queries = 0.0;
        }
        for i in 0..self.order.len() {
            self.serve(self.order[i], now, dt, load);
        }
        self.answer_queries(now, dt);
        self.nodes_and_names(load);
    }

    /// The load from outside, 1 at its mean: a day's wave and a burst in every stretch.
    pub fn load_factor(&self, now_secs: f64) -> f64 {
        let load = &self.spec.load;
        let wall = self.spec.start.secs_f64() + now_secs;
        // Lowest at four in the morning.
        let day = load.day_share * ((wall / 86_400.0 - 10.0 / 24.0) * std::f64::consts::TAU).sin();
        let every = load.burst_every_secs.max(1.0);
        let slot = (now_secs / every).floor();
        let draw = |n: u64| unit(self.seed, Stream::Burst, (slot as i64 as u64).wrapping_mul(4).wrapping_add(n));
        let length = 20.0 + 40.0 * draw(0);
        let from = slot * every + draw(1) * (every - length).max(0.0);
        let at = ((now_secs - from) / length).clamp(0.0, 1.0);
        let burst = load.burst_share * draw(2) * (at * std::f64::consts::PI).sin().max(0.0);
        (load.factor * (1.0 + day + burst)).max(0.0)
    }

    /// Rolling replacements, pods that crash, memory that grows.
    fn move_pods(&mut self, now: f64) {
        let dt = self.spec.dt_secs;
        for i in 0..self.services.len() {
            self.roll(i, now);
            let fx = self.effects[i];
            let (spec, service) = (&self.spec.services[i], &mut self.services[i]);
            let scale = spec.memory_limit_mb / service.memory_limit_mb.max(1.0);
            let load = (service.measured.accepted / spec.rest_rps.max(1e-9)).min(3.0);
            let rest = spec.memory_percent * (0.96 + 0.04 * load);
            let mut killed = 0;
            for (n, r) in service.replicas.iter_mut().enumerate() {
                let ready = r.ready_at <= now;
                if fx.crash == Some(r.version) && ready {
                    // It starts, runs for a moment and dies; the pause between starts grows to a limit.
                    r.ready_at = now + 10.0;
                    r.born = now;
                    service.restarts += 1.0;
                }
                if r.leak < 0.0 && ready {
                    // A young pod has not filled its memory yet.
                    r.leak = (r.leak + 0.02 * spec.memory_percent * dt).min(0.0);
                }
                if fx.leaking && ready {
                    // Pods do not leak in step.
                    r.leak = (r.leak + fx.leak * (1.0 + 0.01 * (n % 5) as f64) * dt).min(fx.leak_max);
                } else if !fx.leaking && r.leak > 0.0 {
                    r.leak = (r.leak - (r.leak * 0.08 + 0.05) * dt).max(0.0);
                }
                let memory = (rest + r.leak) * scale;
                let step = if memory >= THRASH_FROM {
                    0.12
                } else if memory < THRASH_UNTIL {
                    -0.2
                } else {
                    0.0
                };
                r.thrash = (r.thrash + step * dt).clamp(0.0, 1.0);
                if memory >= 100.0 && ready {
                    *r = Replica::fresh(now, now + 12.0, r.version, r.node, -0.4 * spec.memory_percent);
                    killed += 1;
                }
            }
            if killed > 0 {
                self.services[i].restarts += f64::from(killed);
                self.killed(i);
            }
        }
    }

    fn roll(&mut self, i: usize, now: f64) {
        let Some(mut roll) = self.services[i].roll else { return };
        let starting = self.services[i].replicas.iter().any(|r| r.ready_at > now && r.born >= roll.before);
        if starting && !roll.surge || now < self.wait_for[i] {
            return;
        }
        let version = roll.version;
        for _ in 0..roll.batch.min(roll.left) {
            let service = &self.services[i];
            let old = service.replicas.iter().position(|r| r.born < roll.before || r.version != version);
            let Some(at) = old.filter(|_| roll.left > 0) else {
                roll.left = 0;
                break;
            };
            let takes = self.start_secs(i, roll.takes);
            let node = self.node_for(self.services[i].replicas[at].node);
            // With a surge the pod's place serves all the while: the old one until the new one is ready.
            let ready_at = if roll.surge { now } else { now + takes };
            self.services[i].replicas[at] = Replica::fresh(now, ready_at, version, node, self.cold(i));
            roll.left = roll.left.saturating_sub(1);
            if roll.surge {
                // The next one follows when this one would have been ready.
                self.wait_for[i] = now + takes;
            }
        }
        self.services[i].roll = (roll.left > 0).then_some(roll);
    }

    /// Seconds until a new pod is ready, 25 % around `about`.
    pub(crate) fn start_secs(&mut self, i: usize, about: f64) -> f64 {
        self.started += 1;
        about * (0.75 + 0.5 * unit(self.seed, Stream::Start(i as u32), self.started))
    }

    /// How much less memory a pod of this service has in use when it starts, in points.
    pub(crate) fn cold(&self, i: usize) -> f64 {
        -0.15 * self.spec.services[i].memory_percent
    }

    /// Where a pod goes: where it was, or the next node that takes pods.
    pub(crate) fn node_for(&self, was: u16) -> u16 {
        let n = self.nodes.len();
        (0..n).map(|k| (usize::from(was) + k) % n.max(1)).find(|k| !self.nodes[*k].cordoned).map_or(was, |k| k as u16)
    }

    fn serve(&mut self, i: usize, now: f64, dt: f64, load: f64) {
        let fx = self.effects[i];
        let estate = std::sync::Arc::clone(&self.spec);
        let spec = &estate.services[i];
        let names = self.resolver.failing;
        let mut calls = Calls::default();
        for call in &spec.calls {
            calls.add(call, &self.services, &estate, self.effects[call.to].attempts, names);
        }

        // What arrives, what a limit turns away (retries first, they are the caller's to lose), what goes astray.
        let mut offered = spec.external_rps * load * fx.surge + self.services[i].inflow;
        if let Some(consumer) = &spec.consumer {
            // Messages bring work that nobody calls for.
            let own = (spec.rest_rps - spec.external_rps - self.called_at_rest[i]).max(0.0);
            offered += own * load;
            self.consume(i, consumer.topic, now, dt, load);
        }
        let service = &self.services[i];
        let accepted = offered.min(service.limit_rps);
        let throttled = offered - accepted;
        let total: f64 = service.weights.iter().sum();
        let astray = if total > 0.0 { 1.0 - service.weights[0] / total } else { 0.0 };
        let usual: f64 =
            1.0 - spec.routes.first().map_or(1.0, |r| r.1) / spec.routes.iter().map(|r| r.1).sum::<f64>().max(1e-9);
        let misdirected =
            accepted * (astray - usual).clamp(0.0, 1.0) * if fx.misdirect > 0.0 { fx.misdirect } else { 1.0 };
        let rate = accepted - misdirected;

        // Pods that serve, and how fast.
        let pods = Pods::of(self, i, now, &fx);
        let service = &mut self.services[i];
        let busy = (100.0 - spec.cpu_idle_percent).max(1.0);
        let capacity = (pods.capacity * service.replica_rps / fx.cost).max(0.0);
        let work = fx.work / busy * service.rest_replicas / pods.capacity.max(0.05);
        let utilisation = if capacity > 0.0 { rate / capacity + work } else { 0.0 };
        // Other work takes its part of the processors.
        let for_requests = capacity * (1.0 - work).max(0.05);

        // The queue: what cannot be taken waits, what waits too long or finds no place fails.
        let arriving = rate * dt;
        let waiting = service.backlog + arriving;
        let taken = waiting.min(for_requests * dt);
        let room = (for_requests * DROP_SECS).min(f64::from(spec.queue_max) * pods.ready.max(0.0));
        let backlog = (waiting - taken).min(room);
        let dropped = waiting - taken - backlog;
        let wait_ms = if for_requests > 0.0 { 1_000.0 * backlog / for_requests } else { 0.0 };
        service.backlog = backlog;

        // The pool of connections.
        let (mut no_connection, mut pool_wait, mut connections) = (0.0, 0.0, 0.0);
        let db_ms = spec.database.and_then(|d| Some((self.databases.get(d)?, estate.databases.get(d)?)));
        let db_excess = db_ms.map_or(0.0, |(db, s)| (db.p99_ms - s.p99_ms).max(0.0));
        if let Some(pool) = &spec.pool {
            let hold = pool.rest / spec.rest_rps.max(1e-9) + db_excess / LN_100 / 1_000.0;
            let idle = pool.idle_per_replica * (service.replicas.len() as f64 - service.rest_replicas).max(0.0);
            let max = service.pool_max.min(pool.max);
            let busy = (rate / spec.rest_rps.max(1e-9) - 0.8).max(0.0) / 0.2;
            if fx.leaking && fx.stuck > 0.0 {
                service.stuck = (service.stuck + fx.stuck * busy.min(3.0) * dt).min(max);
            } else {
                service.stuck = (service.stuck * (1.0 - 0.12 * dt).max(0.0) - 0.05 * dt).max(0.0);
            }
            let need = rate * hold;
            let free = (max - service.stuck - idle).max(0.0);
            connections = (need.min(free) + service.stuck + idle).min(max);
            if need > free {
                let short = 1.0 - free / need;
                no_connection = 0.6 * short;
                pool_wait = pool.wait_ms * short;
            } else if free > 0.0 {
                // Nearly empty pools make requests wait too.
                pool_wait = pool.wait_ms * 0.08 * queueing(need / free, free.max(1.0));
            }
        }

        // Latency.
        let queue = queueing(utilisation, pods.ready.max(1.0) * f64::from(spec.cores));
        let own = spec.p99_ms * pods.slow() * fx.all_slow * (1.0 + queue) / (1.0 + service.rest_queueing);
        let per_query = service.queries_each(spec).min(1.0);
        let p99 = own + wait_ms + pool_wait + db_excess * per_query + calls.excess_ms;
        let p99 = p99.min(60_000.0);

        // Workers: Little's law.
        let mean_secs = (p99 - calls.excess_ms) / LN_100 / 1_000.0 + calls.mean_secs;
        let inflight = rate * mean_secs;
        let workers = f64::from(spec.workers) * pods.ready.max(1.0);
        let no_worker = if inflight > workers { 1.0 - workers / inflight } else { 0.0 };

        // Errors: each cause by itself, as if independent.
        let db_errors = db_ms.map_or(0.0, |(db, _)| db.errors) * per_query.max(0.15);
        let reconnects = if spec.calls.is_empty() && spec.database.is_some() { 0.15 } else { 0.0 };
        let lost_names = (reconnects * names).min(1.0);
        let good = (1.0 - spec.error_percent / 100.0)
            * (1.0 - pods.errors())
            * (1.0 - fx.all_errors)
            * (1.0 - fx.handshakes)
            * (1.0 - no_connection)
            * (1.0 - no_worker)
            * (1.0 - db_errors)
            * (1.0 - lost_names)
            * (1.0 - calls.failed);
        let served = taken * good.clamp(0.0, 1.0);
        let failed = (taken - served) + dropped + misdirected * dt;
        let arrived = offered * dt;

        // The cache warms with what it misses, and loses what expires.
        if let Some(cache) = &spec.cache {
            let target = cache.hit_ratio * (1.0 - fx.expire);
            let pace = if service.hits > target { 0.35 } else { 1.0 / cache.warm_secs.max(1.0) };
            service.hits += (target - service.hits) * (pace * dt).min(1.0);
        }
        if let Some(d) = spec.database.and_then(|d| self.databases.get_mut(d)) {
            d.queries += rate * service.queries_each(spec);
        }

        let t = &mut service.totals;
        t.arrived += arrived;
        t.served += served;
        t.failed += failed;
        t.throttled += throttled * dt;
        let m = &mut service.measured;
        let before = m.p99_ms;
        // A percentile over a window follows within a step or two.
        m.p99_ms = before + (p99 - before) * 0.85;
        m.rate = rate;
        m.accepted = accepted;
        m.retries = service.inflow_retries;
        m.wait_ms = wait_ms;
        let done = taken + dropped + misdirected * dt;
        m.errors = if done > 0.0 { (failed / done).clamp(0.0, 1.0) } else { 0.0 };
        m.cpu =
            (spec.cpu_idle_percent + (100.0 - spec.cpu_idle_percent) * (utilisation + 0.25 * pods.thrash)).min(100.0);
        let common = 1.0 - good / (1.0 - pods.errors()).max(1e-9);
        for (n, r) in service.replicas.iter_mut().enumerate() {
            r.errors = 1.0 - (1.0 - Pods::own(r, n, &fx).0) * (1.0 - common.clamp(0.0, 1.0));
        }
        if pods.ready <= 0.0 {
            m.cpu = 0.0;
            m.errors = if done > 0.0 { 1.0 } else { m.errors };
        }
        m.memory = pods.memory.min(100.0);
        m.connections = connections;
        m.queue = backlog + (inflight - workers).max(0.0);
        m.dns_errors = rate * (names * (calls.share + reconnects)).min(2.0);
        m.misdirected = misdirected;
        m.no_connection = no_connection;
        m.no_worker = no_worker;
        m.calls_failed = calls.failed;

        // Pods that take requests send them on.
        let own = spec.external_rps * load * (fx.surge - 1.0).max(0.0);
        let stays = if offered > 0.0 { own / offered * (1.0 - fx.surge_sent_on) } else { 0.0 };
        let sent = taken / dt * (1.0 - no_worker) * (1.0 - fx.handshakes) * (1.0 - stays);
        for call in &spec.calls {
            let attempts = attempts(call, &self.services, &estate, self.effects[call.to].attempts, names);
            let first = sent * call.share * (1.0 - names);
            let to = &mut self.services[call.to];
            to.inflow += first * attempts;
            to.inflow_retries += first * (attempts - 1.0);
        }
    }

    fn consume(&mut self, i: usize, topic: usize, now: f64, dt: f64, load: f64) {
        let (Some(spec), Some(t)) = (&self.spec.services[i].consumer, self.spec.topics.get(topic)) else { return };
        let service = &mut self.services[i];
        let rest = service.rest_replicas.min(f64::from(t.partitions)).max(1.0);
        let consumers = (service.ready(now) as f64).min(f64::from(t.partitions));
        let each = (spec.per_replica - self.effects[i].slow_messages / rest).max(0.0);
        let mut produced = t.rate * load * dt;
        // Producers are slowed down by a topic that is full.
        produced = produced.min((t.lag_max - service.behind).max(0.0) + consumers * each * dt);
        service.behind = (service.behind + produced - consumers * each * dt).max(0.0);
        service.measured.lag = (spec.rest_lag * load + service.behind).min(t.lag_max);
    }

    fn answer_queries(&mut self, now: f64, dt: f64) {
        for (db, spec) in self.databases.iter_mut().zip(&self.spec.databases) {
            if db.failover_at <= now {
                db.failover_at = f64::INFINITY;
                db.failed_over = now;
                db.primary += 1;
            }
            let moving = db.failover_at.is_finite();
            let rest = (spec.cpu_percent / 100.0).clamp(0.01, 0.95);
            let capacity = db.rest_queries.max(1e-9) / rest;
            let queries = if db.up { db.queries } else { 0.0 };
            let waiting = db.backlog + queries * dt;
            let taken = waiting.min(capacity * dt);
            // Sessions are limited: what waits longer than this was never let in.
            db.backlog = (waiting - taken).min(capacity * 1.5);
            let utilisation = queries / capacity;
            let slow = (1.0 + queueing(utilisation, 8.0)) / (1.0 + queueing(rest, 8.0));
            let p99 = spec.p99_ms * (slow + db.locks) + 1_000.0 * db.backlog / capacity;
            db.p99_ms += (p99 - db.p99_ms) * 0.85;
            db.cpu = 100.0 * (utilisation + 0.1 * db.backlog / capacity).min(1.0);
            let full = 100.0 * db.disk_used_gb / db.disk_gb.max(1e-9);
            if full >= 98.5 {
                db.errors = db.errors.max(0.5 * ((full - 98.5) / 1.0).clamp(0.0, 1.0));
            }
            if db.locks > 1.0 {
                db.errors = db.errors.max((0.004 * db.locks).min(0.3));
            }
            if moving {
                db.errors = db.errors.max(0.6);
            }
        }
    }

    fn nodes_and_names(&mut self, load: f64) {
        for node in &mut self.nodes {
            node.cpu = 0.0;
        }
        for service in &self.services {
            let share = service.measured.cpu / 100.0;
            for r in &service.replicas {
                if let Some(node) = self.nodes.get_mut(usize::from(r.node)) {
                    node.cpu += share;
                }
            }
        }
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let rest = self.node_rest[n].max(1e-9);
            let usual = self.spec.nodes[n].cpu_percent;
            // The machine has work of its own: half of what it does at rest.
            node.cpu =
                if node.ready { (usual * (0.5 + 0.5 * node.cpu / rest) + 60.0 * node.steal).min(100.0) } else { 0.0 };
        }
        if let Some(spec) = &self.spec.resolver {
            // Who gets no answer asks again.
            self.resolver.rate = spec.rate * load * (1.0 + self.resolver.failing);
            if self.resolver.down_until > self.now_secs() {
                self.resolver.failing = self.resolver.failing.max(0.25);
            }
        }
    }
}

/// What the pods of a service are together.
#[derive(Debug, Clone, Copy, Default)]
struct Pods {
    ready: f64,
    /// Ready pods, each counted with the share of its CPU that it gets.
    capacity: f64,
    /// Pods that requests are sent to.
    listed: f64,
    slow_sum: f64,
    slow_max: f64,
    errors_sum: f64,
    memory: f64,
    thrash: f64,
}

impl Pods {
    fn of(world: &World, i: usize, now: f64, fx: &Effects) -> Self {
        let (service, spec): (&Service, _) = (&world.services[i], &world.spec.services[i]);
        let mut p = Self::default();
        let scale = spec.memory_limit_mb / service.memory_limit_mb.max(1.0);
        let load = (service.measured.accepted / spec.rest_rps.max(1e-9)).min(3.0);
        let rest = spec.memory_percent * (0.96 + 0.04 * load);
        let mut memory_of = 0.0;
        for (n, r) in service.replicas.iter().enumerate() {
            let node = world.nodes.get(usize::from(r.node));
            let alive = node.is_none_or(|n| n.ready);
            if r.ready_at > now {
                continue;
            }
            if !alive {
                if world.node_gets_requests(r.node, now) {
                    p.listed += 1.0;
                    p.errors_sum += 1.0;
                }
                continue;
            }
            let (errors, slow) = Self::own(r, n, fx);
            let steal = node.map_or(0.0, |n| n.steal).clamp(0.0, 0.95);
            let slow = slow * (1.0 + 1.8 * r.thrash) / (1.0 - steal).powi(2);
            p.listed += 1.0;
            p.ready += 1.0;
            p.capacity += 1.0 - steal;
            p.slow_sum += slow;
            p.slow_max = p.slow_max.max(slow);
            p.errors_sum += errors;
            p.thrash += r.thrash;
            p.memory += (rest + r.leak) * scale;
            memory_of += 1.0;
        }
        if memory_of > 0.0 {
            p.memory /= memory_of;
            p.thrash /= memory_of;
        }
        p
    }

    /// What faults do to one pod: its share of errors and how much slower it is.
    fn own(r: &Replica, n: usize, fx: &Effects) -> (f64, f64) {
        let (mut errors, mut slow) = (0.0, 1.0);
        if r.born < fx.before && fx.only.is_none_or(|only| usize::from(only) == n) {
            errors = fx.errors;
            slow = fx.slow;
        }
        if let Some((version, share)) = fx.version
            && r.version == version
        {
            errors = 1.0 - (1.0 - errors) * (1.0 - share);
        }
        (errors, slow)
    }

    /// 99th percentile of the mixture of pods, in units of one at rest. One slow pod of many still makes the tail:
    /// of its exponential the 1 − 1/(100 w) quantile counts, with `w` the share of requests it gets.
    fn slow(&self) -> f64 {
        if self.ready <= 0.0 {
            return 1.0;
        }
        let tail = ((100.0 / self.ready).ln() / LN_100).clamp(0.0, 1.0);
        (self.slow_sum / self.ready).max(tail * self.slow_max)
    }

    fn errors(&self) -> f64 {
        if self.listed > 0.0 { (self.errors_sum / self.listed).clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// What the calls of a service add to its own work.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    /// Share of requests that fail by them.
    failed: f64,
    /// Added to the 99th percentile, ms.
    excess_ms: f64,
    /// Added to the mean, seconds.
    mean_secs: f64,
    /// Calls for each request.
    share: f64,
}

/// Share of calls that fail as their caller sees it: errors beyond those of rest, and answers later than the timeout.
fn call_fails(call: &CallSpec, services: &[Service], spec: &EstateSpec, storm: f64, names: f64) -> f64 {
    let m = &services[call.to].measured;
    let rest = spec.services[call.to].error_percent / 100.0;
    let errors = (m.errors - rest).max(0.0);
    let left = timeout_ms(call, spec, storm) - m.wait_ms;
    let tail = (m.p99_ms - m.wait_ms).max(1.0);
    let late = if left <= 0.0 {
        1.0
    } else if tail > 0.5 * left {
        (-LN_100 * left / tail).exp()
    } else {
        0.0
    };
    1.0 - (1.0 - errors) * (1.0 - late) * (1.0 - names)
}

/// When the caller gives up. A client that storms is one that was set to give up early and to try often.
fn timeout_ms(call: &CallSpec, spec: &EstateSpec, storm: f64) -> f64 {
    if storm > 1.0 { call.timeout_ms.min(STORM_TIMEOUT * spec.services[call.to].p99_ms) } else { call.timeout_ms }
}

/// Attempts for each call: with a budget a few, without one as many as the client is set to.
fn attempts(call: &CallSpec, services: &[Service], spec: &EstateSpec, storm: f64, names: f64) -> f64 {
    let fails = call_fails(call, services, spec, storm, names);
    if storm > 1.0 {
        // 1 + p + p² + … of so many attempts.
        return if fails > 0.999 { storm } else { ((1.0 - fails.powf(storm)) / (1.0 - fails)).max(1.0) };
    }
    if call.retries == 0 { 1.0 } else { 1.0 + fails.min(call.retry_budget) }
}

impl Calls {
    fn add(&mut self, call: &CallSpec, services: &[Service], spec: &EstateSpec, storm: f64, names: f64) {
        let fails = call_fails(call, services, spec, storm, names);
        // A retry saves the calls that fail by chance; what fails for all fails again.
        let after =
            if call.retries > 0 { fails * (fails + (1.0 - fails) * (1.0 - call.retry_budget)).min(1.0) } else { fails };
        self.failed =
            1.0 - (1.0 - self.failed) * (1.0 - (after * call.share.min(1.0) * (1.0 - call.fallback)).clamp(0.0, 1.0));
        let rest = spec.services[call.to].p99_ms;
        let timeout = timeout_ms(call, spec, storm) * storm.clamp(1.0, 4.0);
        let excess = (services[call.to].measured.p99_ms.min(timeout) - rest).max(0.0);
        self.excess_ms += call.share.min(1.0) * excess;
        self.mean_secs += call.share * excess.min(timeout * LN_100) / LN_100 / 1_000.0;
        self.share += call.share;
    }
}

/// A number that only this call needs: which of several things is logged.
pub(super) fn pick(seed: u64, entity: u32, tick: u64) -> u64 {
    bits(seed, Stream::Log(entity), tick)
}
