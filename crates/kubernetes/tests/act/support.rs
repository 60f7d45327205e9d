//! A namespace of our own on the test control plane, orders for it, and what was really sent.

use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use nightshift_act::conformance::{Order as _, order};
use nightshift_act::{Actuator as _, Answer, KubernetesActuatorConfig};
use nightshift_kubernetes::act::{KubernetesActuator, build};
use nightshift_model::{Action, ActionOutcome, ActionType, EntityId, Image, ManualClock, Operation, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const CLUSTER: &str = "test";

/// The system's clock.
#[expect(clippy::disallowed_methods, reason = "objects on a real server have real times")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// Changes that reached the server and were taken, with their bodies; and whether answers are kept back.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) taken: Mutex<Vec<(String, String, String)>>,
    pub(crate) hangs: AtomicBool,
}

impl Wire {
    pub(crate) fn effects(&self, key: &str) -> u32 {
        let taken = self.taken.lock();
        let wanted = format!("\"nightshift.dev/last-key\":\"{key}\"");
        u32::try_from(taken.iter().filter(|(.., body)| body.contains(&wanted)).count()).unwrap()
    }
}

/// A namespace, removed when the test is over.
pub(crate) struct Place {
    pub(crate) client: kube::Client,
    pub(crate) wire: Arc<Wire>,
    pub(crate) namespace: String,
    admin: kube::Client,
    next: AtomicU64,
}

pub(crate) async fn client_of(kubeconfig: &str) -> kube::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let files = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(files, &Default::default()).await.unwrap();
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

/// A client that notes what is written.
pub(crate) fn watched(client: kube::Client, wire: Arc<Wire>) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, wire) = (client.clone(), wire.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let (method, path) = (parts.method.to_string(), parts.uri.to_string());
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let dry =
                path.contains("dryRun=All") || text.contains("\"dryRun\":[\"All\"]") || path.contains("accessreviews");
            let answer = client.send(Request::from_parts(parts, Body::from(bytes.to_vec()))).await?;
            if method != "GET" && !dry && answer.status().is_success() {
                wire.taken.lock().push((method, path, text));
                if wire.hangs.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    kube::Client::new(service, namespace)
}

/// The control plane, or a loud word that there is none.
pub(crate) async fn admin() -> Option<kube::Client> {
    let Ok(path) = std::env::var("NIGHTSHIFT_TEST_KUBECONFIG") else {
        eprintln!("SKIPPED: NIGHTSHIFT_TEST_KUBECONFIG is not set; run: testenv/up kubernetes");
        return None;
    };
    Some(client_of(&path).await)
}

pub(crate) async fn send(client: &kube::Client, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", form).body(body).unwrap();
    let text = client.request_text(request).await.map_err(|e| match e {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => other.to_string(),
    })?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

impl Place {
    pub(crate) async fn open(name: &str) -> Option<Self> {
        let admin = admin().await?;
        let namespace = format!("act-{name}-{}", std::process::id());
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        send(&admin, "POST", "/api/v1/namespaces", &made).await.unwrap();
        let wire = Arc::new(Wire::default());
        Some(Self { client: watched(admin.clone(), wire.clone()), wire, namespace, admin, next: AtomicU64::new(1) })
    }

    pub(crate) fn config(&self) -> KubernetesActuatorConfig {
        KubernetesActuatorConfig {
            cluster: CLUSTER.into(),
            namespaces: vec![self.namespace.clone()],
            nodes: true,
            delete_stuck_pods: true,
            helm_rollback: true,
            look_secs: 20,
            ..KubernetesActuatorConfig::default()
        }
    }

    pub(crate) fn actuator(&self) -> Arc<KubernetesActuator> {
        self.actuator_with(self.config())
    }

    pub(crate) fn actuator_with(&self, config: KubernetesActuatorConfig) -> Arc<KubernetesActuator> {
        self.actuator_at(&config, now())
    }

    pub(crate) fn actuator_at(&self, config: &KubernetesActuatorConfig, now: Timestamp) -> Arc<KubernetesActuator> {
        build(config, self.client.clone(), Arc::new(ManualClock::at(now))).unwrap()
    }

    pub(crate) fn id(&self, kind: &str, name: &str) -> EntityId {
        EntityId::new(CLUSTER, kind, if kind == "node" { "" } else { &self.namespace }, name)
    }

    /// An order of its own incident, half a minute until its deadline.
    pub(crate) fn order(&self, kind: &str, name: &str, action: ActionType, params: Value) -> Action {
        let params: Image = params.as_object().unwrap().clone().into_iter().collect();
        let mut made = order(&self.id(kind, name), action, params, now());
        made.incident.0 += u128::from(self.next.fetch_add(1, Ordering::SeqCst));
        made.deadline = now() + Duration::from_secs(40);
        made.with(Operation::Apply)
    }

    pub(crate) fn path(&self, api: &str, plural: &str, name: &str) -> String {
        let root = if api == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api}") };
        let tail = if name.is_empty() { String::new() } else { format!("/{name}") };
        format!("{root}/namespaces/{}/{plural}{tail}", self.namespace)
    }

    pub(crate) async fn make(&self, plural: &str, object: Value) -> Value {
        let api = object["apiVersion"].as_str().unwrap().to_owned();
        send(&self.admin, "POST", &self.path(&api, plural, ""), &object).await.unwrap()
    }

    pub(crate) async fn patch(&self, api: &str, plural: &str, name: &str, patch: Value) -> Value {
        send(&self.admin, "PATCH", &self.path(api, plural, name), &patch).await.unwrap()
    }

    pub(crate) async fn get(&self, api: &str, plural: &str, name: &str) -> Value {
        send(&self.admin, "GET", &self.path(api, plural, name), &Value::Null).await.unwrap_or(Value::Null)
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        send(&self.admin, method, path, body).await
    }

    pub(crate) async fn workload(&self, kind: &str, name: &str, spec: Value) {
        let plural = format!("{}s", kind.to_lowercase());
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
                    "name": name, "image": "shop/web:1.8.1",
                    "resources": {"limits": {"memory": "128Mi"}, "requests": {"memory": "100Mi"}},
                    "env": [{"name": "JAVA_TOOL_OPTIONS", "value": "-Xms32m -Xmx96m"}],
                }]}},
            },
        });
        if kind != "DaemonSet" {
            object["spec"]["replicas"] = 3.into();
        }
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        self.make(&plural, object).await;
        self.steady(&plural, name).await;
    }

    /// Until it is rolled out.
    pub(crate) async fn steady(&self, plural: &str, name: &str) {
        for _ in 0..250 {
            if is_steady(plural, &self.get("apps/v1", plural, name).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{name} is not rolled out in 50 s: {:#}", self.get("apps/v1", plural, name).await["status"]);
    }

    pub(crate) async fn until<F: AsyncFn() -> bool>(&self, what: &str, done: F) {
        for _ in 0..200 {
            if done().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{what}: not in 40 s");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (client, namespace) = (self.admin.clone(), self.namespace.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Gone by itself or with the control plane: nothing waits for it.
            runtime.spawn(async move {
                drop(send(&client, "DELETE", &format!("/api/v1/namespaces/{namespace}"), &Value::Null).await);
            });
        }
    }
}

fn is_steady(plural: &str, o: &Value) -> bool {
    let (spec, status) = (&o["spec"], &o["status"]);
    let wanted = if plural == "daemonsets" { &status["desiredNumberScheduled"] } else { &spec["replicas"] };
    let has = |key: &str| status[key].as_i64().unwrap_or(0);
    let new = has("updatedReplicas").max(has("updatedNumberScheduled"));
    let ready = has("availableReplicas").max(has("numberAvailable"));
    status["observedGeneration"] == o["metadata"]["generation"]
        && wanted.as_i64().is_some_and(|w| w > 0 && new >= w && ready >= w && has("replicas").max(w) == w)
}

/// An object without what changes with every write.
pub(crate) fn plain(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        for gone in ["resourceVersion", "generation", "managedFields"] {
            meta.remove(gone);
        }
        if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.remove("deployment.kubernetes.io/revision");
            notes.remove("deprecated.daemonset.template.generation");
        }
        if meta.get("annotations").is_some_and(|a| a.as_object().is_some_and(serde_json::Map::is_empty)) {
            meta.remove("annotations");
        }
    }
    object
}

