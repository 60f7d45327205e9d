//! From faults to what they do to each part in a step. A fault changes a cause; what follows is the model's.

use super::World;
use super::state::{Effects, Roll};
use crate::fault::{InjectedFault, SimFault};
use crate::spec::Part;
use nightshift_model::ChangeType;

/// Seconds after which a node that does not answer gets no more requests.
const NODE_GRACE_SECS: f64 = 40.0;

impl World {
    /// Sets [`Effects`] of every service for this step, and the state of databases, nodes and resolver.
    pub(super) fn feel_faults(&mut self) {
        let now = self.now_secs();
        if self.faults.is_empty() {
            return;
        }
        self.effects.iter_mut().for_each(|e| *e = Effects::default());
        for node in &mut self.nodes {
            (node.steal, node.ready) = (0.0, true);
        }
        for db in &mut self.databases {
            (db.locks, db.errors, db.up) = (0.0, 0.0, true);
        }
        self.resolver.failing = 0.0;
        let faults = std::mem::take(&mut self.faults);
        for (i, fault) in faults.iter().enumerate() {
            let (begun, ended) = (now >= fault.start_secs, now >= fault.end_secs());
            if begun && !std::mem::replace(&mut self.begun[i], true) {
                self.begin(fault);
            }
            if ended && !std::mem::replace(&mut self.ended[i], true) {
                self.finish(fault);
            }
            if begun && !ended {
                self.feel(fault, now);
            }
        }
        self.faults = faults;
    }

    fn feel(&mut self, fault: &InjectedFault, now: f64) {
        match fault.part.part() {
            Part::Service(i) if i < self.services.len() => self.feel_service(i, fault, now),
            Part::Database(i) if i < self.databases.len() => self.feel_database(i, fault, now),
            Part::Node(i) if i < self.nodes.len() => {
                let node = &mut self.nodes[i];
                match fault.kind {
                    SimFault::NoisyNeighbour => node.steal = node.steal.max(share(fault, now)),
                    SimFault::NodeNotReady => {
                        node.ready = false;
                        node.lost_at = fault.start_secs;
                    }
                    _ => {}
                }
            }
            Part::Resolver if self.resolver.restarted < fault.start_secs => {
                self.resolver.failing = self.resolver.failing.max(share(fault, now));
            }
            _ => {}
        }
    }

