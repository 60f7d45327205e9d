//! Each kind of actuator with a world behind it, for the conformance suite and the crash tests.

use super::support::{Fake, START, image, service};
use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use nightshift_act::conformance::{World, order};
use nightshift_act::{
    ActError, Actuator, Answer, CommandAction, CommandConfig, Declares, FENCE_HEADER, KEY_HEADER, SIGNATURE_HEADER,
    WebhookConfig, sign,
};
use nightshift_model::{
    Action, ActionOutcome, ActionType, EntityId, Image, IncidentId, ManualClock, Operation, PlanHash, Timestamp,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const ALL: Declares = Declares { idempotent: true, observable: true, dry_run: true, canary: true };
pub(crate) const SECRET: &str = "0123456789abcdef";

fn six() -> Image {
    image(json!({"replicas": 6}))
}

// ---- in memory ----------------------------------------------------------------------------------------------------

#[derive(Clone)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<(Fake, bool)>>);

impl Memory {
    pub(crate) fn new(declares: Declares) -> Self {
        Self(Arc::new(Mutex::new((Fake::new(declares), false))))
    }
}

#[async_trait]
impl Actuator for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn declares(&self) -> Declares {
        self.0.lock().0.declares
    }

    fn handles(&self, action: ActionType, _target: &EntityId) -> bool {
        action != ActionType::ManualReview
    }

    async fn look(&self, target: &EntityId, _action: ActionType) -> Result<Image, ActError> {
        self.0.lock().0.images.get(target).cloned().ok_or_else(|| ActError::Refused("no such target".into()))
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        let mut world = self.0.lock();
        let answer = world.0.perform(action, START);
        if world.1 && action.operation.changes() {
            return Err(ActError::Uncertain("no answer until the deadline".into()));
        }
        answer
    }
}

#[async_trait]
impl World for Memory {
    async fn actuator(&self) -> Arc<dyn Actuator> {
        Arc::new(self.clone())
    }

    async fn order(&self) -> Action {
        order(&service("payment"), ActionType::ScaleDeployment, six(), START)
    }

    async fn image(&self) -> Image {
        self.0.lock().0.images[&service("payment")].clone()
    }

    async fn effects(&self, key: &str) -> u32 {
        self.0.lock().0.count(key)
    }

    fn now(&self) -> Timestamp {
        START
    }

    async fn hang(&self) -> bool {
        self.0.lock().1 = true;
        true
    }
}

// ---- webhook ------------------------------------------------------------------------------------------------------

/// A receiver as the docs tell one to be: it checks the signature, keeps keys and fences, and counts.
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) world: Arc<Mutex<(Fake, bool)>>,
    declares: Declares,
}

impl Receiver {
    pub(crate) async fn start(declares: Declares) -> Self {
        let world = Arc::new(Mutex::new((Fake::new(declares), false)));
        let app = Router::new().route("/orders", post(receive)).with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/orders", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, world, declares }
    }

    pub(crate) fn config(&self) -> WebhookConfig {
        let Declares { idempotent, observable, dry_run, canary } = self.declares;
        WebhookConfig {
            url: self.url.as_str().into(),
            secret: Some(SECRET.into()),
            actions: vec![ActionType::ScaleDeployment],
            idempotent,
            observable,
            dry_run,
            canary,
            ..WebhookConfig::default()
        }
    }
}

