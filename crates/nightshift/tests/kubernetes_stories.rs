//! Ten stories on a real control plane, each from the fault to the verified fix, with the journal as evidence.
//!
//! Objects are the API server's, controllers and scheduler are Kubernetes' own; what a kubelet would do is done by stages
//! (`testenv/kubernetes/stages.py`): a pod is healthy when its specification is.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

#[path = "support/kube.rs"]
mod kube;
mod support;

use kube::{Kube, Namespace};
use nightshift_model::{Incident, IncidentStatus};
use serde_json::Value;
use std::time::Duration;
use support::{Server, until};

/// From the fault to the end of its story.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

/// A namespace with something in it, and a nightshift that watches and may act there.
struct Story {
    kube: Kube,
    ns: Namespace,
    server: Server,
}

impl Story {
    /// Applies `healthy` (`NS` stands for the namespace) and waits until nothing is wrong with it.
    async fn begin(name: &str, healthy: &str, by_itself: bool) -> Option<Self> {
        Self::begin_with(name, healthy, by_itself, "").await
    }

    /// The same, with further settings of the actuator.
    async fn begin_with(name: &str, healthy: &str, by_itself: bool, actuator: &str) -> Option<Self> {
        let kube = Kube::full()?;
        let ns = kube.namespace(name);
        kube.apply(&healthy.replace("NS", &ns.name));
        let opted_in = if by_itself { "opted_in = [\"*\"]\n" } else { "" };
        let config = format!(
            "default_sources = false\n[otlp]\nenabled = false\n[remote_write]\nenabled = false\n\
             [sources.cluster]\ntype = \"kubernetes\"\nkubeconfig = \"{kubeconfig}\"\nnamespaces = {{ allow = [\"{ns}\"] }}\n\
             secrets = true\nmetrics_every_secs = 5\nclear_after_secs = 3\n\
             [actuators.cluster]\ntype = \"kubernetes\"\nkubeconfig = \"{kubeconfig}\"\nnamespaces = [\"{ns}\"]\n{actuator}\
             [guard]\ndry_run = false\n{opted_in}[guard.limits]\npods_share_max = 1.0\n\
             [workflow]\nsettle_secs = 2\nprobation_secs = 5\n",
            kubeconfig = kube.kubeconfig.display(),
            ns = ns.name,
        );
        let server = Server::start(&config).await;
        let story = Self { kube, ns, server };
        until("the cluster is not seen", Duration::from_secs(60), || async {
            let health = story.server.get("/api/v1/health").await;
            let all = health["data"]["components"].as_array().cloned().unwrap_or_default();
            let seen = all.iter().any(|c| c["name"] == "cluster-collector" && c["status"] == "healthy");
            seen.then_some(())
        })
        .await;
        Some(story)
    }

    /// Applies manifests.
    fn apply(&self, yaml: &str) {
        self.kube.apply(&yaml.replace("NS", &self.ns.name));
    }

    /// An object of the namespace.
    fn get(&self, kind: &str, name: &str) -> Value {
        self.kube.get(&["-n", &self.ns.name, kind, name])
    }

    /// `kubectl -n NAMESPACE …`.
    fn run(&self, args: &[&str]) -> String {
        self.kube.run(&[&["-n", &self.ns.name], args].concat())
    }

    /// Waits until `kubectl wait` says so.
    fn wait(&self, args: &[&str]) {
        self.run(&[&["wait", "--timeout=90s"], args].concat());
    }

    /// The incident whose likeliest cause has this fault.
    async fn incident(&self, fault: &str) -> Incident {
        self.until(&format!("no incident of {fault}"), |i| i.top_cause().is_some_and(|c| c.fault.slug() == fault)).await
    }