    fn feel_service(&mut self, i: usize, fault: &InjectedFault, now: f64) {
        let at = fault.intensity(now);
        let brought = self.version_of(i, fault);
        let (spec, service, fx) = (&self.spec.services[i], &self.services[i], &mut self.effects[i]);
        let m = fault.magnitude;
        let flipped = service.flags.first().zip(spec.flags.first()).is_some_and(|(now, (_, usual))| now != usual);
        let rest = spec.error_percent / 100.0;
        // What must be added to the errors of rest so that all together are this share.
        let beyond_rest = |share: f64| ((share - rest) / (1.0 - rest).max(1e-9)).clamp(0.0, 1.0);
        match fault.kind {
            SimFault::LatencySpike | SimFault::CascadingTimeout => {
                fx.slow = fx.slow.max(1.0 + (m / spec.p99_ms.max(1.0) - 1.0).max(0.0) * at);
                fx.before = fx.before.max(fault.start_secs);
                if fault.kind == SimFault::CascadingTimeout {
                    // Clients hang up before the answer comes.
                    fx.errors = fx.errors.max(0.35 * at);
                }
            }
            SimFault::ErrorRateSpike => {
                fx.errors = fx.errors.max(beyond_rest(m) * at);
                fx.before = fx.before.max(fault.start_secs);
            }
            SimFault::PartialReplicaFailure => {
                fx.errors = fx.errors.max(share(fault, now));
                fx.before = fx.before.max(fault.start_secs);
                fx.only = Some(0);
            }
            SimFault::CpuSaturation | SimFault::BatchJob => fx.work += (m - spec.cpu_percent).max(0.0) * at,
            SimFault::MemoryLeak if now < fault.fade_secs() => {
                // Fast at first, as what is kept is reached by fewer and fewer new requests.
                let points = (m - spec.memory_percent).max(0.0);
                let tau = fault.ramp_secs.max(1.0);
                fx.leak += 1.02 * points / tau * (-(now - fault.start_secs) / tau).exp();
                fx.leak_max = points;
                fx.leaking = true;
            }
            SimFault::GradualLeak if now < fault.fade_secs() => {
                fx.leak += (m - spec.memory_percent).max(0.0) / fault.ramp_secs.max(1.0);
                fx.leaking = true;
            }
            SimFault::DbConnectionExhaustion => {
                if let Some(pool) = spec.pool.as_ref().filter(|_| now < fault.fade_secs()) {
                    fx.stuck += (m - pool.rest).max(0.0) / fault.ramp_secs.max(1.0);
                    fx.leaking = true;
                }
            }
            SimFault::KafkaConsumerLag => {
                if let Some(c) = &spec.consumer {
                    // As many fewer that the height is reached in a third of the time.
                    let topic = &self.spec.topics[c.topic];
                    let want = m / ((fault.ramp_secs + fault.hold_secs) / 3.0).max(1.0);
                    let have = c.per_replica * f64::from(spec.replicas.min(topic.partitions));
                    let height = if now < fault.fade_secs() { at } else { 0.0 };
                    // More consumers must be able to catch up, as far as there are partitions: a third more than arrives.
                    let all = c.per_replica * f64::from(topic.partitions);
                    let most = have * (1.0 - 1.33 * topic.rate / all.max(1e-9)).clamp(0.0, 0.98);
                    fx.slow_messages += ((have - topic.rate + want) * height).clamp(0.0, most);
                }
            }
            SimFault::DeploymentFailure | SimFault::Canary => {
                let canary = fault.kind == SimFault::Canary;
                let extra = if canary { (m / 100.0 * service.rest_replicas).clamp(0.0, 1.0) } else { beyond_rest(m) };
                fx.version = Some((brought, extra * at));
            }
            SimFault::CrashLoop if at > 0.0 => fx.crash = Some(brought),
            SimFault::BadFlag if flipped => {
                fx.all_errors = fx.all_errors.max(share(fault, now));
                fx.all_slow = fx.all_slow.max(1.0 + 1.5 * at);
            }
            SimFault::RetryStorm => {
                // What set it off is over after a while; the retries are not.
                if now < fault.start_secs + 45.0 {
                    fx.cost = fx.cost.max(1.0 + 5.0 * at);
                    fx.all_slow = fx.all_slow.max(1.0 + 5.0 * at);
                }
                fx.attempts = fx.attempts.max(1.0 + (m - 1.0).max(0.0) * at);
            }
            SimFault::CertificateExpiry if service.certificate_renewed < fault.start_secs => {
                fx.handshakes = fx.handshakes.max(share(fault, now));
            }
            SimFault::CacheStampede if service.cache_warmed < fault.start_secs => {
                fx.expire = fx.expire.max(share(fault, now))
            }
            SimFault::MisroutedTraffic => fx.misdirect = 1.0,
            SimFault::ThunderingHerd | SimFault::TrafficSurge | SimFault::MarketingPeak => {
                fx.surge = fx.surge.max(1.0 + (m - 1.0).max(0.0) * at);
                // Clients that connect again, and machines that knock, are mostly answered at the door.
                fx.surge_sent_on = if fault.kind == SimFault::MarketingPeak { 1.0 } else { 0.08 };
            }
            _ => {}
        }
    }

