//! Shows incidents to `kubectl`: writes them as objects, and removes those that are over for long.
//!
//! A mirror only: losing it, or the API server for a day, loses nothing. After any doubt (missed changes, a failed
//! write, new leadership) everything is compared anew.

use super::call::call;
use super::incident::{Incident, IncidentMirror, IncidentState, MANAGED_BY, incident_mirror, kept};
use super::status::alike;
use super::{CrdSettings, FIELD_MANAGER};
use crate::ApiServer;
use crate::client::{KubeError, wait};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use nightshift_model::{Clock, Incident as Record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest time for one request.
const ANSWER: Duration = Duration::from_secs(10);
/// Wait after a change for those that come with it.
const SETTLE: Duration = Duration::from_millis(250);
/// Objects of one answer of a list.
const PAGE: u32 = 250;
/// Answers of a list at most: what more there is is looked at the next time, when these are gone.
const PAGES_MAX: usize = 20;

/// What [`Incidents::changed`] says.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// This one changed, and stands so now.
    Incident(Box<Record>),
    /// Some changes may have been missed.
    Missed,
    /// There will be no more of them.
    Closed,
}

/// Where incidents come from.
#[async_trait::async_trait]
pub trait Incidents: Send + Sync {
    /// Incidents as they stand: all open ones and the newest of the others, at most `max`, of every tenant.
    ///
    /// # Errors
    /// A text for the log. It is asked again later; nothing is removed meanwhile.
    async fn all(&mut self, max: usize) -> Result<Vec<Record>, String>;

    /// Waits for a change. Dropping the wait loses none.
    async fn changed(&mut self) -> Heard;
}

/// Writes incidents into the cluster while this replica leads.
pub struct Mirror {
    /// The cluster that we run in.
    pub server: ApiServer,
    /// Where and how many.
    pub settings: CrdSettings,
    /// What is mirrored.
    pub incidents: Box<dyn Incidents>,
    /// Whether this replica writes.
    pub leader: watch::Receiver<bool>,
    /// For the age of those that are over.
    pub clock: Arc<dyn Clock>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is to be there, and what is.
#[derive(Debug, Default)]
struct Books {
    wanted: BTreeMap<String, IncidentMirror>,
    /// Statuses by name, as the server has them; those of others that we made are there too.
    there: BTreeMap<String, Value>,
}

impl Books {
    /// Names that must be written, in order.
    fn due(&self) -> Vec<String> {
        let differs = |m: &IncidentMirror| {
            let wanted = serde_json::to_value(&m.status).unwrap_or_default();
            !self.there.get(&m.name).is_some_and(|is| alike(is, &wanted))
        };
        self.wanted.values().filter(|m| differs(m)).map(|m| m.name.clone()).collect()
    }

    /// Names that must go.
    fn odd(&self) -> Vec<String> {
        self.there.keys().filter(|name| !self.wanted.contains_key(*name)).cloned().collect()
    }
}

impl Mirror {
    fn namespace(&self) -> &str {
        if self.settings.namespace.is_empty() { self.server.namespace() } else { &self.settings.namespace }
    }

    fn api(&self) -> Api<Incident> {
        Api::namespaced(self.server.client().clone(), self.namespace())
    }

