//! Which of several replicas leads: a Lease of `coordination.k8s.io` that one of them holds and renews.
//!
//! Lives here: the decision (pure), and the loop that carries it out. What only the leader may do is said by those who
//! do it. A leader that cannot renew steps down by itself before anybody else can take over: it never needs an answer
//! for that. Clocks of two machines are never compared: a lease has run out when *we* have seen it unchanged for as
//! long as it lasts, on a clock of ours that cannot be set.

use crate::ApiServer;
use crate::client::KubeError;
use crate::crds::{FIELD_MANAGER, call};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use nightshift_model::{Clock, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest lease that is believed, seconds: another's may last long, but not for ever.
const LASTS_MAX_SECS: i32 = 3_600;

/// Whose lease, which, and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who we are: unique among the replicas, such as the name of the pod.
    pub identity: String,
    /// How long it lasts without being renewed, whole seconds.
    pub lasts: Duration,
    /// A leader that could not renew for so long steps down; less than `lasts`.
    pub renew_within: Duration,
    /// Time between two tries; less than `renew_within`.
    pub retry: Duration,
}

impl LeaseSettings {
    /// With the usual times: lasts 15 s, renewed within 10 s, tried every 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lasts: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// Everything that is wrong with them.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (what, text) in [("namespace", &self.namespace), ("name", &self.name), ("identity", &self.identity)] {
            if text.is_empty() {
                out.push(format!("the {what} of the lease is empty"));
            }
        }
        let most = Duration::from_secs(LASTS_MAX_SECS.unsigned_abs().into());
        if self.lasts.subsec_nanos() != 0 || self.lasts.is_zero() || self.lasts > most {
            out.push(format!("lasts: {:?} is no number of whole seconds within 1..={LASTS_MAX_SECS}", self.lasts));
        }
        if self.retry.is_zero() || self.retry >= self.renew_within || self.renew_within >= self.lasts {
            let Self { retry, renew_within, lasts, .. } = self;
            out.push(format!("0 < retry ({retry:?}) < renew_within ({renew_within:?}) < lasts ({lasts:?}) must hold"));
        }
        out
    }
}

/// What a lease says of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hold {
    /// Who; empty when it was given back.
    pub holder: String,
    /// Seconds that it lasts.
    pub lasts_secs: i32,
    /// How often it changed hands.
    pub transitions: i32,
    /// What the holder's clock said when it renewed: told apart, never compared with a clock.
    pub renewed: String,
}

/// A lease, and since when it has been seen as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says.
    pub hold: Hold,
    /// First time it was seen so, on our clock that cannot be set.
    pub since: Duration,
}