    fn feel_database(&mut self, i: usize, fault: &InjectedFault, now: f64) {
        let dt = self.spec.dt_secs;
        let at = fault.intensity(now);
        let (spec, db) = (&self.spec.databases[i], &mut self.databases[i]);
        match fault.kind {
            SimFault::DiskFilling if db.cleaned < fault.start_secs && now < fault.fade_secs() => {
                let gb = spec.disk_gb * fault.magnitude / 100.0 * dt / 60.0;
                db.disk_used_gb = (db.disk_used_gb + gb).min(db.disk_gb);
            }
            SimFault::LockContention if db.unlocked < fault.start_secs => {
                db.locks = db.locks.max(at * fault.magnitude / spec.p99_ms.max(1.0));
            }
            SimFault::DatabasePrimaryLost if db.failed_over < fault.start_secs => {
                db.up = false;
                db.errors = db.errors.max(share(fault, now));
            }
            _ => {}
        }
    }

    /// The version that a fault of a deployment brought: the one it made when it began.
    fn version_of(&self, i: usize, fault: &InjectedFault) -> u16 {
        let at = self.deployed.iter().find(|(service, start, _)| *service == i && *start == fault.start_secs);
        at.map_or(u16::MAX, |(_, _, version)| *version)
    }

    fn begin(&mut self, fault: &InjectedFault) {
        let now = self.now_secs();
        match (fault.kind, fault.part.part()) {
            (SimFault::DeploymentFailure | SimFault::CrashLoop | SimFault::Canary, Part::Service(i)) => {
                let before = self.services[i].version;
                let name = bump(&self.services[i].versions[usize::from(before)]);
                let version = self.new_version(i, name.clone());
                self.deployed.push((i, fault.start_secs, version));
                let service = &mut self.services[i];
                if fault.kind == SimFault::Canary {
                    // One pod only; the version of the service is still the former.
                    service.replicas[0].version = version;
                    service.replicas[0].born = now;
                    service.replicas[0].ready_at = now;
                    let text = format!("canary of {name} on 1 of {} pods", service.replicas.len());
                    self.tell_change(i, ChangeType::Deployment, &name, "release-bot", &text);
                    return;
                }
                (service.previous, service.version) = (before, version);
                let left = if fault.kind == SimFault::CrashLoop { 1 } else { usize::MAX };
                service.roll = Some(Roll { before: now, batch: 1, left, takes: 3.0, surge: true, version });
                let text = format!("deploy {} {name}", self.spec.services[i].name);
                self.tell_change(i, ChangeType::Deployment, &name, "release-bot", &text);
            }
            (SimFault::BadFlag, Part::Service(i)) => {
                let (name, usual) = self.spec.services[i].flags[0].clone();
                self.services[i].flags[0] = !usual;
                let text = format!("flag {name}: {usual} to {}", !usual);
                self.tell_change(i, ChangeType::FeatureFlag, "", "mkramer", &text);
            }
            (SimFault::MisroutedTraffic, Part::Service(i)) => {
                let routes = self.spec.services[i].routes.clone();
                let total: f64 = routes.iter().map(|(_, w)| w).sum();
                let away = (fault.magnitude * total).round().clamp(0.0, total);
                let weights = &mut self.services[i].weights;
                weights[0] = total - away;
                weights[1] = away;
                let (from, to) = (&routes[0].0, &routes[1].0);
                let text = format!("route weights: {from} {:.0}, {to} {away:.0}", total - away);
                self.tell_change(i, ChangeType::Config, "", "jdoe", &text);
            }
            (SimFault::CertificateExpiry, Part::Service(i)) => {
                self.services[i].certificate_end = fault.start_secs;
            }
            (SimFault::OomKill, Part::Service(i)) => {
                let limit = (self.services[i].memory_limit_mb * fault.magnitude).round();
                let service = &mut self.services[i];
                service.memory_limit_mb = limit;
                // The new limit comes with new pods, one after the other.
                let version = service.version;
                service.roll = Some(Roll { before: now, batch: 1, left: usize::MAX, takes: 5.0, surge: true, version });
                self.tell_change(i, ChangeType::Config, "", "cost-bot", &format!("memory limit to {limit:.0}Mi"));
            }
            (SimFault::ThunderingHerd, Part::Service(i)) => {
                for replica in &mut self.services[i].replicas {
                    replica.born = now;
                    replica.ready_at = now;
                }
                self.services[i].restarts += self.services[i].rest_replicas;
                self.tell_change(i, ChangeType::Event, "", "kubelet", "all pods were replaced at once");
            }
            (SimFault::BatchJob, Part::Service(i)) => {
                self.tell_change(i, ChangeType::Event, "", "scheduler", "planned batch job: stock reconciliation");
            }
            (SimFault::MarketingPeak, Part::Service(i)) => {
                let text = format!("planned campaign: up to {:.0} % of the usual traffic", 100.0 * fault.magnitude);
                self.tell_change(i, ChangeType::Event, "", "marketing", &text);
            }
            (SimFault::Autoscaling, Part::Service(i)) => {
                let to = self.services[i].desired + fault.magnitude as u32;
                self.scale(i, to);
                self.tell_change(i, ChangeType::Scaling, "", "autoscaler", &format!("replicas to {to}"));
            }
            // The leak began long ago: what it took since stands in every pod.
            (SimFault::GradualLeak, Part::Service(i)) if fault.start_secs < now => {
                let rest = self.spec.services[i].memory_percent;
                let rate = (fault.magnitude - rest).max(0.0) / fault.ramp_secs.max(1.0);
                for replica in &mut self.services[i].replicas {
                    replica.leak += rate * (now - fault.start_secs);
                }
            }
            _ => {}
        }
    }