async fn receive(State(world): State<Arc<Mutex<(Fake, bool)>>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let signature = header(SIGNATURE_HEADER);
    let at = signature.strip_prefix("t=").and_then(|s| s.split_once(',')).and_then(|(t, _)| t.parse().ok());
    if at.is_none_or(|at: i64| sign(SECRET.as_bytes(), at, &body) != signature) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let posted: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(posted["version"], 1);
    let target = EntityId::parse(posted["target"]["id"].as_str().unwrap()).unwrap();
    assert_eq!(posted["target"]["name"], target.name());
    let operation = posted["operation"].as_str().unwrap();
    if operation == "look" {
        let image = world.lock().0.images.get(&target).cloned();
        return image.map_or(StatusCode::NOT_FOUND.into_response(), |image| {
            axum::Json(json!({"image": image})).into_response()
        });
    }
    assert_eq!(posted["key"], header(KEY_HEADER));
    assert_eq!(posted["fence"].to_string(), header(FENCE_HEADER));
    assert_eq!(posted["of"].is_string(), operation == "observe");
    let action = Action {
        key: posted["key"].as_str().unwrap().to_owned(),
        incident: IncidentId(0),
        plan: PlanHash::default(),
        step: posted["step"].as_u64().unwrap() as u32,
        operation: serde_json::from_value::<Operation>(posted["operation"].clone()).unwrap(),
        attempt: posted["attempt"].as_u64().unwrap() as u32,
        action: serde_json::from_value(posted["action"].clone()).unwrap(),
        target,
        actuator: "webhook".into(),
        params: serde_json::from_value(posted["params"].clone()).unwrap(),
        before: serde_json::from_value(posted["before"].clone()).unwrap(),
        fence: posted["fence"].as_u64().unwrap(),
        deadline: serde_json::from_value(posted["deadline"].clone()).unwrap(),
        synthetic: false,
    };
    let (answer, hangs) = {
        let mut world = world.lock();
        (world.0.perform(&action, START), world.1 && action.operation.changes())
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    match answer {
        Ok(Answer { outcome, detail, image }) => {
            axum::Json(json!({"outcome": outcome, "detail": detail, "image": image})).into_response()
        }
        Err(ActError::Refused(_)) => StatusCode::CONFLICT.into_response(),
        Err(_) => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

#[async_trait]
impl World for Receiver {
    async fn actuator(&self) -> Arc<dyn Actuator> {
        Arc::new(self.config().build(Arc::new(ManualClock::at(START))).unwrap())
    }

    async fn order(&self) -> Action {
        order(&service("payment"), ActionType::ScaleDeployment, six(), START)
    }

    async fn image(&self) -> Image {
        self.world.lock().0.images[&service("payment")].clone()
    }

    async fn effects(&self, key: &str) -> u32 {
        self.world.lock().0.count(key)
    }

    fn now(&self) -> Timestamp {
        START
    }

    async fn hang(&self) -> bool {
        self.world.lock().1 = true;
        true
    }
}

// ---- command ------------------------------------------------------------------------------------------------------

/// A folder that is the world, and a script that changes it: `replicas` is the target, `log` has a line per effect.
pub(crate) struct Folder {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) declares: Declares,
}

const SCRIPT: &str = r#"#!/bin/sh
set -eu
operation=$1 world=$2 key=$3 value=$4
done_() { grep -qx "$key" "$world/log"; }
case $operation in
look) printf '{"replicas": %s}\n' "$(cat "$world/replicas")" ;;
dry_run) test "$value" -gt 0 ;;
observe) if done_; then exit 0; else exit 1; fi ;;
apply | undo)
    if test -e "$world/once" && done_; then echo "done before"; exit 0; fi
    # One rename and one append: the effect and its record.
    echo "$value" >"$world/replicas.new"
    mv "$world/replicas.new" "$world/replicas"
    echo "$key" >>"$world/log"
    if test -e "$world/hang"; then sleep 600; fi
    echo "replicas $value" ;;
*) exit 2 ;;
esac
"#;

impl Folder {
    pub(crate) fn new(declares: Declares) -> Self {
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path(), declares);
        Self { dir: Arc::new(dir), declares }
    }
}

/// Puts the world into a folder.
pub(crate) fn lay_out(path: &Path, declares: Declares) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path.join("replicas"), "3\n").unwrap();
    std::fs::write(path.join("log"), "").unwrap();
    if declares.idempotent {
        std::fs::write(path.join("once"), "").unwrap();
    }
    let script = script_of(path);
    std::fs::write(&script, SCRIPT).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn script_of(path: &Path) -> PathBuf {
    path.join("scale.sh")
}

/// How often a key took effect in a folder.
pub(crate) fn count_in(path: &Path, key: &str) -> u32 {
    std::fs::read_to_string(path.join("log")).unwrap().lines().filter(|l| *l == key).count() as u32
}

/// The actuator of a folder. The script is read by the shell, so that one that was just written can be started.
pub(crate) fn command_of(path: &Path, declares: Declares) -> CommandConfig {
    let script = script_of(path).to_string_lossy().into_owned();
    let line = |operation: &str, key: &str, value: &str| {
        let world = path.to_string_lossy();
        ["/bin/sh", &script, operation, &world, key, value].map(str::to_owned).to_vec()
    };
    let when = |is: bool, argv: Vec<String>| if is { argv } else { Vec::new() };
    CommandConfig {
        programs: vec!["/bin/sh".into()],
        idempotent: declares.idempotent,
        actions: vec![CommandAction {
            action: ActionType::ScaleDeployment,
            apply: line("apply", "{key}", "{params.replicas}"),
            undo: line("undo", "{key}", "{before.replicas}"),
            look: line("look", "-", "-"),
            dry_run: when(declares.dry_run, line("dry_run", "{key}", "{params.replicas}")),
            canary: Vec::new(),
            observe: when(declares.observable, line("observe", "{key}", "-")),
        }],
        ..CommandConfig::default()
    }
}

#[async_trait]
impl World for Folder {
    async fn actuator(&self) -> Arc<dyn Actuator> {
        Arc::new(command_of(self.dir.path(), self.declares).build(Arc::new(ManualClock::at(START))).unwrap())
    }

    async fn order(&self) -> Action {
        order(&service("payment"), ActionType::ScaleDeployment, six(), START)
    }

    async fn image(&self) -> Image {
        let text = std::fs::read_to_string(self.dir.path().join("replicas")).unwrap();
        image(json!({"replicas": text.trim().parse::<u32>().unwrap()}))
    }

    async fn effects(&self, key: &str) -> u32 {
        count_in(self.dir.path(), key)
    }

    fn now(&self) -> Timestamp {
        START
    }

    async fn hang(&self) -> bool {
        std::fs::write(self.dir.path().join("hang"), "").unwrap();
        true
    }
}

/// Whether an outcome says that it is done.
pub(crate) fn is_done(answer: &Result<Answer, ActError>) -> bool {
    answer.as_ref().is_ok_and(|a| matches!(a.outcome, ActionOutcome::Done | ActionOutcome::FoundDone))
}