    /// The first incident of which this holds; what there is instead is told when it takes too long.
    async fn until(&self, what: &str, holds: impl Fn(&Incident) -> bool) -> Incident {
        let deadline = std::time::Instant::now() + TOLD_WITHIN;
        loop {
            let all = self.server.incidents().await;
            if let Some(found) = all.iter().find(|i| holds(i)) {
                return found.clone();
            }
            if std::time::Instant::now() > deadline {
                let told: Vec<String> = all
                    .iter()
                    .map(|i| format!("{} {} {}", i.title, i.status, i.top_cause().map_or("-", |c| c.summary.as_str())))
                    .collect();
                let journal = match all.first() {
                    Some(i) => self.journal(i).await.join("\n"),
                    None => String::new(),
                };
                panic!("{what}; there is {told:#?}\n{journal}\nlog:\n{}", tail(&self.server.log()));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The rows of an incident's journal: what was done, by whom, in words.
    async fn journal(&self, incident: &Incident) -> Vec<String> {
        let answer = self.server.get(&format!("/api/v1/incidents/{}/journal?limit=500", incident.short_id())).await;
        answer["data"].as_array().into_iter().flatten().map(Value::to_string).collect()
    }

    /// Waits for the approval that a plan needs and gives it.
    async fn approve(&self, incident: &Incident) {
        let id = incident.id;
        let asked = self.until("nobody is asked", |i| i.id == id && i.status == IncidentStatus::AwaitingApproval).await;
        let plan = asked.plan.as_ref().expect("a plan").hash.to_string();
        let (server, data) = (self.server.url("api"), self.server.data().display().to_string());
        let args = ["approve", &asked.short_id(), "--plan", &plan, "--server", &server, "--data", &data];
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift")).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Waits for the verified end, and checks that the journal tells the way there.
    async fn verified(&self, incident: &Incident) -> Vec<String> {
        let id = incident.id;
        let ended = self.until("it is not resolved", |i| i.id == id && i.status == IncidentStatus::Resolved).await;
        let journal = self.journal(&ended).await;
        let told = |word: &str| journal.iter().any(|row| row.contains(word));
        for word in ["plan_proposed", "judged", "dry_run", "apply", "verified"] {
            assert!(told(word), "the journal does not tell of `{word}`:\n{}", journal.join("\n"));
        }
        assert!(self.server.audit().contains("\"ok\":true"), "the chain is broken: {}", self.server.audit());
        journal
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A deployment of two with a service before it.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: NS }
spec:
  replicas: 2
  progressDeadlineSeconds: 30
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - name: app
          image: registry.example/web:v1
          ports: [ { containerPort: 8080 } ]
          readinessProbe: { httpGet: { path: /healthz, port: 8080 } }
          resources: { requests: { cpu: 50m, memory: 64Mi }, limits: { memory: 128Mi } }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: NS }
spec: { selector: { app: web }, ports: [ { port: 80, targetPort: 8080 } ] }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_after_a_bad_image_is_rolled_back() {
    let Some(story) = Story::begin("story-crash", WEB, true).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    story.run(&["set", "image", "deployment/web", "app=registry.example/web:v2-crash"]);
    let incident = story.incident("crash_loop").await;
    story.verified(&incident).await;
    let image = &story.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.example/web:v1");
    assert_eq!(story.get("deployment", "web")["status"]["readyReplicas"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oom_kill_gets_more_memory() {
    let hungry = WEB.replace(
        "labels: { app: web } }\n    spec",
        "labels: { app: web }, annotations: { nightshift.test/needs-memory-mib: \"96\" } }\n    spec",
    );
    let Some(story) = Story::begin("story-oom", &hungry, true).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    // It grew over what it has: more work came.
    story.run(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"metadata":{"annotations":{"nightshift.test/needs-memory-mib":"200"}}}}}"#,
    ]);
    let incident = story.incident("oom_kill").await;
    story.verified(&incident).await;
    let limit =
        &story.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
    assert_eq!(limit, "256Mi");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_label_is_named_and_its_way_back_is_asked_for() {
    let Some(story) = Story::begin("story-label", WEB, false).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    // The selector of a deployment cannot change: the service's label goes by a label beside it.
    story.apply(
        &WEB.replace("labels: { app: web } }\n    spec", "labels: { app: web, tier: front } }\n    spec")
            .replace("spec: { selector: { app: web }, ports", "spec: { selector: { app: web, tier: front }, ports"),
    );
    story.wait(&["--for=condition=Available", "deployment/web"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    story.run(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"metadata":{"labels":{"tier":"frnt"}}}}}"#,
    ]);
    let incident = story.incident("service_no_endpoints").await;
    let cause = incident.top_cause().unwrap().summary.clone();
    assert!(cause.contains("Deployment") && cause.contains("web") && cause.contains("tier"), "{cause}");
    story.approve(&incident).await;
    story.verified(&incident).await;
    assert_eq!(story.get("deployment", "web")["spec"]["template"]["metadata"]["labels"]["tier"], "front");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_at_its_maximum_gets_a_higher_bound_within_limits() {
    let scaled = format!(
        "{}---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{ name: web, namespace: NS }}
spec:
  scaleTargetRef: {{ apiVersion: apps/v1, kind: Deployment, name: web }}
  minReplicas: 2
  maxReplicas: 3
  metrics: [ {{ type: Resource, resource: {{ name: cpu, target: {{ type: Utilization, averageUtilization: 60 }} }} }} ]
",
        WEB.replace(
            "labels: { app: web } }\n    spec",
            "labels: { app: web }, annotations: { nightshift.test/cpu-shared: 60m } }\n    spec"
        )
    );
    let Some(story) = Story::begin_with("story-hpa", &scaled, true, "replicas_max = 10\n").await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    // More work comes, on the pods that are there: a rollout would leave the autoscaler without metrics for a moment.
    for pod in story.run(&["get", "pods", "-l", "app=web", "-o", "name"]).lines() {
        story.run(&["annotate", "--overwrite", pod, "nightshift.test/cpu-shared=200m"]);
    }
    let incident = story.incident("hpa_at_maximum").await;
    story.verified(&incident).await;
    let bound = story.get("hpa", "web")["spec"]["maxReplicas"].as_i64().unwrap();
    assert!((4..=50).contains(&bound), "maxReplicas {bound}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_drained_as_far_as_the_disruption_budget_lets_it() {
    let Some(kube) = Kube::full() else { return };
    let node = format!("story-node-{}", std::process::id());
    kube.apply(&format!("
apiVersion: v1
kind: Node
metadata: {{ name: {node}, labels: {{ story: drain, kubernetes.io/hostname: {node} }}, annotations: {{ kwok.x-k8s.io/node: fake }} }}
spec: {{ taints: [ {{ key: story, value: drain, effect: NoSchedule }} ] }}
"));
    let pinned = format!(
        "{}---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{ name: web, namespace: NS }}
spec: {{ maxUnavailable: 1, selector: {{ matchLabels: {{ app: web }} }} }}
",
        WEB.replace("replicas: 2", "replicas: 3").replace(
            "      containers:",
            "      tolerations: [ { key: story, operator: Exists } ]
      topologySpreadConstraints:
        - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: web } } }
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - { weight: 100, preference: { matchExpressions: [ { key: story, operator: In, values: [drain] } ] } }
      containers:"
        )
    );
    let Some(mut story) = Story::begin_with("story-drain", &pinned, true, "nodes = true\n").await else { return };
    story.ns.others.push(format!("node/{node}"));
    story.wait(&["--for=condition=Available", "deployment/web"]);
    let on = |story: &Story| {
        let pods = story.kube.get(&["-n", &story.ns.name, "pods"]);
        pods["items"].as_array().unwrap().iter().filter(|p| p["spec"]["nodeName"] == node.as_str()).count()
    };
    assert!(on(&story) > 0, "nothing runs on {node}");
    // Its kubelet falls silent: the controller manager notices, as it does with a machine that died.
    kube.run(&["label", "node", &node, "nightshift.test/silent=1"]);
    let incident = story.incident("node_not_ready").await;
    story.verified(&incident).await;
    assert_eq!(kube.get(&["node", &node])["spec"]["unschedulable"], true);
    assert_eq!(on(&story), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_quota_is_named_and_handed_to_a_person() {
    let quota = format!(
        "{WEB}---
apiVersion: v1
kind: ResourceQuota
metadata: {{ name: small, namespace: NS }}
spec: {{ hard: {{ pods: \"2\" }} }}
"
    );
    let Some(story) = Story::begin("story-quota", &quota, true).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    story.run(&["scale", "deployment", "web", "--replicas=5"]);
    let incident = story.incident("quota_exhausted").await;
    let cause = incident.top_cause().unwrap().summary.clone();
    assert!(cause.contains("small"), "{cause}");
    // Nobody raises a quota by machine: a person is asked, does it, and the incident ends by what is seen.
    let id = incident.id;
    story
        .until("nobody is called", |i| {
            i.id == id && matches!(i.status, IncidentStatus::Escalated | IncidentStatus::AwaitingApproval)
        })
        .await;
    story.run(&["patch", "resourcequota", "small", "-p", r#"{"spec":{"hard":{"pods":"10"}}}"#]);
    let ended = story.until("it is not over", |i| i.id == id && i.status == IncidentStatus::Resolved).await;
    assert_eq!(ended.resolved_by.as_deref(), Some("system"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_config_map_is_named_and_the_rollout_that_asked_for_it_taken_back() {
    let Some(story) = Story::begin("story-config", WEB, true).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    story.run(&["patch", "deployment", "web", "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","envFrom":[{"configMapRef":{"name":"settings"}}]}]}}}}"#]);
    let incident = story.incident("missing_config_map").await;
    let cause = incident.top_cause().unwrap().summary.clone();
    assert!(cause.contains("settings"), "{cause}");
    story.verified(&incident).await;
    let container = &story.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0];
    assert!(container["envFrom"].is_null(), "{container}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_readiness_probe_on_the_wrong_port_is_rolled_back() {
    let Some(story) = Story::begin("story-probe", WEB, true).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    story.run(&["patch", "deployment", "web", "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"app","readinessProbe":{"httpGet":{"path":"/healthz","port":9090}}}]}}}}"#]);
    let incident = story.incident("readiness_probe_failure").await;
    let cause = incident.top_cause().unwrap().summary.clone();
    assert!(cause.contains("9090"), "{cause}");
    story.verified(&incident).await;
    let container = &story.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], 8080);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_out_of_sync_is_synced() {
    let app = "
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: { name: shop, namespace: NS }
spec:
  project: default
  source: { repoURL: 'https://git.example/shop.git', path: deploy, targetRevision: main }
  destination: { server: 'https://kubernetes.default.svc', namespace: NS }
status: { sync: { status: Synced, revision: 'a111111' }, health: { status: Healthy } }
";
    let Some(story) = Story::begin("story-argo", app, true).await else { return };
    tokio::time::sleep(Duration::from_secs(2)).await;
    story.run(&["patch", "application", "shop", "--type=merge", "-p",
        r#"{"status":{"sync":{"status":"OutOfSync","revision":"a111111"},"resources":[{"kind":"Deployment","name":"web","status":"OutOfSync"}]}}"#]);
    let incident = story.incident("gitops_out_of_sync").await;
    // Argo CD's controller (here a stage) carries the operation out; the journal says that we asked for it.
    story.verified(&incident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_violation_gets_a_scoped_exception_that_ends() {
    let Some(story) = Story::begin("story-policy", WEB, false).await else { return };
    story.wait(&["--for=condition=Available", "deployment/web"]);
    story.apply("
apiVersion: wgpolicyk8s.io/v1alpha2
kind: PolicyReport
metadata: { name: web, namespace: NS }
scope: { apiVersion: apps/v1, kind: Deployment, name: web, namespace: NS }
results:
  - { policy: require-labels, rule: check-team, result: fail, severity: high, message: 'validation error: the label team is required',
      source: kyverno, resources: [ { apiVersion: apps/v1, kind: Deployment, name: web, namespace: NS } ] }
summary: { fail: 1 }
");
    let incident = story.incident("policy_violation").await;
    story.approve(&incident).await;
    let made = until("no exception is made", TOLD_WITHIN, || async {
        let all = story.kube.get(&["-n", &story.ns.name, "policyexceptions"]);
        all["items"].as_array().and_then(|a| a.first().cloned())
    })
    .await;
    let text = made["spec"].to_string();
    assert!(text.contains("require-labels") && text.contains("web"), "{text}");
    // What Kyverno does then: the next report has a skip where the failure was.
    story.run(&["patch", "policyreport", "web", "--type=merge", "-p",
        r#"{"results":[{"policy":"require-labels","rule":"check-team","result":"skip","source":"kyverno"}],"summary":{"fail":0,"skip":1}}"#]);
    story.verified(&incident).await;
}