    /// Runs until told to stop. Never fails: what goes wrong is logged and tried again.
    pub async fn run(mut self) {
        let resync = Duration::from_secs(self.settings.resync_secs);
        let mut leader = self.leader.clone();
        let (mut followed, mut listens) = (true, true);
        let mut books = Books::default();
        let mut full = true;
        let mut due = Instant::now();
        let mut patience = Instant::now();
        let mut full_at = Instant::now();
        let mut failed = 0;
        let mut told = "";
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                turned = leader.changed(), if followed => {
                    followed = turned.is_ok();
                    full = true;
                    due = Instant::now().max(patience);
                }
                () = tokio::time::sleep_until(due) => {
                    full |= Instant::now() >= full_at;
                    let outcome = if *self.leader.borrow() { self.round(&mut books, full).await } else { Ok(()) };
                    match outcome {
                        Ok(()) => {
                            if !told.is_empty() {
                                tracing::info!("incidents are mirrored again");
                            }
                            (failed, told) = (0, "");
                            if full {
                                full_at = Instant::now() + resync;
                            }
                            // Who does not lead learns everything anew when it does.
                            full = !*self.leader.borrow();
                            due = full_at.max(Instant::now() + SETTLE);
                            patience = Instant::now();
                        }
                        Err(e) => {
                            failed += 1;
                            full = true;
                            if told != e.kind() {
                                tracing::warn!("mirror incidents into {}: {e}", self.namespace());
                                told = e.kind();
                            }
                            due = Instant::now() + wait("incidents", failed, e.retry_after());
                            patience = due;
                        }
                    }
                }
                heard = self.incidents.changed(), if listens => {
                    match heard {
                        Heard::Incident(record) => {
                            let mirror = incident_mirror(&record);
                            books.wanted.insert(mirror.name.clone(), mirror);
                            self.bound(&mut books);
                        }
                        Heard::Missed => full = true,
                        Heard::Closed => listens = false,
                    }
                    due = due.min(Instant::now() + SETTLE).max(patience);
                }
            }
        }
    }

    /// Forgets what is not to be mirrored.
    fn bound(&self, books: &mut Books) {
        let age = Duration::from_secs(self.settings.keep_resolved_secs);
        let keep = kept(books.wanted.values(), self.clock.now(), self.settings.incidents_max, age);
        books.wanted.retain(|name, _| keep.contains(name));
    }

    /// Makes the cluster show what it should; when `full`, after a look at what both sides have.
    async fn round(&mut self, books: &mut Books, full: bool) -> Result<(), KubeError> {
        if full {
            let all = self.incidents.all(self.settings.incidents_max).await;
            let all = all.map_err(|e| KubeError::Unreadable(format!("our own incidents: {e}")))?;
            books.wanted = all.iter().map(incident_mirror).map(|m| (m.name.clone(), m)).collect();
            books.there = self.listed().await?;
        }
        self.bound(books);
        for name in books.due() {
            let Some(mirror) = books.wanted.get(&name) else { continue };
            match self.write(mirror, books.there.contains_key(&name)).await {
                Ok(()) => {
                    let status = serde_json::to_value(&mirror.status).unwrap_or_default();
                    books.there.insert(name, status);
                }
                Err(e @ KubeError::Other { code: 400 | 422, .. }) => {
                    // Trying again would not help before it changes or the next full look.
                    tracing::warn!("mirror incident {name}: {e}");
                    let status = serde_json::to_value(&mirror.status).unwrap_or_default();
                    books.there.insert(name, status);
                }
                Err(e) => return Err(e),
            }
            if self.stop.is_cancelled() || !*self.leader.borrow() {
                return Ok(());
            }
        }
        for name in books.odd() {
            match call(&self.server, ANSWER, self.api().delete(&name, &DeleteParams::default())).await {
                Ok(_) | Err(KubeError::NotFound) => drop(books.there.remove(&name)),
                Err(e) => return Err(e),
            }
            if self.stop.is_cancelled() || !*self.leader.borrow() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Statuses of all that we made, by name.
    async fn listed(&self) -> Result<BTreeMap<String, Value>, KubeError> {
        let api = self.api();
        let mut out = BTreeMap::new();
        let mut params = ListParams::default().labels(&format!("{MANAGED_BY}={FIELD_MANAGER}")).limit(PAGE);
        for _ in 0..PAGES_MAX {
            let page = call(&self.server, ANSWER, api.list(&params)).await?;
            for object in page.items {
                let status = object.status.unwrap_or_else(IncidentState::default);
                let name = object.metadata.name.unwrap_or_default();
                out.insert(name, serde_json::to_value(status).unwrap_or_default());
            }
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => break,
            }
        }
        Ok(out)
    }

    async fn write(&self, mirror: &IncidentMirror, is_there: bool) -> Result<(), KubeError> {
        let api = self.api();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let status = mirror.status_object(self.namespace());
        let status = Patch::Apply(&status);
        if is_there {
            match call(&self.server, ANSWER, api.patch_status(&mirror.name, &params, &status)).await {
                // Somebody deleted it.
                Err(KubeError::NotFound) => {}
                other => return other.map(drop),
            }
        }
        let object = mirror.object(self.namespace());
        call(&self.server, ANSWER, api.patch(&mirror.name, &params, &Patch::Apply(&object))).await?;
        call(&self.server, ANSWER, api.patch_status(&mirror.name, &params, &status)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds::IncidentSpec;
    use nightshift_model::Timestamp;

    fn mirror(name: &str, score: f64) -> IncidentMirror {
        let spec = IncidentSpec { id: String::new(), short_id: String::new(), tenant: String::new() };
        let status = IncidentState { score: Some(score), ..IncidentState::default() };
        IncidentMirror { name: name.into(), spec, status, open: true, updated_at: Timestamp::EPOCH }
    }

    #[test]
    fn what_differs_is_written_and_what_is_odd_goes() {
        let mut books = Books::default();
        for (name, score) in [("a", 0.5), ("b", 1.0), ("c", 0.7)] {
            books.wanted.insert(name.into(), mirror(name, score));
        }
        books.there.insert("a".into(), serde_json::json!({"score": 0.5}));
        // The server says 1 where we said 1.0.
        books.there.insert("b".into(), serde_json::json!({"score": 1}));
        books.there.insert("old".into(), serde_json::json!({}));
        assert_eq!(books.due(), ["c"]);
        assert_eq!(books.odd(), ["old"]);
        books.there.insert("c".into(), serde_json::json!({"score": 0.7, "state": "resolved"}));
        assert_eq!(books.due(), ["c"], "a field that is there and should not be is a difference");
    }
}