pub(crate) fn done(answer: &Answer) {
    assert!(answer.outcome.is_done(), "{:?}: {}", answer.outcome, answer.detail);
}

/// The whole way of an action on one object: a dry-run that changes nothing, an apply that does it, once; an undo that
/// gives it back exactly; a world that changed, refused.
pub(crate) async fn whole_way(
    place: &Place,
    (api, plural, name): (&str, &str, &str),
    order: Action,
    changed: impl Fn(&Value) -> bool,
    foreign: Option<Value>,
) {
    let actuator = place.actuator();
    let read = async || place.get(api, plural, name).await;
    let before = plain(read().await);
    let mut order = order;
    order.before = actuator.look(&order.target, order.action).await.unwrap();

    let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
    done(&tried);
    assert!(tried.detail.contains("dry_run: server"), "{}", tried.detail);
    assert_eq!(plain(read().await), before, "a dry-run changes nothing");
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::Failed);

    done(&actuator.perform(&order).await.unwrap());
    let after = read().await;
    assert!(changed(&after), "applied: {after:#}");
    for again in [actuator.clone(), place.actuator()] {
        done(&again.perform(&Action { attempt: 2, ..order.clone() }).await.unwrap());
    }
    assert_eq!(place.wire.effects(&order.key), 1, "a key twice is once");
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);

    // By one that knows nothing of the first.
    let undo = order.with(Operation::Undo);
    assert_eq!(place.actuator().perform(&undo.observation()).await.unwrap().outcome, ActionOutcome::Failed);
    done(&place.actuator().perform(&undo).await.unwrap());
    assert_eq!(plain(read().await), before, "an undo gives it back exactly");
    assert_eq!(place.actuator().perform(&undo.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);

    let Some(foreign) = foreign else { return };
    let mut stale = Action { step: 5, ..order.clone() }.with(Operation::Apply);
    stale.before = actuator.look(&order.target, order.action).await.unwrap();
    place.patch(api, plural, name, foreign).await;
    let refused = actuator.perform(&stale).await.unwrap_err();
    assert!(refused.to_string().contains("the world changed"), "{refused}");
    assert_eq!(place.wire.effects(&stale.key), 0);
}

/// An object by path below a pointer.
pub(crate) fn at(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or(Value::Null)
}

/// The same order with time left.
pub(crate) fn later(order: &Action) -> Action {
    Action { deadline: now() + Duration::from_secs(40), ..order.clone() }
}
