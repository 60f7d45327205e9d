//! The Kubernetes source while the API server forgets versions, is too busy, breaks, refuses some kinds, or no longer
//! takes the token.
//!
//! What a real server does only when it is made to (410, 429, 5xx) comes from a proxy before a real one. Needs
//! `NIGHTSHIFT_TEST_KUBE_SERVER` (`testenv/up kubernetes`); without, it says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod see;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use nightshift_cluster::{Options, scan};
use nightshift_health::Health;
use nightshift_kubernetes::scan::{LookOptions, look};
use nightshift_kubernetes::{Access, ApiServer};
use nightshift_model::Phase;
use parking_lot::Mutex;
use see::Api;
use see::running::{Running, crash, crashing, fine, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const POD_STATUS: &str = "/api/v1/namespaces/shop/pods/web-1-x/status";
const PODS: &str = "/api/v1/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const WEB: &str = "eu/deployment/shop/web";
const API: &str = "eu/deployment/shop/api";

/// What the proxy answers itself, given the path with its query and how often that path was asked before.
type Plan = Box<dyn Fn(&str, usize) -> Option<Response> + Send + Sync>;

/// Stands before a real API server, and spoils what it is told to.
struct Proxy {
    client: kube::Client,
    plan: Mutex<Plan>,
    /// Every request, when it came, and whether the plan answered it.
    asked: Mutex<Vec<(String, Instant, bool)>>,
    /// Ends the streams that run when it changes.
    cut: watch::Sender<u32>,
    _folder: tempfile::TempDir,
    kubeconfig: PathBuf,
}

impl Proxy {
    async fn start(api: &Api, plan: Plan) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let proxy = Arc::new(Self {
            client: api.server.client().clone(),
            plan: Mutex::new(plan),
            asked: Mutex::default(),
            cut: watch::channel(0).0,
            _folder: folder,
            kubeconfig,
        });
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&proxy));
        tokio::spawn(async move { axum::serve(listener, app).await });
        proxy
    }

    /// Goes by another plan from here on; streams that run end.
    fn spoil(&self, plan: Plan) {
        *self.plan.lock() = plan;
        self.asked.lock().clear();
        self.cut.send_modify(|n| *n += 1);
    }

    /// Requests since the last plan, of whose path the test holds: when each came.
    fn asked(&self, test: impl Fn(&str, bool) -> bool) -> Vec<Instant> {
        self.asked.lock().iter().filter(|(path, _, spoiled)| test(path, *spoiled)).map(|(_, at, _)| *at).collect()
    }
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let now = Instant::now();
    let spoiled = {
        let before = proxy.asked.lock().iter().filter(|(p, ..)| *p == path).count();
        (proxy.plan.lock())(&path, before)
    };
    proxy.asked.lock().push((path.clone(), now, spoiled.is_some()));
    if let Some(answer) = spoiled {
        return answer;
    }
    let mut cut = proxy.cut.subscribe();
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut onward = http::Request::builder().method(head.method).uri(path);
    for name in ["accept", "content-type"] {
        if let Some(value) = head.headers.get(name) {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.body(kube::client::Body::from(body.to_vec())).unwrap();
    match proxy.client.send(onward).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            let ended = async move { drop(cut.changed().await) };
            let stream = Body::new(body).into_data_stream().take_until(ended);
            let mut out = Response::builder().status(head.status);
            if let Some(value) = head.headers.get("content-type") {
                out = out.header("content-type", value);
            }
            out.body(Body::from_stream(stream)).unwrap()
        }
        Err(_) => answer(502, ""),
    }
}

fn answer(status: u16, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}

fn is_watch(path: &str, of: &str) -> bool {
    path.split('?').next() == Some(of) && path.contains("watch=true")
}

