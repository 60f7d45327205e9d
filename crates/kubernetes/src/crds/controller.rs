//! Reads what people wrote, hands it to the library, and writes into each object what became of it.
//!
//! One loop per kind, without state that outlives it: everything is learned again from the API server. The library is
//! told by every replica; only the leader writes.

use super::call::{call, explain_watch};
use super::held::{Held, Object};
use super::library::{Answer, Library, PlaybookText, PolicyText};
use super::status::{Judged, objective_of, playbook_text, policy_of, says, status_of};
use super::{CrdSettings, FIELD_MANAGER, GROUP, VERSION};
use super::{Playbook, RemediationPolicy, ServiceObjective};
use crate::ApiServer;
use crate::client::{KubeError, wait};
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use nightshift_model::Clock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Objects of one answer of a list.
const PAGE: u32 = 100;
/// Wait after a change for those that come with it.
const SETTLE: Duration = Duration::from_millis(250);
/// Longest time for one write.
const WRITE: Duration = Duration::from_secs(10);
/// All watches begin anew this often: one whose connection died without a word costs no more than that.
const AFRESH: Duration = Duration::from_secs(600);

/// A kind that people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Playbook,
    Policy,
    Objective,
}

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Self::Playbook => ApiResource::erase::<Playbook>(&()),
            Self::Policy => ApiResource::erase::<RemediationPolicy>(&()),
            Self::Objective => ApiResource::erase::<ServiceObjective>(&()),
        }
    }

    /// Fields of the status that are ours, beside the condition.
    const fn ours(self) -> &'static [&'static str] {
        match self {
            Self::Playbook => &["observedGeneration", "digest"],
            Self::Policy => &["observedGeneration", "digest", "package", "tests"],
            Self::Objective => &["observedGeneration", "entity", "budget", "budgetLeft"],
        }
    }
}

/// Keeps the library and the cluster in step.
pub struct Controller {
    /// The cluster that we run in.
    pub server: ApiServer,
    /// Where and how much.
    pub settings: CrdSettings,
    /// Who judges.
    pub library: Arc<dyn Library>,
    /// Whether this replica writes.
    pub leader: watch::Receiver<bool>,
    /// For the times of conditions.
    pub clock: Arc<dyn Clock>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("settings", &self.settings).finish_non_exhaustive()
    }
}

type Said = (String, Result<watcher::Event<DynamicObject>, watcher::Error>);

impl Controller {
    /// Runs until told to stop. Never fails: what goes wrong is logged and tried again.
    pub async fn run(self) {
        tokio::join!(self.keep(Kind::Playbook), self.keep(Kind::Policy), self.keep(Kind::Objective));
    }

    fn namespaces(&self, kind: Kind) -> Vec<String> {
        let own = if self.settings.namespace.is_empty() { self.server.namespace() } else { &self.settings.namespace };
        let mut all = vec![own.to_owned()];
        if kind == Kind::Objective {
            all.extend(self.settings.objective_namespaces.iter().cloned());
        }
        all.sort();
        all.dedup();
        all
    }

    fn watches(&self, kind: Kind, namespaces: &[String]) -> SelectAll<BoxStream<'static, Said>> {
        let resource = kind.resource();
        let config = watcher::Config::default().page_size(PAGE);
        let one = |namespace: &String| {
            let api = Api::<DynamicObject>::namespaced_with(self.server.client().clone(), namespace, &resource);
            let namespace = namespace.clone();
            watcher(api, config.clone()).default_backoff().map(move |said| (namespace.clone(), said)).boxed()
        };
        futures::stream::select_all(namespaces.iter().map(one))
    }

    async fn keep(&self, kind: Kind) {
        let namespaces = self.namespaces(kind);
        let resync = Duration::from_secs(self.settings.resync_secs);
        let mut leader = self.leader.clone();
        let mut followed = true;
        let mut held = Held::of(&namespaces);
        let mut watches = self.watches(kind, &namespaces);
        let mut afresh = Instant::now() + AFRESH;
        let mut due = Instant::now() + resync;
        // Not before then: the last write failed.
        let mut patience = Instant::now();
        let mut failed = 0;
        let mut troubles: BTreeMap<String, &'static str> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                turned = leader.changed(), if followed => {
                    followed = turned.is_ok();
                    due = due.min(Instant::now() + SETTLE).max(patience);
                }
                () = tokio::time::sleep_until(due) => {
                    if held.is_whole() {
                        failed = if self.round(kind, &mut held).await { 0 } else { failed + 1 };
                    }
                    let pause = if failed == 0 { resync } else { wait(&kind.resource().plural, failed, None) };
                    due = Instant::now() + pause;
                    patience = if failed == 0 { Instant::now() } else { due };
                }
                () = tokio::time::sleep_until(afresh) => {
                    watches = self.watches(kind, &namespaces);
                    afresh = Instant::now() + AFRESH;
                }
                Some((namespace, said)) = watches.next() => {
                    let changed = match said {
                        Ok(event) => {
                            troubles.remove(&namespace);
                            held.take(&namespace, event)
                        }
                        Err(e) => self.trouble(kind, &namespace, &e, &mut held, &mut troubles),
                    };
                    if changed {
                        due = due.min(Instant::now() + SETTLE).max(patience);
                    }
                }
            }
        }
    }

    /// Says once what is wrong with a namespace. Whether others need not wait for it any longer.
    fn trouble(
        &self,
        kind: Kind,
        namespace: &str,
        error: &watcher::Error,
        held: &mut Held,
        troubles: &mut BTreeMap<String, &'static str>,
    ) -> bool {
        let error = explain_watch(error, self.server.url());
        let plural = kind.resource().plural;
        if troubles.insert(namespace.to_owned(), error.kind()) != Some(error.kind()) {
            let hint = if error == KubeError::NotFound { "; install the chart's crds folder" } else { "" };
            tracing::warn!(namespace, "watch {plural}.{GROUP}: {error}{hint}");
        }
        matches!(error, KubeError::NotFound | KubeError::Forbidden(_)) && held.give_up(namespace)
    }

    /// Hands all over, and writes what became of it. Whether everything that was to be written is.
    async fn round(&self, kind: Kind, held: &mut Held) -> bool {
        let objects = held.all();
        if held.refused() > 0 {
            tracing::warn!("{} {} too many: they are not taken", held.refused(), kind.resource().plural);
        }
        let judged = judge(kind, self.library.as_ref(), &objects).await;
        if !*self.leader.borrow() {
            return true;
        }
        let resource = kind.resource();
        let mut whole = true;
        for (object, judged) in objects.iter().zip(&judged) {
            let status = status_of(object, judged, self.clock.now());
            if says(&object.status, &status, kind.ours()) {
                continue;
            }
            match self.write(&resource, object, &status).await {
                Ok(()) => held.wrote(object, status),
                // Gone, or another one of the same name: the watch tells.
                Err(KubeError::NotFound | KubeError::Other { code: 409, .. }) => {}
                Err(e) => {
                    tracing::warn!("write the status of {} {}: {e}", resource.kind, object.key);
                    whole = false;
                    // The next ones would only wait as well.
                    if e.is_hopeless() || e.may_pass() {
                        return false;
                    }
                }
            }
            if self.stop.is_cancelled() || !*self.leader.borrow() {
                return true;
            }
        }
        whole
    }

    async fn write(&self, resource: &ApiResource, object: &Object, status: &Value) -> Result<(), KubeError> {
        let client = self.server.client().clone();
        let api = Api::<DynamicObject>::namespaced_with(client, &object.key.namespace, resource);
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": resource.kind,
            // The uid: what was judged, and not another one of the same name.
            "metadata": {"name": object.key.name, "namespace": object.key.namespace, "uid": object.uid},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        call(&self.server, WRITE, api.patch_status(&object.key.name, &params, &patch)).await.map(drop)
    }
}

