//! The Kubernetes actuator: a safe hand on the objects of one cluster.
//!
//! Lives here: what holds for every action (the allow-list, fences, deadlines, what is remembered of keys, dry-runs with
//! and without the right to write), and which action is done by what. Beside it: `door` (requests), `edit` (one object,
//! a few fields, put back exactly), and a module for each sort of action.
//!
//! Never here: choices. It never executs anything in a pod, never deletes a namespace, and refuses by itself what is outside
//! `namespaces` before the API server would.

mod argo;
mod autoscale;
mod claim;
mod database;
mod door;
mod edit;
mod flags;
mod helm;
mod history;
mod job;
mod json;
mod node;
mod place;
mod pods;
mod policy;
mod release;
mod rights;
mod rollout;
mod route;
mod schema;
mod target;
mod workload;

use async_trait::async_trait;
use door::{Door, Mode};
use edit::Deed;
use json::Fields;
use nightshift_act::{ActError, Actuator, Answer, BuildError, Declares, KubernetesActuatorConfig};
use nightshift_model::{Action, ActionOutcome, ActionType, Clock, EntityId, Image, Operation, Timestamp};
use parking_lot::Mutex;
use place::Place;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Orders that are remembered, beside what stands on the objects.
const REMEMBERED_MAX: usize = 2_000;
/// Between two looks at what should be on its way.
const POLL: Duration = Duration::from_millis(400);

/// Builds the actuator of one cluster.
///
/// # Errors
/// What is wrong with the settings, with its key.
pub fn build(
    config: &KubernetesActuatorConfig,
    client: kube::Client,
    clock: Arc<dyn Clock>,
) -> Result<Arc<KubernetesActuator>, BuildError> {
    config.check()?;
    let memory = Mutex::new(Memory::default());
    Ok(Arc::new(KubernetesActuator { config: config.clone(), client, clock, fence: AtomicU64::new(0), memory }))
}

/// Acts on the objects of one cluster.
pub struct KubernetesActuator {
    config: KubernetesActuatorConfig,
    client: kube::Client,
    clock: Arc<dyn Clock>,
    /// The highest that was seen.
    fence: AtomicU64,
    memory: Mutex<Memory>,
}

impl std::fmt::Debug for KubernetesActuator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesActuator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Orders that this process carried out, and how they left the fields of their object.
#[derive(Debug, Default)]
struct Memory {
    done: BTreeMap<String, Option<Fields>>,
    oldest: VecDeque<String>,
}

/// One operation under way.
struct Context<'a> {
    door: Door,
    config: &'a KubernetesActuatorConfig,
    memory: &'a Mutex<Memory>,
    /// When it began, by the caller's clock.
    now: Timestamp,
    /// Time in which the world should have followed: shorter than the time in which an answer must be there.
    patience: Duration,
}

/// Patience with what should be on its way.
struct Waiting {
    until: tokio::time::Instant,
}