impl Seen {
    /// What is known after another look at `now`: the same hold keeps its time.
    #[must_use]
    pub fn next(before: Option<Self>, hold: Hold, now: Duration) -> Self {
        match before {
            Some(seen) if seen.hold == hold => seen,
            _ => Self { hold, since: now },
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it any longer: take it.
    Take,
    /// Another one holds it.
    Wait,
}

/// What `identity` is to do about a lease at `now`, on the clock of [`Seen::since`]. `None`: there is none.
pub fn decide(identity: &str, seen: Option<&Seen>, now: Duration) -> Decision {
    let Some(Seen { hold, since }) = seen else { return Decision::Create };
    if hold.holder == identity {
        return Decision::Renew;
    }
    let lasts = Duration::from_secs(hold.lasts_secs.clamp(0, LASTS_MAX_SECS).unsigned_abs().into());
    if hold.holder.is_empty() || now.saturating_sub(*since) >= lasts { Decision::Take } else { Decision::Wait }
}

/// Runs for the lease until told to stop.
pub struct Elector {
    server: ApiServer,
    settings: LeaseSettings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    leads: watch::Sender<bool>,
    began: Instant,
    /// As it was read or written last, with its resource version.
    lease: Option<Lease>,
    seen: Option<Seen>,
    /// Start of the last request that made or kept us leader.
    renewed_at: Option<Instant>,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Elector {
    /// One that is to [`Self::run`], and where it says whether we lead: not before it ran.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(
        server: ApiServer,
        settings: LeaseSettings,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<(Self, watch::Receiver<bool>), Vec<String>> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let (leads, is_leader) = watch::channel(false);
        let began = Instant::now();
        let elector = Self { server, settings, clock, stop, leads, began, lease: None, seen: None, renewed_at: None };
        Ok((elector, is_leader))
    }

    /// Takes part until told to stop, and gives the lease back then. When this is dropped instead, nobody leads until
    /// the lease has run out.
    pub async fn run(mut self) {
        let mut told = "";
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            // A leader's request must not outlast its right to lead.
            let within = self.renewed_at.map_or(self.settings.renew_within, |at| {
                (at + self.settings.renew_within).saturating_duration_since(began)
            });
            let stop = self.stop.clone();
            let tried = tokio::select! {
                () = stop.cancelled() => break,
                tried = tokio::time::timeout(within, self.attempt(began)) => {
                    tried.unwrap_or(Err(KubeError::Slow(within)))
                }
            };
            match tried {
                Ok(()) => told = "",
                Err(e) => {
                    // What we know may be old: look before the next write.
                    self.lease = None;
                    let lost_race = matches!(e, KubeError::Other { code: 409, .. });
                    if told != e.kind() && !lost_race {
                        tracing::warn!("lease {}/{}: {e}", self.settings.namespace, self.settings.name);
                        told = e.kind();
                    }
                }
            }
            let mut pause = self.settings.retry;
            if let Some(at) = self.renewed_at {
                let left = (at + self.settings.renew_within).saturating_duration_since(Instant::now());
                if left.is_zero() {
                    self.lose("it could not be renewed in time");
                }
                pause = pause.min(left.max(Duration::from_millis(1)));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.give_back().await;
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.server.client().clone(), &self.settings.namespace)
    }

    fn lose(&mut self, why: &str) {
        self.renewed_at = None;
        if self.leads.send_replace(false) {
            tracing::warn!("we do not lead any longer: {why}");
        }
    }

    /// One look and at most one write.
    async fn attempt(&mut self, began: Instant) -> Result<(), KubeError> {
        let within = self.settings.renew_within;
        // A leader's copy is the newest there is, unless another has taken over: the write tells then.
        if self.lease.is_none() || self.renewed_at.is_none() {
            let found = call(&self.server, within, self.api().get_opt(&self.settings.name)).await?;
            let now = self.began.elapsed();
            self.seen = found.as_ref().map(|lease| Seen::next(self.seen.take(), hold_of(lease), now));
            self.lease = found;
        }
        let decision = decide(&self.settings.identity, self.seen.as_ref(), self.began.elapsed());
        if decision == Decision::Wait {
            self.lose("another replica holds the lease");
            return Ok(());
        }
        let lease = self.next_lease(decision);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = if decision == Decision::Create {
            call(&self.server, within, self.api().create(&params, &lease)).await?
        } else {
            // With the resource version that was read: of two that try, one fails.
            call(&self.server, within, self.api().replace(&self.settings.name, &params, &lease)).await?
        };
        self.seen = Some(Seen::next(self.seen.take(), hold_of(&written), self.began.elapsed()));
        self.lease = Some(written);
        // From before the request: others count from when they see it, which is later.
        self.renewed_at = Some(began);
        if !self.leads.send_replace(true) {
            tracing::info!(identity = self.settings.identity, "we lead now");
        }
        Ok(())
    }

    fn next_lease(&self, decision: Decision) -> Lease {
        let now = micro(self.clock.now());
        let mut lease = self.lease.clone().unwrap_or_default();
        if decision == Decision::Create {
            let LeaseSettings { name, namespace, .. } = self.settings.clone();
            lease.metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
        }
        let old = lease.spec.take().unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or_default();
        let renews = decision == Decision::Renew;
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.settings.lasts.as_secs()).unwrap_or(LASTS_MAX_SECS)),
            acquire_time: if renews { old.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if decision == Decision::Take {
                transitions.saturating_add(1)
            } else {
                transitions
            }),
            ..old
        });
        lease
    }

    /// Says that nobody holds it, so that the next one need not wait.
    async fn give_back(mut self) {
        self.lose("we are told to stop");
        if self.seen.as_ref().is_some_and(|seen| seen.hold.holder == self.settings.identity)
            && let Err(e) = self.release().await
        {
            tracing::info!("the lease was not given back, it runs out by itself: {e}");
        }
    }

    async fn release(&self) -> Result<(), KubeError> {
        let (api, within) = (self.api(), self.settings.retry);
        // Read anew: a write of ours may have been under way when we were told to stop.
        let found = call(&self.server, within, api.get_opt(&self.settings.name)).await?;
        let Some(mut lease) = found.filter(|lease| hold_of(lease).holder == self.settings.identity) else {
            return Ok(());
        };
        let now = micro(self.clock.now());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            ..lease.spec.take().unwrap_or_default()
        });
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        call(&self.server, within, api.replace(&self.settings.name, &params, &lease)).await.map(drop)
    }
}

fn hold_of(lease: &Lease) -> Hold {
    let spec = lease.spec.clone().unwrap_or_default();
    Hold {
        holder: spec.holder_identity.unwrap_or_default(),
        lasts_secs: spec.lease_duration_seconds.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        renewed: spec.renew_time.map(|t| t.0.to_string()).unwrap_or_default(),
    }
}

fn micro(at: Timestamp) -> Option<MicroTime> {
    k8s_openapi::jiff::Timestamp::from_nanosecond(at.nanos().into()).ok().map(MicroTime)
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