/// Asks the library; one answer for each object.
async fn judge(kind: Kind, library: &dyn Library, objects: &[Object]) -> Vec<Judged> {
    let mut judged: Vec<Option<Judged>> = vec![None; objects.len()];
    let mut asked = Vec::new();
    let refuse = |wrong: Vec<String>| Some(Judged::bare(Answer::invalid(wrong)).with_empty_digest(kind));
    let answers: Vec<Judged> = match kind {
        Kind::Playbook => {
            let mut all = Vec::new();
            for (i, object) in objects.iter().enumerate() {
                match playbook_text(object) {
                    Ok(text) => {
                        asked.push(i);
                        all.push(PlaybookText { key: object.key.clone(), text });
                    }
                    Err(e) => judged[i] = refuse(vec![e]),
                }
            }
            let answers = library.playbooks(all).await;
            answers.into_iter().map(|a| Judged::bare(a.answer).with("digest", a.digest)).collect()
        }
        Kind::Policy => {
            let mut all = Vec::new();
            for (i, object) in objects.iter().enumerate() {
                match policy_of(object) {
                    Ok(spec) if spec.enabled => {
                        asked.push(i);
                        let tests = spec.tests.unwrap_or_default();
                        all.push(PolicyText { key: object.key.clone(), rego: spec.rego, tests });
                    }
                    Ok(_) => {
                        let messages = vec!["spec.enabled is false".to_owned()];
                        let off = Judged::bare(Answer::Refused { reason: "Disabled", messages });
                        judged[i] = Some(off.with_empty_digest(kind));
                    }
                    Err(e) => judged[i] = refuse(vec![e]),
                }
            }
            let answers = library.policies(all).await;
            let one = |a: super::PolicyAnswer| {
                let mut out = Judged::bare(a.answer).with("digest", a.digest);
                if let Some(package) = a.package {
                    out = out.with("package", package);
                }
                if let Some((passed, all)) = a.tests {
                    out = out.with("tests", format!("{passed}/{all}"));
                }
                out
            };
            answers.into_iter().map(one).collect()
        }
        Kind::Objective => {
            let mut all = Vec::new();
            for (i, object) in objects.iter().enumerate() {
                match objective_of(object) {
                    Ok(order) => {
                        asked.push(i);
                        all.push(order);
                    }
                    Err(wrong) => judged[i] = refuse(wrong),
                }
            }
            library.objectives(all).await.into_iter().map(of_objective).collect()
        }
    };
    if answers.len() != asked.len() {
        tracing::error!("{} answers for {} {}", answers.len(), asked.len(), kind.resource().plural);
    }
    for (i, answer) in asked.into_iter().zip(answers) {
        judged[i] = Some(answer);
    }
    let silent = || Judged::bare(Answer::Unknown("it was not judged".into()));
    judged.into_iter().map(|j| j.unwrap_or_else(silent)).collect()
}

fn of_objective(a: super::ObjectiveAnswer) -> Judged {
    let left = a.budget_left.filter(|l| l.is_finite());
    let text = left.map_or_else(|| "unknown".to_owned(), |l| format!("{:.0} %", (l * 100.0).floor()));
    let mut out = Judged::bare(a.answer).with("budget", text);
    if let Some(left) = left {
        // Whole percents: not every request is worth a write.
        out = out.with("budgetLeft", (left * 100.0).floor() / 100.0);
    }
    if let Some(entity) = a.entity {
        out = out.with("entity", entity.to_string());
    }
    out
}

impl Judged {
    fn with_empty_digest(self, kind: Kind) -> Self {
        if kind == Kind::Objective { self } else { self.with("digest", "") }
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
