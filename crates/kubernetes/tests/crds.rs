//! Custom resources and the lease on a real control plane, with the rights that the chart gives. Skipped, loudly, where
//! there is none.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use nightshift_kubernetes::crds::{
    Answer, Controller, CrdSettings, Heard, Incidents, Library, Mirror, ObjectiveAnswer, ObjectiveOrder,
    PlaybookAnswer, PlaybookSpec, PlaybookText, PolicyAnswer, PolicyText, incident_mirror,
};
use nightshift_kubernetes::lease::{Elector, LeaseSettings};
use nightshift_kubernetes::{Access, ApiServer};
use nightshift_model::{Clock, EntityId, FaultClass, Hypothesis, Incident, IncidentStatus, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

struct RealClock;

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "objects on a real server have real times")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_nanos()).unwrap())
    }
}

/// Namespaces with the chart's rights for an account, removed when the test is over.
struct Place {
    own: String,
    shop: String,
    account: PathBuf,
}

fn var(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        eprintln!("SKIPPED: {name} is not set; run: testenv/up kubernetes");
    }
    value
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn kubectl(arguments: &[&str], input: &str) -> Result<String, String> {
    let file = std::env::var("NIGHTSHIFT_TEST_KUBECONFIG").unwrap();
    let all: Vec<&str> = ["kubectl", "--kubeconfig", &file].iter().chain(arguments).copied().collect();
    run(&std::env::var("NIGHTSHIFT_TEST_KUBE").unwrap(), &all, input)
}

impl Place {
    fn open(name: &str) -> Option<Self> {
        let _ = (var("NIGHTSHIFT_TEST_KUBECONFIG")?, var("NIGHTSHIFT_TEST_KUBE")?);
        let (helm, account) = (var("NIGHTSHIFT_TEST_HELM")?, var("NIGHTSHIFT_TEST_KUBE_ACCOUNT")?);
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/nightshift");
        let crds = chart.join("crds");
        let taken =
            kubectl(&["apply", "--server-side", "--force-conflicts", "-f", crds.to_str().unwrap()], "").unwrap();
        assert_eq!(taken.lines().count(), 4, "{taken}");
        let own = format!("crds-{name}-{}", std::process::id());
        let shop = format!("{own}-shop");
        let mut place = Self { own: own.clone(), shop: shop.clone(), account: PathBuf::new() };
        for namespace in [&own, &shop] {
            kubectl(&["create", "namespace", namespace], "").unwrap();
        }
        let set = format!("customResources.objectiveNamespaces={{{shop}}}");
        let chart = chart.to_str().unwrap();
        let shown = ["-s", "templates/rbac-own.yaml", "-s", "templates/serviceaccount.yaml"];
        let mut arguments = vec!["template", "ns", chart, "-n", &own, "--set", &set];
        arguments.extend(shown);
        let rights = run(&helm, &arguments, "").unwrap();
        kubectl(&["apply", "-f", "-"], &rights).unwrap();
        let printed = run(&account, &[&own, "ns-nightshift"], "").unwrap();
        place.account = PathBuf::from(printed.trim());
        Some(place)
    }

    /// As the account, with the rights of the chart and no more.
    async fn server(&self) -> ApiServer {
        ApiServer::find(&Access { kubeconfig: Some(self.account.clone()), ..Access::default() }).await.unwrap()
    }

    fn get(&self, what: &[&str]) -> Result<String, String> {
        kubectl(&["-n", &self.own, "get"].iter().chain(what).copied().collect::<Vec<_>>(), "")
    }

    fn apply(&self, namespace: &str, object: &Value) {
        kubectl(&["-n", namespace, "apply", "-f", "-"], &object.to_string()).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(kubectl(&["delete", "namespace", "--wait=false", &self.own, &self.shop], ""));
    }
}

/// Looks until it is so; a minute is for a slow machine.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..240 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("it did not come to pass: {what}");
}

/// Judges by the types and by the fault classes that there are.
#[derive(Default)]
struct Shelf(parking_lot::Mutex<BTreeSet<String>>);