fn is_list(path: &str, of: &str) -> bool {
    path.split('?').next() == Some(of) && !path.contains("watch=true")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_the_server_forgot_is_a_new_list_and_nothing_is_lost_or_told_twice() {
    let Some(api) = Api::start("see-gone").await else { return };
    crashing(&api, "web").await;
    let proxy = Proxy::start(&api, Box::new(|_, _| None)).await;
    let running = Running::start(&proxy.kubeconfig, "eu", false);
    until("the crash loop is told", || (running.phases(WEB, Phase::Open) == 1).then_some(())).await;
    until("it is well", || (running.test.health().status == Health::Healthy).then_some(())).await;

    // Both ways to say 410: as an event of the stream, and as the answer. Until told otherwise no new list is given.
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": "Expired", "code": 410, "message": "too old resource version"}});
    let line = format!("{gone}\n");
    proxy.spoil(Box::new(move |path, _| match path {
        p if is_watch(p, PODS) => Some(answer(200, &line)),
        p if is_watch(p, DEPLOYMENTS) => Some(answer(410, &gone["object"].to_string())),
        p if is_list(p, PODS) || is_list(p, DEPLOYMENTS) => Some(answer(503, "")),
        _ => None,
    }));
    until("the list of pods is asked for", || (!proxy.asked(|p, _| is_list(p, PODS)).is_empty()).then_some(())).await;
    // What happens meanwhile is in no watch.
    api.send("PATCH", POD_STATUS, &json!({"status": fine()})).await.unwrap();
    crashing(&api, "api").await;
    proxy.spoil(Box::new(|_, _| None));
    until("what broke meanwhile is told", || (running.phases(API, Phase::Open) == 1).then_some(())).await;
    until("what was healed meanwhile is over", || (running.phases(WEB, Phase::Closed) == 1).then_some(())).await;
    until("it is well", || (running.test.health().status == Health::Healthy).then_some(())).await;
    assert!(!proxy.asked(|p, spoiled| is_list(p, PODS) && !spoiled).is_empty());
    assert!(!proxy.asked(|p, spoiled| is_list(p, DEPLOYMENTS) && !spoiled).is_empty());
    // And the watches after it tell what comes.
    api.send("PATCH", POD_STATUS, &json!({"status": crash(6)})).await.unwrap();
    until("it is told again", || (running.phases(WEB, Phase::Open) == 2).then_some(())).await;
    let told = |entity, phase| running.phases(entity, phase);
    assert_eq!((told(WEB, Phase::Open), told(WEB, Phase::Closed)), (2, 1));
    assert_eq!((told(API, Phase::Open), told(API, Phase::Closed)), (1, 0));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_or_breaks_is_asked_again_when_it_says_and_nothing_is_told_twice() {
    let Some(api) = Api::start("see-busy").await else { return };
    crashing(&api, "web").await;
    // Every question is turned away, then fails, then is answered.
    let busy = || Response::builder().status(429).header("retry-after", "2").body(Body::empty()).unwrap();
    let plan = move |_: &str, before: usize| match before {
        0 => Some(busy()),
        1 => Some(answer(503, "")),
        2 => Some(answer(500, "<html>broken</html>")),
        _ => None,
    };
    let proxy = Proxy::start(&api, Box::new(plan)).await;
    let running = Running::start(&proxy.kubeconfig, "eu", false);
    until("the crash loop is told", || (running.phases(WEB, Phase::Open) == 1).then_some(())).await;
    let pods = proxy.asked(|p, _| is_list(p, PODS));
    assert!(pods.len() >= 4, "{pods:?}");
    assert!(pods[1] - pods[0] >= Duration::from_secs(2), "asked again before the time that the server said");
    until("it is well", || (running.test.health().status == Health::Healthy).then_some(())).await;

    // A burst while it watches: everything fails, until it ends.
    proxy.spoil(Box::new(|_, before| Some(answer(if before % 2 == 0 { 500 } else { 503 }, ""))));
    until("a watch fails", || (!proxy.asked(|p, _| is_watch(p, PODS)).is_empty()).then_some(())).await;
    until("it is said", || (running.test.health().status != Health::Healthy).then_some(())).await;
    let detail = running.test.health().detail;
    assert!(detail.contains("500") || detail.contains("503"), "{detail}");
    crashing(&api, "api").await;
    proxy.spoil(Box::new(|_, _| None));
    until("what broke meanwhile is told", || (running.phases(API, Phase::Open) == 1).then_some(())).await;
    until("it is well", || (running.test.health().status == Health::Healthy).then_some(())).await;
    assert_eq!((running.phases(WEB, Phase::Open), running.phases(WEB, Phase::Closed)), (1, 0));
    assert_eq!((running.phases(API, Phase::Open), running.phases(API, Phase::Closed)), (1, 0));
    running.end().await;
}

/// A kubeconfig for a service account, with its token in a file.
async fn account(api: &Api, folder: &std::path::Path, token: &str) -> PathBuf {
    let text = std::fs::read_to_string(&api.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    let file = folder.join("token");
    std::fs::write(&file, token).unwrap();
    let user = config["contexts"][0]["context"]["user"].clone();
    config["users"] = json!([{"name": user, "user": {"tokenFile": file}}]);
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A service account of `shop` that may list and watch these kinds: group and plurals.
async fn watcher(api: &Api, rules: Value) {
    let kinds: Vec<Value> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|r| json!({"apiGroups": [r[0]], "resources": r[1], "verbs": ["get", "list", "watch"]}))
        .collect();
    let rbac = "rbac.authorization.k8s.io";
    let objects = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "watcher", "namespace": "shop"}}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "watcher"}, "rules": kinds}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "watcher"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "watcher"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "watcher"}]}),
    ];
    for object in objects {
        let plural = match object["kind"].as_str().unwrap() {
            "ServiceAccount" => "/api/v1/namespaces/shop/serviceaccounts".to_owned(),
            kind => format!("/apis/{rbac}/v1/{}s", kind.to_lowercase()),
        };
        api.send("POST", &plural, &object).await.unwrap();
    }
}