    /// What people outside of the model put right when it is over by itself.
    fn finish(&mut self, fault: &InjectedFault) {
        match (fault.kind, fault.part.part()) {
            (SimFault::BadFlag, Part::Service(i)) => self.services[i].flags[0] = self.spec.services[i].flags[0].1,
            (SimFault::MisroutedTraffic, Part::Service(i)) => {
                self.services[i].weights = self.spec.services[i].routes.iter().map(|(_, w)| *w).collect();
            }
            (SimFault::CertificateExpiry, Part::Service(i)) if self.services[i].certificate_end <= fault.start_secs => {
                self.services[i].certificate_end = self.now_secs() + 90.0 * 86_400.0;
            }
            (SimFault::OomKill, Part::Service(i)) => {
                let usual = self.spec.services[i].memory_limit_mb;
                let service = &mut self.services[i];
                service.memory_limit_mb = service.memory_limit_mb.max(usual);
            }
            (SimFault::Canary, Part::Service(i)) => {
                let version = self.services[i].version;
                self.services[i].replicas.iter_mut().for_each(|r| r.version = version);
            }
            (SimFault::Autoscaling, Part::Service(i)) => {
                let to = self.services[i].desired.saturating_sub(fault.magnitude as u32).max(1);
                self.scale(i, to);
                self.tell_change(i, ChangeType::Scaling, "", "autoscaler", &format!("replicas to {to}"));
            }
            (SimFault::DiskFilling, Part::Database(i)) => {
                let usual = self.spec.databases[i].disk_gb * self.spec.databases[i].disk_used_percent / 100.0;
                self.databases[i].disk_used_gb = self.databases[i].disk_used_gb.min(usual);
            }
            _ => {}
        }
    }

    /// Whether requests still reach the pods of a node that is gone.
    pub(super) fn node_gets_requests(&self, node: u16, now: f64) -> bool {
        self.nodes.get(usize::from(node)).is_none_or(|n| n.ready || now < n.lost_at + NODE_GRACE_SECS)
    }
}

/// How much of something a fault takes now, 0..1.
fn share(fault: &InjectedFault, now: f64) -> f64 {
    (fault.magnitude * fault.intensity(now)).clamp(0.0, 1.0)
}

/// The version after this one: `1.8.2` → `1.8.3`.
fn bump(version: &str) -> String {
    match version.rsplit_once('.').and_then(|(head, last)| Some((head, last.parse::<u32>().ok()?))) {
        Some((head, last)) => format!("{head}.{}", last.saturating_add(1)),
        None => format!("{version}.1"),
    }
}