#[async_trait::async_trait]
impl Library for Shelf {
    async fn playbooks(&self, all: Vec<PlaybookText>) -> Vec<PlaybookAnswer> {
        let mut held = BTreeSet::new();
        let one = |playbook: PlaybookText| {
            let read = serde_saphyr::from_str::<PlaybookSpec>(&playbook.text).map_err(|e| vec![e.to_string()]);
            let wrong = read.and_then(|spec| {
                let known = |v: &Value| FaultClass::ALL.iter().any(|f| v == f.slug());
                let unknown: Vec<String> =
                    spec.heals.iter().filter(|v| !known(v)).map(|v| format!("heals: {v} is no fault class")).collect();
                if unknown.is_empty() { Ok(spec.name.unwrap_or_default()) } else { Err(unknown) }
            });
            match wrong {
                Ok(name) => {
                    held.insert(name);
                    PlaybookAnswer { answer: Answer::Accepted(String::new()), digest: "ab".repeat(32) }
                }
                Err(wrong) => PlaybookAnswer { answer: Answer::invalid(wrong), digest: String::new() },
            }
        };
        let answers = all.into_iter().map(one).collect();
        *self.0.lock() = held;
        answers
    }

    async fn policies(&self, all: Vec<PolicyText>) -> Vec<PolicyAnswer> {
        let one = |p: PolicyText| PolicyAnswer {
            answer: Answer::Accepted(String::new()),
            digest: "cd".repeat(32),
            package: p.rego.strip_prefix("package ").map(|r| r.split_whitespace().collect()),
            tests: Some((1, 1)),
        };
        all.into_iter().map(one).collect()
    }

    async fn objectives(&self, all: Vec<ObjectiveOrder>) -> Vec<ObjectiveAnswer> {
        let one = |o: ObjectiveOrder| ObjectiveAnswer {
            answer: Answer::Accepted(String::new()),
            entity: Some(EntityId::new("test", &o.kind, &o.key.namespace, &o.target)),
            budget_left: Some(0.625),
        };
        all.into_iter().map(one).collect()
    }
}

fn playbook(name: &str, fault: &str) -> Value {
    json!({
        "apiVersion": "nightshift.dev/v1alpha1", "kind": "Playbook", "metadata": {"name": name},
        "spec": {"title": "look at {cause}", "heals": [fault], "steps": [
            {"name": "look", "action": "manual_review", "risk": "low", "estimated_impact": "none", "params": {"n": 3}},
        ]},
    })
}

