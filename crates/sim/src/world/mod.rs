//! The estate while it runs, in virtual time.

mod effects;
mod flow;
mod logs;
mod measure;
pub(crate) mod state;

use crate::fault::InjectedFault;
use crate::spec::EstateSpec;
use crate::telemetry::{LogLine, SeriesDef, SpanSample, declare};
use nightshift_model::{Change, ChangeType, EntityId, EntityMeta, EnvelopeId, Timestamp};
use state::{Database, Effects, Node, Resolver, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use state::Totals;

/// Log lines, spans and changes kept between two scrapes at most; the oldest stay.
const PENDING_MAX: usize = 20_000;

/// An estate that runs. The same spec, seed, faults and actions give the same bytes.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) spec: Arc<EstateSpec>,
    pub(crate) seed: u64,
    pub(crate) ticks: u64,
    /// Simulated second at which it was started.
    pub(crate) origin_secs: f64,
    pub(crate) noisy: bool,
    pub(crate) talking: bool,
    pub(crate) entities: Arc<[EntityMeta]>,
    pub(crate) by_id: Arc<BTreeMap<EntityId, u32>>,
    pub(crate) series: Arc<[SeriesDef]>,
    pub(crate) order: Arc<[usize]>,
    /// Requests a second that each service gets from callers at rest.
    pub(crate) called_at_rest: Arc<[f64]>,
    /// Pods' share of CPU on each node at rest.
    pub(crate) node_rest: Arc<[f64]>,
    pub(crate) services: Vec<Service>,
    pub(crate) databases: Vec<Database>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) resolver: Resolver,
    pub(crate) effects: Vec<Effects>,
    /// The next pod of a rolling update may not start before.
    pub(crate) wait_for: Vec<f64>,
    pub(crate) started: u64,
    pub(crate) faults: Vec<InjectedFault>,
    pub(crate) begun: Vec<bool>,
    pub(crate) ended: Vec<bool>,
    /// Which version a fault brought: service, start of the fault, version.
    pub(crate) deployed: Vec<(usize, f64, u16)>,
    pub(crate) pending: Pending,
    pub(crate) ledger: crate::actions::Ledger,
}

/// What was said since the last scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pending {
    pub(crate) logs: Vec<LogLine>,
    pub(crate) text: String,
    pub(crate) spans: Vec<SpanSample>,
    pub(crate) changes: Vec<Change>,
}

impl World {
    /// An estate at rest at simulated second 0.
    pub fn new(spec: EstateSpec, seed: u64) -> Self {
        Self::starting(spec, seed, 0.0)
    }

    /// An estate at rest at a later second: what a history of that length would have led to when nothing happened.
    pub fn starting(spec: EstateSpec, seed: u64, at_secs: f64) -> Self {
        let spec = Arc::new(spec);
        let services: Vec<Service> =
            spec.services.iter().enumerate().map(|(i, s)| Service::new(i, s, spec.nodes.len())).collect();
        let databases = state::databases(&spec, &services);
        let entities: Arc<[EntityMeta]> = spec.entities().into();
        let by_id = entities.iter().enumerate().map(|(i, e)| (e.id.clone(), i as u32)).collect();
        let mut called_at_rest = vec![0.0; services.len()];
        for s in &spec.services {
            for call in &s.calls {
                called_at_rest[call.to] += s.rest_rps * call.share;
            }
        }
        let mut node_rest = vec![0.0; spec.nodes.len()];
        for (service, s) in services.iter().zip(&spec.services) {
            for r in &service.replicas {
                if let Some(rest) = node_rest.get_mut(usize::from(r.node)) {
                    *rest += s.cpu_percent / 100.0;
                }
            }
        }
        let node = Node { steal: 0.0, ready: true, lost_at: f64::NEG_INFINITY, cordoned: false, cpu: 0.0 };
        let resolver = Resolver { restarted: f64::NEG_INFINITY, ..Resolver::default() };
        Self {
            order: spec.callers_first().into(),
            series: declare(&spec).into(),
            effects: vec![Effects::default(); services.len()],
            wait_for: vec![f64::NEG_INFINITY; services.len()],
            nodes: vec![node; spec.nodes.len()],
            called_at_rest: called_at_rest.into(),
            node_rest: node_rest.into(),
            by_id: Arc::new(by_id),
            ticks: 0,
            origin_secs: at_secs,
            noisy: true,
            talking: true,
            started: 0,
            faults: Vec::new(),
            begun: Vec::new(),
            ended: Vec::new(),
            deployed: Vec::new(),
            pending: Pending::default(),
            ledger: crate::actions::Ledger::default(),
            spec,
            seed,
            entities,
            services,
            databases,
            resolver,
        }
    }