/// A token of it, good for as long as the secret is there.
async fn token(api: &Api, secret: &str) -> String {
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": "shop"}});
    let made = api.send("POST", "/api/v1/namespaces/shop/secrets", &object).await.unwrap();
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": made["metadata"]["uid"]});
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "boundObjectRef": bound}});
    let got = api.send("POST", "/api/v1/namespaces/shop/serviceaccounts/watcher/token", &ask).await.unwrap();
    got["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_that_are_refused_are_said_and_the_rest_is_seen() {
    let Some(api) = Api::start("see-rights").await else { return };
    crashing(&api, "web").await;
    watcher(&api, json!([["", ["pods", "namespaces"]], ["apps", ["deployments", "replicasets"]]])).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = account(&api, folder.path(), &token(&api, "first").await).await;
    let running = Running::start(&kubeconfig, "eu", true);
    until("the crash loop is told", || (running.phases(WEB, Phase::Open) == 1).then_some(())).await;
    let health = until("what cannot be seen is said", || {
        Some(running.test.health()).filter(|h| h.detail.contains("cannot see") && h.detail.contains("Secret"))
    })
    .await;
    assert_eq!(health.status, Health::Degraded, "{}", health.detail);
    for kind in ["ConfigMap", "Node", "Service", "Event"] {
        assert!(health.detail.contains(kind) && health.detail.contains("forbidden"), "{kind}: {}", health.detail);
    }
    assert!(!health.detail.contains("Deployment") && !health.detail.contains("Pod,"), "{}", health.detail);
    // Nothing is concluded from what is not seen: this is all that is told.
    let told: Vec<String> = running.alerts().iter().map(|a| a.entity.id.to_string()).collect();
    assert_eq!(told, [WEB]);

    // A right that is taken away: a fault that is seen no more is not over, also when it is.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/watcher";
    let rights = api.send("GET", role, &Value::Null).await.unwrap()["rules"].clone();
    api.send("PATCH", role, &json!({"rules": [rights[1]]})).await.unwrap();
    api.script("kill");
    api.script("restart");
    until("pods are said to be refused", || {
        let detail = running.test.health().detail;
        detail.split("; ").any(|part| part.contains(" Pod,") && part.ends_with(": forbidden")).then_some(())
    })
    .await;
    assert_eq!(running.test.health().status, Health::Degraded);
    api.send("PATCH", POD_STATUS, &json!({"status": fine()})).await.unwrap();
    // Longer than it takes to call a fault over that is gone.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.phases(WEB, Phase::Closed), 0, "a fault was closed while nobody could see");
    api.send("PATCH", role, &json!({"rules": rights})).await.unwrap();
    until("the fault is over", || (running.phases(WEB, Phase::Closed) == 1).then_some(())).await;
    assert_eq!(running.phases(WEB, Phase::Open), 1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_look_with_rights_in_one_namespace_sees_that_and_says_what_it_does_not() {
    let Some(api) = Api::start("see-narrow").await else { return };
    crashing(&api, "web").await;
    // The same fault where we may not look.
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": "bank"},
        "spec": {"containers": [{"name": "app", "image": "web:1"}], "nodeName": "n1"}, "status": crash(5)});
    assert_eq!(api.put_all("bank", vec![other]).await.refused, Vec::<String>::new());
    watcher(&api, json!([["", ["pods"]], ["apps", ["deployments", "replicasets"]]])).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    api.send("DELETE", &format!("{rbac}/clusterrolebindings/watcher"), &Value::Null).await.unwrap();
    let narrow = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "watcher"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "watcher"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "watcher"}]});
    api.send("POST", &format!("{rbac}/namespaces/shop/rolebindings"), &narrow).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = account(&api, folder.path(), &token(&api, "first").await).await;
    let server = ApiServer::find(&Access { kubeconfig: Some(kubeconfig), ..Access::default() }).await.unwrap();

    // The server learns of new rights a little later.
    let options = LookOptions { namespace: Some("shop".into()), ..LookOptions::default() };
    let mut seen = look(&server, &options).await;
    for _ in 0..100 {
        if seen.as_ref().is_ok_and(|s| s.world.pods.len() == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = look(&server, &options).await;
    }
    let sight = seen.unwrap();
    let found = scan(&sight.world, &Options::default(), see::now());
    let told: Vec<_> = found.iter().map(|f| (f.object.to_string(), f.fault.slug())).collect();
    assert_eq!(told, [("Deployment shop/web".to_owned(), "crash_loop")]);
    let unseen: Vec<&str> = sight.unseen.iter().map(|u| u.what.as_str()).collect();
    for what in ["nodes", "secrets", "configmaps", "services", "events"] {
        let why = sight.unseen.iter().find(|u| u.what == what).map(|u| u.why.clone()).unwrap_or_default();
        assert!(why.contains("forbidden"), "{what} is not said to be unseen: {unseen:?}");
    }
    assert!(!unseen.contains(&"pods") && !unseen.contains(&"deployments"), "{unseen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_exchanged_in_its_file_is_used_when_the_old_one_is_refused() {
    let Some(api) = Api::start("see-token").await else { return };
    crashing(&api, "web").await;
    watcher(&api, json!([["*", ["*"]]])).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = account(&api, folder.path(), &token(&api, "first").await).await;
    let running = Running::start(&kubeconfig, "eu", false);
    until("the crash loop is told", || (running.phases(WEB, Phase::Open) == 1).then_some(())).await;

    // The old token dies with what it was bound to; a restart ends the streams that it opened.
    api.send("DELETE", "/api/v1/namespaces/shop/secrets/first", &Value::Null).await.unwrap();
    api.script("kill");
    until("it is said to be away", || (running.test.health().status == Health::Unhealthy).then_some(())).await;
    api.script("restart");
    until("the old token is refused", || running.test.health().detail.contains("401").then_some(())).await;
    assert_eq!(running.test.health().status, Health::Unhealthy);
    std::fs::write(folder.path().join("token"), token(&api, "second").await).unwrap();
    until("the new token is used", || (running.test.health().status == Health::Healthy).then_some(())).await;
    crashing(&api, "api").await;
    until("what comes is told", || (running.phases(API, Phase::Open) == 1).then_some(())).await;
    assert_eq!((running.phases(WEB, Phase::Open), running.phases(WEB, Phase::Closed)), (1, 0));
    running.end().await;
}
