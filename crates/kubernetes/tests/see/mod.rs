//! A throwaway API server for tests that see, and writing objects to it as cases have them.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod running;

use http::Request;
use nightshift_cluster::{ObjectRef, Resource};
use nightshift_kubernetes::{Access, ApiServer};
use nightshift_model::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The system's clock.
#[expect(clippy::disallowed_methods, reason = "objects on a real server have real times")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// An API server of our own; it is ended, with its data, when this is dropped.
pub(crate) struct Api {
    pub(crate) server: ApiServer,
    pub(crate) kubeconfig: std::path::PathBuf,
    script: String,
    name: String,
    /// Writes at a time.
    writes: Arc<Semaphore>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.script("stop");
    }
}

/// What came of writing the objects of a case.
#[derive(Default)]
pub(crate) struct Put {
    /// What was made beside the case's own namespace, in order: its path and its name.
    pub(crate) made: Vec<(String, ObjectRef)>,
    /// What the server refused, with its words.
    pub(crate) refused: Vec<String>,
}

/// The namespace that an object is in.
pub(crate) fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

/// Whether the object is the namespace itself.
pub(crate) fn is_own_namespace(object: &Value, namespace: &str) -> bool {
    object["kind"] == "Namespace" && object["metadata"]["name"] == namespace
}

/// Whether two are the same object.
pub(crate) fn is_same(a: &Value, b: &Value) -> bool {
    let key = |o: &Value| (o["kind"].clone(), o["metadata"]["namespace"].clone(), o["metadata"]["name"].clone());
    key(a) == key(b) && type_of(a).0 == type_of(b).0
}

impl Api {
    /// Starts one. `None`, said loudly, where there is no test control plane.
    pub(crate) async fn start(name: &str) -> Option<Self> {
        let Ok(script) = std::env::var("NIGHTSHIFT_TEST_KUBE_SERVER") else {
            eprintln!("SKIPPED: NIGHTSHIFT_TEST_KUBE_SERVER is not set; run: testenv/up kubernetes");
            return None;
        };
        let name = format!("{name}-{}", std::process::id());
        let kubeconfig = run(&script, &["start", &name]).expect("the API server starts");
        let kubeconfig = std::path::PathBuf::from(kubeconfig.trim());
        let access = Access { kubeconfig: Some(kubeconfig.clone()), ..Access::default() };
        let server = ApiServer::find(&access).await.unwrap();
        Some(Self { server, kubeconfig, script, name, writes: Arc::new(Semaphore::new(8)) })
    }

    /// `kill`, `restart` or `stop`.
    pub(crate) fn script(&self, command: &str) {
        drop(run(&self.script, &[command, &self.name]));
    }