impl Waiting {
    /// Waits a little before it is looked at again. `Err` with what was seen last, once patience is at its end.
    async fn on(&self, seen: String) -> Result<(), String> {
        if tokio::time::Instant::now() + POLL > self.until {
            return Err(seen);
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

fn answer(outcome: ActionOutcome, detail: String, image: Image) -> Answer {
    Answer { outcome, detail, image }
}

impl Context<'_> {
    fn remembers(&self, key: &str) -> bool {
        self.memory.lock().done.contains_key(key)
    }

    fn left(&self, key: &str) -> Option<Fields> {
        self.memory.lock().done.get(key).cloned().flatten()
    }

    fn remember(&self, key: &str, left: Option<Fields>) {
        let mut memory = self.memory.lock();
        if memory.done.insert(key.to_owned(), left).is_none() {
            memory.oldest.push_back(key.to_owned());
        }
        while memory.oldest.len() > REMEMBERED_MAX {
            if let Some(key) = memory.oldest.pop_front() {
                memory.done.remove(&key);
            }
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(POLL).await;
    }

    /// Time in which the world should follow.
    fn wait(&self) -> Waiting {
        Waiting { until: tokio::time::Instant::now() + self.patience }
    }

    /// Whether anything may be written there: the allow-list, and nodes only where they are allowed.
    fn may_write(&self, place: &Place) -> Result<(), ActError> {
        let allowed = self.config.namespaces.contains(&place.namespace);
        let fine = if place.kind.namespaced { allowed } else { place.kind == &place::NODE && self.config.nodes };
        if fine {
            return Ok(());
        }
        let what = place.label();
        Err(ActError::Refused(if place.kind == &place::NODE {
            format!("write {what}: nodes are not changed; set `nodes = true` to allow it")
        } else if self.config.namespaces.is_empty() {
            format!("write {what}: this actuator only looks; list `{}` in `namespaces` to allow it", place.namespace)
        } else {
            format!("write {what}: `{}` is not in `namespaces`", place.namespace)
        }))
    }

    /// Tries a change without effect: on the server where we may write there, else by its schema. Says how.
    async fn try_patch(&self, place: &Place, read: &Value, wanted: &Value, patch: &Value) -> Result<String, ActError> {
        match self.cannot(place, "patch").await? {
            None => {
                let tried = self.door.patch(place, patch, Mode::Dry).await;
                tried.map_err(|e| match e.is_conflict() {
                    true => ActError::NotDone(format!("try to write {}: {}", place.label(), e.text)),
                    false => e.write(&place.label()),
                })?;
                Ok("dry_run: server".to_owned())
            }
            Some(why) => {
                schema::check(self, place, read, wanted).await.map_err(ActError::Refused)?;
                Ok(format!("dry_run: local ({why})"))
            }
        }
    }

    /// Tries to make an object, as [`Self::try_patch`].
    async fn try_create(&self, place: &Place, object: &Value) -> Result<String, ActError> {
        match self.cannot(place, "create").await? {
            None => {
                self.door.create(place, object, Mode::Dry).await.map_err(|e| e.write(&place.label()))?;
                Ok("dry_run: server".to_owned())
            }
            Some(why) => {
                schema::check(self, place, &Value::Null, object).await.map_err(ActError::Refused)?;
                Ok(format!("dry_run: local ({why})"))
            }
        }
    }

    /// Why we could not write there; `None`: we could.
    async fn cannot(&self, place: &Place, verb: &str) -> Result<Option<String>, ActError> {
        if let Err(ActError::Refused(why)) = self.may_write(place) {
            return Ok(Some(why));
        }
        let allowed = rights::allowed(&self.door, verb, place).await?;
        Ok((!allowed).then(|| format!("no right to {verb} {}", place.label())))
    }
}

impl KubernetesActuator {
    fn deed(action: ActionType, target: &EntityId) -> Option<Box<dyn Deed>> {
        use ActionType as A;
        let kind = target.kind_str();
        Some(match action {
            A::ScaleDeployment | A::CostScaleDown => Box::new(autoscale::Scale { down: action == A::CostScaleDown }),
            A::AdjustAutoscaler => Box::new(autoscale::Bounds),
            A::RestartPods => Box::new(workload::Restart),
            A::RollbackDeploy => Box::new(history::Rollback),
            A::PatchResources if matches!(kind, "persistentvolumeclaim" | "pvc") => Box::new(claim::Expand),
            A::PatchResources => Box::new(workload::Resources),
            A::SetImage => Box::new(workload::SetImage),
            A::PauseRollout => Box::new(workload::Pause { on: true }),
            A::ResumeRollout => Box::new(workload::Pause { on: false }),
            A::CordonNode => Box::new(node::Cordon { on: true }),
            A::UncordonNode => Box::new(node::Cordon { on: false }),
            A::ToggleFeature => Box::new(flags::Toggle),
            A::AdjustRouting => Box::new(route::Weights),
            A::GitopsSync => Box::new(argo::Sync { back: false }),
            A::GitopsRollback => Box::new(argo::Sync { back: true }),
            A::DrainNode
            | A::FailoverDb
            | A::DeletePod
            | A::RunJob
            | A::PolicyException
            | A::HelmRollback
            | A::ManualReview
            | A::RecycleConnections
            | A::LimitTraffic => return None,
        })
    }

    fn context(&self, left: Duration) -> Context<'_> {
        let margin = (left / 4).min(Duration::from_secs(3));
        Context {
            door: Door::new(self.client.clone()),
            config: &self.config,
            memory: &self.memory,
            now: self.clock.now(),
            patience: left.saturating_sub(margin),
        }
    }

    async fn read(&self, cx: &Context<'_>, target: &EntityId, action: ActionType) -> Result<Image, ActError> {
        match action {
            ActionType::DrainNode => node::look_drain(cx, target).await,
            ActionType::DeletePod => pods::look_stuck(cx, target).await,
            ActionType::RunJob => job::look(cx, target).await,
            ActionType::PolicyException => policy::look(cx, target).await,
            ActionType::HelmRollback => helm::look(cx, target).await,
            ActionType::FailoverDb => database::look(cx, target).await,
            _ => match Self::deed(action, target) {
                Some(deed) => edit::look(deed.as_ref(), cx, target).await,
                None => Err(ActError::Refused(format!("look for {action}: it is not done on Kubernetes"))),
            },
        }
    }

    async fn carry_out(&self, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
        match action.action {
            ActionType::DrainNode => node::drain(cx, action).await,
            ActionType::DeletePod => pods::delete_stuck(cx, action).await,
            ActionType::RunJob => job::perform(cx, action).await,
            ActionType::PolicyException => policy::perform(cx, action).await,
            ActionType::HelmRollback => helm::perform(cx, action).await,
            ActionType::FailoverDb => database::perform(cx, action).await,
            ActionType::GitopsSync | ActionType::GitopsRollback if action.operation == Operation::Undo => {
                argo::undo(&argo::Sync { back: action.action == ActionType::GitopsRollback }, cx, action).await
            }
            ActionType::RestartPods if pods::only_failing(action) => pods::replace_failing(cx, action).await,
            _ => match Self::deed(action.action, &action.target) {
                Some(deed) => edit::perform(deed.as_ref(), cx, action).await,
                None => Err(ActError::Refused(format!("{}: it is not done on Kubernetes", action.action))),
            },
        }
    }

    /// Takes away what was allowed for a time and whose time is over: policy exceptions of ours. To be called every
    /// minute or so; says what went.
    ///
    /// # Errors
    /// When the exceptions of a namespace cannot be read or deleted; the others were seen to.
    pub async fn end_expired(&self) -> Result<Vec<String>, ActError> {
        let cx = self.context(Duration::from_secs(self.config.look_secs));
        policy::end_expired(&cx).await
    }
}

#[async_trait]
impl Actuator for KubernetesActuator {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn declares(&self) -> Declares {
        Declares { idempotent: true, observable: true, dry_run: true, canary: true }
    }

    fn handles(&self, action: ActionType, target: &EntityId) -> bool {
        use ActionType as A;
        let kind = target.kind_str();
        let workload = matches!(kind, "deployment" | "statefulset" | "daemonset" | "service" | "workload" | "pod");
        let node = matches!(kind, "node" | "host");
        if target.cluster() != self.config.cluster {
            return false;
        }
        match action {
            A::ScaleDeployment | A::CostScaleDown => workload && kind != "daemonset",
            A::AdjustAutoscaler => workload || matches!(kind, "horizontalpodautoscaler" | "hpa"),
            A::RestartPods | A::RollbackDeploy | A::SetImage | A::PauseRollout | A::ResumeRollout => workload,
            A::PatchResources => workload || matches!(kind, "persistentvolumeclaim" | "pvc"),
            A::CordonNode | A::UncordonNode | A::DrainNode => node,
            A::ToggleFeature => workload || kind == "configmap",
            A::AdjustRouting => kind == "httproute" || kind == "service",
            A::GitopsSync | A::GitopsRollback => workload || kind == "application",
            A::FailoverDb => matches!(kind, "database" | "cluster"),
            A::DeletePod => kind == "pod",
            A::RunJob => !node,
            A::PolicyException => workload || matches!(kind, "job" | "cronjob"),
            A::HelmRollback => self.config.helm_rollback && (workload || matches!(kind, "release" | "helmrelease")),
            A::ManualReview | A::RecycleConnections | A::LimitTraffic => false,
        }
    }

    async fn look(&self, target: &EntityId, action: ActionType) -> Result<Image, ActError> {
        if !self.handles(action, target) {
            let kind = target.kind_str();
            return Err(ActError::Refused(format!(
                "look for {action} on a {kind}: that is not done on Kubernetes here"
            )));
        }
        let limit = Duration::from_secs(self.config.look_secs.clamp(1, 60));
        let cx = self.context(limit);
        let late = |_| ActError::NotDone(format!("read {}: no answer in {} s", target.name(), limit.as_secs()));
        tokio::time::timeout(limit, self.read(&cx, target, action)).await.map_err(late)?
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        let what = || format!("{} of {} on {}", action.operation, action.action, action.target.name());
        if action.synthetic {
            return Err(ActError::Refused(format!(
                "{}: made by a test injection, nothing of it is carried out",
                what()
            )));
        }
        if !self.handles(action.action, &action.target) {
            return Err(ActError::Refused(format!("{}: it is not configured to", what())));
        }
        let seen = self.fence.fetch_max(action.fence, Ordering::SeqCst);
        if action.fence < seen {
            let own = action.fence;
            return Err(ActError::Refused(format!("carry out an order of fence {own}: {seen} was seen")));
        }
        let left = action.deadline.since(self.clock.now());
        if left.is_zero() {
            return Err(ActError::NotDone(format!("begin {}: its deadline has passed", action.operation)));
        }
        let cx = self.context(left);
        match tokio::time::timeout(left, self.carry_out(&cx, action)).await {
            Ok(done) => done,
            Err(_) if cx.door.wrote() && action.operation.changes() => {
                Err(ActError::Uncertain(format!("{}: no answer until the deadline", what())))
            }
            Err(_) => Err(ActError::NotDone(format!("{}: nothing was sent until the deadline", what()))),
        }
    }
}

/// A canary of something that cannot be done in part.
fn whole_only(action: &Action) -> Result<(), ActError> {
    if action.operation == Operation::Canary {
        let what = action.action;
        return Err(ActError::Refused(format!("{what}: it cannot be done in part; leave `canary` out of the step")));
    }
    Ok(())
}