fn accepted(place: &Place, namespace: &str, what: &str) -> Option<Value> {
    let text = kubectl(&["-n", namespace, "get", what, "-o", "json"], "").ok()?;
    let object: Value = serde_json::from_str(&text).unwrap();
    let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Accepted")?.clone();
    assert!(place.own.starts_with("crds-"));
    (found["observedGeneration"] == object["metadata"]["generation"]).then_some(json!({
        "status": object["status"], "accepted": found["status"], "message": found["message"],
        "reason": found["reason"],
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_write_is_judged_and_told() {
    let Some(place) = Place::open("controller") else { return };
    let shelf = Arc::new(Shelf::default());
    let stop = CancellationToken::new();
    let (lead, leader) = watch::channel(false);
    let controller = Controller {
        server: place.server().await,
        settings: CrdSettings { objective_namespaces: vec![place.shop.clone()], ..CrdSettings::default() },
        library: shelf.clone(),
        leader,
        clock: Arc::new(RealClock),
        stop: stop.clone(),
    };
    let task = tokio::spawn(controller.run());
    let good = FaultClass::ALL[0].slug();
    place.apply(&place.own, &playbook("good", good));
    place.apply(&place.own, &playbook("bad", "no_such_fault"));
    until("the library has the good one without leadership", || shelf.0.lock().contains("good").then_some(())).await;
    assert!(accepted(&place, &place.own, "playbook/good").is_none(), "who does not lead does not write");
    lead.send(true).unwrap();

    let told = until("good is accepted", || accepted(&place, &place.own, "playbook/good")).await;
    assert_eq!((&told["accepted"], &told["status"]["digest"]), (&json!("True"), &json!("ab".repeat(32))));
    let told = until("bad is refused", || accepted(&place, &place.own, "playbook/bad")).await;
    assert_eq!((&told["accepted"], &told["reason"]), (&json!("False"), &json!("Invalid")));
    assert!(told["message"].as_str().unwrap().contains("no_such_fault"), "{told}");
    eprintln!("{}", place.get(&["playbooks", "-o", "wide"]).unwrap());

    // Mended: judged anew, with the new generation.
    place.apply(&place.own, &playbook("bad", good));
    let mended = || accepted(&place, &place.own, "playbook/bad").filter(|t| t["accepted"] == "True");
    until("the mended one is accepted", mended).await;
    kubectl(&["-n", &place.own, "delete", "playbook", "good"], "").unwrap();
    until("the deleted one has left the library", || (!shelf.0.lock().contains("good")).then_some(())).await;

    let policy = json!({
        "apiVersion": "nightshift.dev/v1alpha1", "kind": "RemediationPolicy", "metadata": {"name": "nights"},
        "spec": {"rego": "package nights\n"},
    });
    place.apply(&place.own, &policy);
    let told = until("the policy is accepted", || accepted(&place, &place.own, "remediationpolicy/nights")).await;
    assert_eq!((&told["status"]["tests"], &told["status"]["package"]), (&json!("1/1"), &json!("nights")));

    // In a namespace of its own, which the chart was told of.
    let objective = json!({
        "apiVersion": "nightshift.dev/v1alpha1", "kind": "ServiceObjective", "metadata": {"name": "cart"},
        "spec": {"target": {"name": "cart"}, "objective": 99.5},
    });
    place.apply(&place.shop, &objective);
    let told = until("the objective is counted", || accepted(&place, &place.shop, "serviceobjective/cart")).await;
    assert_eq!((&told["status"]["budget"], &told["status"]["budgetLeft"]), (&json!("62 %"), &json!(0.62)));
    assert_eq!(told["status"]["entity"], format!("test/service/{}/cart", place.shop));
    stop.cancel();
    task.await.unwrap();
}

/// A server that cannot be reached while told so: it refuses, or never answers.
fn breakable(server: &ApiServer, away: Arc<AtomicBool>, answers: bool) -> ApiServer {
    let (client, namespace) = (server.client().clone(), server.namespace().to_owned());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, away) = (client.clone(), away.clone());
        async move {
            if away.load(Ordering::SeqCst) {
                if !answers {
                    std::future::pending::<()>().await;
                }
                return Err(kube::Error::Service(std::io::Error::other("it is away").into()));
            }
            client.send(request).await
        }
    });
    ApiServer::with_client(kube::Client::new(service, namespace), server.url())
}

struct Feed {
    all: Arc<parking_lot::Mutex<Vec<Incident>>>,
    news: mpsc::Receiver<Incident>,
}

#[async_trait::async_trait]
impl Incidents for Feed {
    async fn all(&mut self, _: usize) -> Result<Vec<Incident>, String> {
        Ok(self.all.lock().clone())
    }

    async fn changed(&mut self) -> Heard {
        self.news.recv().await.map_or(Heard::Closed, |i| Heard::Incident(Box::new(i)))
    }
}

fn incident(number: u64, now: Timestamp) -> Incident {
    let text = json!({
        "id": format!("{number:032x}"), "number": number, "tenant": "default", "title": "cart: errors",
        "status": "investigating", "severity": "high", "score": 1.0, "onset": now, "detected_at": now,
        "updated_at": now, "resolved_at": null, "acknowledged_by": null, "anomalies": [], "anomalies_total": 7,
        "anomalies_open": 3, "hypotheses": [], "rca_revision": 0, "timeline": [], "merged_into": null,
        "blast_radius": {"affected": [], "at_risk": [], "estimated_user_impact": null},
        "recurrence_of": null, "synthetic": false,
    });
    serde_json::from_value(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_incidents() {
    let Some(place) = Place::open("mirror") else { return };
    let stop = CancellationToken::new();
    let (_lead, leader) = watch::channel(true);
    let away = Arc::new(AtomicBool::new(false));
    let now = RealClock.now();
    let all = Arc::new(parking_lot::Mutex::new(vec![incident(1, now)]));
    let (tell, news) = mpsc::channel(8);
    // Ours, and of an incident that nobody knows any longer; and one that somebody else made.
    let odd = incident_mirror(&incident(99, now));
    for (name, labels) in
        [(odd.name.as_str(), json!({"app.kubernetes.io/managed-by": "nightshift"})), ("theirs", json!({}))]
    {
        place.apply(&place.own, &json!({
            "apiVersion": "nightshift.dev/v1alpha1", "kind": "Incident", "metadata": {"name": name, "labels": labels},
            "spec": {"id": "0".repeat(32), "shortId": "INC-0099", "tenant": "default"},
        }));
    }
    let mirror = Mirror {
        server: breakable(&place.server().await, away.clone(), true),
        settings: CrdSettings { resync_secs: 10, ..CrdSettings::default() },
        incidents: Box::new(Feed { all: all.clone(), news }),
        leader,
        clock: Arc::new(RealClock),
        stop: stop.clone(),
    };
    let task = tokio::spawn(mirror.run());
    let line = |wanted: &[&str]| {
        let table = place.get(&["incidents"]).unwrap_or_default();
        let found = table.lines().find(|l| wanted.iter().all(|w| l.contains(w)));
        found.map(|_| table.clone())
    };
    until("it is there", || line(&["INC-0001", "high", "investigating"])).await;

    // Its cause is found.
    let mut changed = incident(1, now);
    changed.status = IncidentStatus::RcaComplete;
    changed.hypotheses.push(Hypothesis {
        entity: Some(EntityId::new("test", "deployment", "shop", "cart")),
        fault: FaultClass::ALL[0],
        confidence: 0.874,
        score: 1.0,
        summary: "deployment cart changed its image".into(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    });
    *all.lock() = vec![changed.clone()];
    tell.send(changed.clone()).await.unwrap();
    let table =
        until("its cause is told", || line(&["INC-0001", "high", "rca_complete", "deployment cart changed its image"]))
            .await;
    eprintln!("{table}");
    for heading in ["ID", "SEVERITY", "STATUS", "CAUSE", "AGE"] {
        assert!(table.lines().next().unwrap().contains(heading), "{heading} in {table}");
    }
    until("the odd one is gone", || place.get(&["incident", &odd.name]).is_err().then_some(())).await;
    place.get(&["incident", "theirs"]).unwrap();

    // Deleted by hand: it comes back at the next full look.
    let name = incident_mirror(&changed).name;
    kubectl(&["-n", &place.own, "delete", "incident", &name], "").unwrap();
    until("it is back", || line(&["INC-0001", "rca_complete"])).await;

    // The API server is away for a while: nothing waits for it, and the newest state is told when it is back.
    away.store(true, Ordering::SeqCst);
    for status in [IncidentStatus::Remediating, IncidentStatus::Monitoring, IncidentStatus::Escalated] {
        changed.status = status;
        *all.lock() = vec![changed.clone()];
        tell.send(changed.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(line(&["INC-0001", "rca_complete"]).is_some());
    until("changes are taken meanwhile", || (tell.capacity() == tell.max_capacity()).then_some(())).await;
    away.store(false, Ordering::SeqCst);
    until("the newest state is told", || line(&["INC-0001", "escalated"])).await;

    // Over for long: it goes.
    changed.status = IncidentStatus::Resolved;
    changed.updated_at = now - Duration::from_secs(30 * 24 * 3_600);
    *all.lock() = vec![changed.clone()];
    tell.send(changed).await.unwrap();
    until("an old one goes", || place.get(&["incident", &name]).is_err().then_some(())).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_leads_and_the_other_follows_when_it_dies() {
    let Some(place) = Place::open("lease") else { return };
    let times = |identity: &str| LeaseSettings {
        lasts: Duration::from_secs(10),
        renew_within: Duration::from_secs(8),
        retry: Duration::from_millis(500),
        ..LeaseSettings::new(&place.own, "ns-nightshift", identity)
    };
    let start = async |identity: &str| {
        let stop = CancellationToken::new();
        let (elector, leads) =
            Elector::new(place.server().await, times(identity), Arc::new(RealClock), stop.clone()).unwrap();
        (tokio::spawn(elector.run()), leads, stop)
    };
    let (a_task, a, _) = start("pod-a").await;
    until("the first one leads", || a.borrow().then_some(())).await;
    let (b_task, mut b, b_stop) = start("pod-b").await;

    // At no time do both lead.
    let both = Arc::new(AtomicBool::new(false));
    let look = {
        let (a, b, both) = (a.clone(), b.clone(), both.clone());
        tokio::spawn(async move {
            loop {
                if *a.borrow() && *b.borrow() {
                    both.store(true, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let holder = || place.get(&["lease", "ns-nightshift", "-o", "jsonpath={.spec.holderIdentity}"]).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(*a.borrow() && !*b.borrow(), "the first one renews for longer than the lease lasts");
    assert_eq!(holder(), "pod-a");

    // Killed: it gives nothing back.
    a_task.abort();
    assert!(a_task.await.unwrap_err().is_cancelled());
    // What a dead process said last is not what it says now.
    look.abort();
    b.wait_for(|leads| *leads).await.unwrap();
    assert_eq!(holder(), "pod-b");
    assert!(!both.load(Ordering::SeqCst), "two led at once");
    let changes = place.get(&["lease", "ns-nightshift", "-o", "jsonpath={.spec.leaseTransitions}"]).unwrap();
    assert_eq!(changes, "1");

    // Told to stop: it gives the lease back, and the next one need not wait.
    b_stop.cancel();
    b_task.await.unwrap();
    assert!(!*b.borrow());
    assert_eq!(holder(), "");
    let (c_task, c, c_stop) = start("pod-c").await;
    until("the third one leads", || c.borrow().then_some(())).await;
    assert_eq!(holder(), "pod-c");

    // Robbed (as when it slept for long): it steps down.
    let theft = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3_600}}).to_string();
    let patch = ["-n", &place.own, "patch", "lease", "ns-nightshift", "--type=merge", "-p", &theft];
    kubectl(&patch, "").unwrap();
    until("it steps down", || (!*c.borrow()).then_some(())).await;
    c_stop.cancel();
    c_task.await.unwrap();
    assert_eq!(holder(), "thief", "what is not ours is not given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_steps_down_before_another_leads() {
    let Some(place) = Place::open("cut-off") else { return };
    let times = |identity: &str| LeaseSettings {
        lasts: Duration::from_secs(10),
        renew_within: Duration::from_secs(5),
        retry: Duration::from_millis(500),
        ..LeaseSettings::new(&place.own, "ns-nightshift", identity)
    };
    let stop = CancellationToken::new();
    let away = Arc::new(AtomicBool::new(false));
    // Its requests hang: nothing tells it that it is cut off.
    let server = breakable(&place.server().await, away.clone(), false);
    let (elector, mut a) = Elector::new(server, times("pod-a"), Arc::new(RealClock), stop.clone()).unwrap();
    let a_task = tokio::spawn(elector.run());
    a.wait_for(|leads| *leads).await.unwrap();
    let server = place.server().await;
    let (elector, mut b) = Elector::new(server, times("pod-b"), Arc::new(RealClock), stop.clone()).unwrap();
    let b_task = tokio::spawn(elector.run());

    away.store(true, Ordering::SeqCst);
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let note = |text: &'static str| order.lock().push(text);
    tokio::join!(
        async {
            a.wait_for(|leads| !*leads).await.unwrap();
            note("a steps down");
        },
        async {
            b.wait_for(|leads| *leads).await.unwrap();
            note("b leads");
        }
    );
    assert_eq!(*order.lock(), ["a steps down", "b leads"]);

    // Back again, it follows.
    away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(*b.borrow() && !*a.borrow());
    stop.cancel();
    a_task.await.unwrap();
    b_task.await.unwrap();
}