    /// Sends a request; the answer, or the server's refusal in words.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", form).body(body).unwrap();
        let _turn = self.writes.acquire().await.unwrap();
        let text = self.server.client().request_text(request).await.map_err(|e| match e {
            kube::Error::Api(status) => format!("{} {}", status.code, status.message),
            other => other.to_string(),
        })?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }

    /// Defines the kinds of other software that objects are of, without a schema.
    pub(crate) async fn define(&self, objects: &[Value]) {
        let mut kinds: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for object in objects {
            let (group, version, kind) = type_of(object);
            let built_in = Resource::find(&group, &kind).is_some() && !group.starts_with("gateway.");
            let versions = kinds.entry((group, kind)).or_default();
            if !built_in && !versions.contains(&version) {
                versions.push(version);
            }
        }
        kinds.retain(|_, versions| !versions.is_empty());
        for ((group, kind), versions) in &kinds {
            let (plural, namespaced) = (plural(group, kind), is_namespaced(group, kind));
            let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
            let versions: Vec<Value> = versions
                .iter()
                .enumerate()
                .map(|(i, v)| json!({"name": v, "served": true, "storage": i == 0, "schema": schema, "subresources": {"status": {}}}))
                .collect();
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.{group}"),
                    "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
                "spec": {"group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
                    "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind}, "versions": versions},
            });
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            self.send("POST", path, &definition).await.unwrap();
        }
        // A definition is served a little after it is accepted.
        for (group, kind) in kinds.keys() {
            let version = objects.iter().map(type_of).find(|(g, _, k)| g == group && k == kind).unwrap().1;
            let path = format!("/apis/{group}/{version}/{}", plural(group, kind));
            for _ in 0..100 {
                if self.send("GET", &path, &Value::Null).await.is_ok() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }

    /// Writes the objects of a case: what others refer to first, statuses through their subresource, deletions as
    /// deletions.
    pub(crate) async fn put_all(&self, own: &str, objects: Vec<Value>) -> Put {
        let mut put = Put::default();
        let mut uids: BTreeMap<String, String> = BTreeMap::new();
        let (spaces, mut rest): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| o["kind"] == "Namespace");
        let mut names: Vec<String> = rest.iter().filter_map(namespace).map(str::to_owned).collect();
        names.push(own.to_owned());
        names.retain(|n| !spaces.iter().any(|s| s["metadata"]["name"] == n.as_str()));
        names.sort();
        names.dedup();
        let plain = names.iter().map(|n| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}}));
        // A namespace that is on its way out takes nothing new in: it is deleted last.
        let (leaving, staying): (Vec<_>, Vec<_>) =
            spaces.into_iter().partition(|s| !s["metadata"]["deletionTimestamp"].is_null());
        for mut space in plain.chain(staying).chain(leaving.iter().cloned()) {
            space["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
            self.put(own, space, &mut uids, &mut put).await;
        }
        rest.sort_by_key(rank);
        for object in rest {
            self.put(own, object, &mut uids, &mut put).await;
        }
        for space in leaving {
            let path = path(&space, true);
            if let Err(e) = self.send("DELETE", &path, &Value::Null).await {
                put.refused.push(format!("delete {path}: {e}"));
            }
            self.status(&space, &mut put).await;
        }
        put
    }

    async fn put(&self, own: &str, mut object: Value, uids: &mut BTreeMap<String, String>, put: &mut Put) {
        uid_of(&mut object, uids);
        let deleted = object["metadata"].as_object_mut().and_then(|m| m.remove("deletionTimestamp")).is_some();
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
        let what = format!(
            "{}/{}",
            object["kind"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default()
        );
        let made = match self.send("POST", &path(&object, false), &object).await {
            Ok(made) => made,
            // One that every cluster has, or that another variant made: it is made to be as this one wants it.
            Err(e) if e.starts_with("409") && object["kind"] == "Namespace" => {
                self.send("PATCH", &path(&object, true), &object).await.unwrap_or_default()
            }
            Err(e) => {
                put.refused.push(format!("{what}: {e}"));
                return;
            }
        };
        if let Some(uid) = made["metadata"]["uid"].as_str() {
            uids.insert(what.clone(), uid.to_owned());
        }
        if !is_own_namespace(&object, own) {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let kind = object["kind"].as_str().unwrap_or_default();
            put.made.push((path(&object, true), ObjectRef::new(kind, text("namespace"), text("name"))));
        }
        self.status(&object, put).await;
        if deleted {
            let grace = grace.map_or(Value::Null, |g| json!({"gracePeriodSeconds": g}));
            if let Err(e) = self.send("DELETE", &path(&object, true), &grace).await {
                put.refused.push(format!("delete {what}: {e}"));
            }
        }
    }

    async fn status(&self, object: &Value, put: &mut Put) {
        if object["status"].is_null() {
            return;
        }
        let path = format!("{}/status", path(object, true));
        let patch = json!({"status": object["status"]});
        if let Err(e) = self.send("PATCH", &path, &patch).await {
            put.refused.push(format!("{path}: {e}"));
        }
    }

    /// Removes what was made, newest first, and the namespace: no controller does it here.
    pub(crate) async fn remove(&self, own: &str, put: Put) {
        for (path, object) in
            put.made.into_iter().rev().chain([(format!("/api/v1/namespaces/{own}"), ObjectRef::default())])
        {
            // A namespace that every cluster has stays.
            if ["default", "kube-system", "kube-public", "kube-node-lease"].contains(&object.name.as_str())
                && object.kind == "Namespace"
            {
                continue;
            }
            drop(self.send("PATCH", &path, &json!({"metadata": {"finalizers": null}})).await);
            drop(self.send("DELETE", &path, &json!({"gracePeriodSeconds": 0})).await);
            if let Some(name) = path.strip_prefix("/api/v1/namespaces/").filter(|n| !n.contains('/')) {
                let gone = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}});
                drop(self.send("PUT", &format!("{path}/finalize"), &gone).await);
            }
        }
    }
}

fn run(script: &str, args: &[&str]) -> Option<String> {
    let done = std::process::Command::new(script).args(args).stdin(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

fn type_of(object: &Value) -> (String, String, String) {
    let api = object["apiVersion"].as_str().unwrap_or("v1");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    (group.to_owned(), version.to_owned(), object["kind"].as_str().unwrap_or_default().to_owned())
}

fn plural(group: &str, kind: &str) -> String {
    let lower = kind.to_lowercase();
    match Resource::find(group, kind) {
        Some(resource) => resource.plural().to_owned(),
        None if lower.ends_with('y') => format!("{}ies", &lower[..lower.len() - 1]),
        None => format!("{}s", lower.trim_end_matches('s')),
    }
}

fn is_namespaced(group: &str, kind: &str) -> bool {
    let whole = ["ClusterPolicy", "ClusterPolicyReport", "ClusterReport", "ClusterIssuer", "CustomResourceDefinition"];
    Resource::find(group, kind).map_or(!whole.contains(&kind), Resource::namespaced)
}

/// Path of the object, or of the list that it goes into.
fn path(object: &Value, whole: bool) -> String {
    let (group, version, kind) = type_of(object);
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let space = match namespace(object).filter(|_| is_namespaced(&group, &kind)) {
        Some(namespace) => format!("/namespaces/{namespace}"),
        None => String::new(),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = if whole { format!("/{name}") } else { String::new() };
    format!("{base}{space}/{}{name}", plural(&group, &kind))
}

/// What must be there before what: owners before what they own, and what can refuse others last.
fn rank(object: &Value) -> u8 {
    match object["kind"].as_str().unwrap_or_default() {
        "ReplicaSet" | "Job" => 2,
        "Pod" => 3,
        "Event" => 4,
        "ResourceQuota" | "LimitRange" => 5,
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => 6,
        _ => 1,
    }
}

/// Puts real uids where a case names the object that has them.
fn uid_of(value: &mut Value, uids: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(named) = text.strip_prefix("UID_OF/") {
                *text = uids.get(named).cloned().unwrap_or_else(|| "00000000-0000-4000-8000-000000000000".into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| uid_of(v, uids)),
        Value::Object(map) => map.values_mut().for_each(|v| uid_of(v, uids)),
        _ => {}
    }
}