    /// Whether signals carry noise. Without it the estate does the very same things.
    #[must_use]
    pub fn noise(mut self, on: bool) -> Self {
        self.noisy = on;
        self
    }

    /// Whether log lines and spans are written. Without them the estate does the very same things, faster.
    #[must_use]
    pub fn talking(mut self, on: bool) -> Self {
        self.talking = on;
        self
    }

    /// Adds a fault. One that should have begun begins in the next step.
    pub fn inject(&mut self, fault: InjectedFault) {
        self.faults.push(fault);
        self.begun.push(false);
        self.ended.push(false);
    }

    /// One step of `dt_secs`.
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.feel_faults();
        self.flow();
        self.settle_actions();
        if self.talking {
            self.talk();
        }
    }

    /// Steps until this simulated second at least.
    pub fn run_until(&mut self, secs: f64) {
        while self.now_secs() < secs {
            self.tick();
        }
    }

    /// Simulated seconds.
    pub fn now_secs(&self) -> f64 {
        self.origin_secs + self.ticks as f64 * self.spec.dt_secs
    }

    /// Wall clock of the estate (the scraper's may step, see [`Scrape::at`](crate::Scrape)).
    pub fn now(&self) -> Timestamp {
        self.time_at(self.now_secs())
    }

    /// Wall clock at a simulated second.
    pub fn time_at(&self, secs: f64) -> Timestamp {
        self.spec.start + Duration::from_millis((secs.max(0.0) * 1_000.0).round() as u64)
    }

    /// What it consists of.
    pub fn spec(&self) -> &EstateSpec {
        &self.spec
    }

    /// The series, in the order of the values of a scrape.
    pub fn series(&self) -> &[SeriesDef] {
        &self.series
    }

    /// The entities, in the order that log lines and spans count them.
    pub fn entities(&self) -> &[EntityMeta] {
        &self.entities
    }

    /// The faults, in the order in which they were injected. For graders only.
    pub fn faults(&self) -> &[InjectedFault] {
        &self.faults
    }

    /// What arrived at a service since the start and what became of it, and how many requests wait.
    pub fn totals(&self, service: usize) -> Option<(Totals, f64)> {
        self.services.get(service).map(|s| (s.totals, s.backlog))
    }

    /// A change of a service, told to whoever scrapes next.
    pub(crate) fn tell_change(&mut self, service: usize, kind: ChangeType, version: &str, author: &str, summary: &str) {
        let id = self.entities.get(service).map(|e| e.id.clone());
        let name = self.spec.services.get(service).map(|s| s.name.clone()).unwrap_or_default();
        self.tell(id, name, kind, version, author, summary);
    }

    /// A change of any entity.
    pub(crate) fn tell(
        &mut self,
        entity: Option<EntityId>,
        service: String,
        change_type: ChangeType,
        version: &str,
        author: &str,
        summary: &str,
    ) {
        if self.pending.changes.len() >= PENDING_MAX {
            return;
        }
        let at = self.now();
        let about = entity.as_ref().map(|e| e.as_str().to_owned()).unwrap_or_default();
        let said = [b"sim".as_slice(), about.as_bytes(), summary.as_bytes(), &at.0.to_be_bytes()];
        let git_sha = if version.is_empty() {
            String::new()
        } else {
            format!("{:010x}", nightshift_model::hash::hash64(format!("{about} {version}").as_bytes()) >> 24)
        };
        self.pending.changes.push(Change {
            id: EnvelopeId::derive(&said),
            tenant: self.spec.tenant.clone(),
            at,
            entity,
            service,
            change_type,
            version: version.to_owned(),
            git_sha,
            author: author.to_owned(),
            summary: summary.to_owned(),
            known_risks: Vec::new(),
            source: "estate".to_owned(),
            attributes: BTreeMap::new(),
        });
    }

    /// The version of that name, known or new.
    pub(crate) fn new_version(&mut self, service: usize, name: String) -> u16 {
        let versions = &mut self.services[service].versions;
        let known = versions.iter().position(|v| *v == name);
        let at = known.unwrap_or_else(|| {
            versions.push(name);
            versions.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// Sets how many pods a service should have; new ones start, the youngest go.
    pub(crate) fn scale(&mut self, i: usize, to: u32) {
        let now = self.now_secs();
        let to = to.clamp(1, 1_000);
        self.services[i].desired = to;
        while self.services[i].replicas.len() < to as usize {
            let n = self.services[i].replicas.len();
            let takes = self.start_secs(i, self.spec.services[i].start_secs);
            let node = self.node_for(((i + n) % self.nodes.len().max(1)) as u16);
            let version = self.services[i].version;
            let pod = state::Replica::fresh(now, now + takes, version, node, self.cold(i));
            self.services[i].replicas.push(pod);
        }
        self.services[i].replicas.truncate(to as usize);
    }
}
