//! The conformance suite against every kind that lives here, and what only a webhook can get wrong.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]
#![allow(dead_code, reason = "the helpers are shared with the crash tests")]

#[path = "support/kinds.rs"]
mod kinds;
mod support;

use async_trait::async_trait;
use kinds::{ALL, Folder, Memory, Receiver, SECRET};
use nightshift_act::conformance::{Harness, Order as _, World, order, run};
use nightshift_act::{ActError, Actuator as _, ActuatorConfig, Declares, Executor, WebhookConfig};
use nightshift_model::{Action, ActionOutcome, ActionType, Image, ManualClock, Operation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::{START, all_declares, image, service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Of<F>(Declares, F);

#[async_trait]
impl<F, W> Harness for Of<F>
where
    F: Fn(Declares) -> W + Send + Sync,
    W: Future<Output = Box<dyn World>> + Send,
{
    async fn open(&self, _name: &str) -> Box<dyn World> {
        self.1(self.0).await
    }
}

#[tokio::test]
async fn in_memory() {
    for declares in all_declares() {
        run(&Of(declares, async |d| Box::new(Memory::new(d)) as Box<dyn World>)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook() {
    for declares in [ALL, Declares::default(), Declares { idempotent: false, ..ALL }] {
        run(&Of(declares, async |d| Box::new(Receiver::start(d).await) as Box<dyn World>)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn command() {
    for declares in [ALL, Declares::default(), Declares { idempotent: false, ..ALL }] {
        let declares = Declares { canary: false, ..declares };
        run(&Of(declares, async |d| Box::new(Folder::new(d)) as Box<dyn World>)).await;
    }
}

// ---- webhook ------------------------------------------------------------------------------------------------------

fn scale() -> Action {
    order(&service("payment"), ActionType::ScaleDeployment, image(serde_json::json!({"replicas": 6})), START)
}

fn config(url: &str) -> WebhookConfig {
    let declares = (true, true, true);
    WebhookConfig {
        url: url.into(),
        secret: Some(SECRET.into()),
        token: Some("gate-hunter2".into()),
        actions: vec![ActionType::ScaleDeployment],
        idempotent: declares.0,
        observable: declares.1,
        dry_run: declares.2,
        ..WebhookConfig::default()
    }
}

/// A server that gives one fixed answer to whatever comes, and what it was sent. `None`: it closes without one.
async fn canned(answer: Option<&'static [u8]>) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path-hunter2", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut got = vec![0; 16 << 10];
        let mut len = 0;
        loop {
            let n = socket.read(&mut got[len..]).await.unwrap();
            len += n;
            if n == 0 || got[..len].windows(2).any(|w| w == b"}}") {
                break;
            }
        }
        if let Some(answer) = answer {
            let _gone = socket.write_all(answer).await;
        }
        got.truncate(len);
        got
    });
    (url, task)
}

async fn against(answer: Option<&'static [u8]>, operation: Operation) -> Result<nightshift_act::Answer, ActError> {
    let (url, _task) = canned(answer).await;
    let webhook = config(&url).build(Arc::new(ManualClock::at(START))).unwrap();
    let order = if operation == Operation::Observe { scale().observation() } else { scale().with(operation) };
    webhook.perform(&Action { deadline: START + Duration::from_secs(20), ..order }).await
}

#[tokio::test]
async fn each_status_means_what_the_docs_say() {
    let status = |n: u16| -> &'static [u8] {
        let text = format!("HTTP/1.1 {n} Told\r\nlocation: http://elsewhere.example/\r\ncontent-length: 0\r\n\r\n");
        Box::leak(text.into_bytes().into_boxed_slice())
    };
    for (code, of_change, of_read) in [
        (200, "Uncertain", "NotDone"),
        (301, "Refused", "Refused"),
        (303, "Uncertain", "NotDone"),
        (307, "Refused", "Refused"),
        (400, "Refused", "Refused"),
        (401, "Refused", "Refused"),
        (404, "Refused", "Refused"),
        (408, "NotDone", "NotDone"),
        (409, "Refused", "Refused"),
        (429, "NotDone", "NotDone"),
        (500, "Uncertain", "NotDone"),
        (501, "Refused", "Refused"),
        (503, "Uncertain", "NotDone"),
        (504, "Uncertain", "NotDone"),
    ] {
        for (operation, want) in [(Operation::Apply, of_change), (Operation::Observe, of_read)] {
            let got = against(Some(status(code)), operation).await.unwrap_err();
            let told = format!("{got:?}");
            assert!(told.starts_with(want), "{code} of {operation}: {told}");
            assert!(!told.contains("hunter2") && !told.contains("elsewhere"), "no secret, no other place: {told}");
        }
    }
}

#[tokio::test]
async fn exchanges_that_break_are_in_doubt_and_those_that_never_began_are_not() {
    let endless: &'static [u8] = {
        let mut text = b"HTTP/1.1 200 OK\r\n\r\n{\"detail\":\"".to_vec();
        text.resize(200 << 10, b'x');
        Box::leak(text.into_boxed_slice())
    };
    for (answer, told) in [
        (None, "Uncertain"),
        (Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"outc".as_slice()), "Uncertain"),
        (Some(b"220 ready\r\n".as_slice()), "Uncertain"),
        (Some(endless), "Uncertain"),
    ] {
        let got = against(answer, Operation::Apply).await.unwrap_err();
        assert!(format!("{got:?}").starts_with(told), "{got:?}");
        assert!(!format!("{got:?}").contains("hunter2"), "{got:?}");
    }
    // Nobody listens: it was never sent.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let webhook = config(&url).build(Arc::new(ManualClock::at(START))).unwrap();
    let got = webhook.perform(&scale()).await.unwrap_err();
    assert!(matches!(&got, ActError::NotDone(why) if why.contains("connect to")), "{got:?}");
}

#[tokio::test]
async fn an_order_is_sent_as_documented() {
    let (url, task) = canned(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"outcome\":\"done\"}")).await;
    let webhook = config(&url).build(Arc::new(ManualClock::at(START))).unwrap();
    let order = Action { before: image(serde_json::json!({"replicas": 3})), ..scale() };
    assert_eq!(webhook.perform(&order).await.unwrap().outcome, ActionOutcome::Done);
    let sent = String::from_utf8(task.await.unwrap()).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    for header in [
        "post /path-hunter2 http/1.1".to_owned(),
        "content-type: application/json".to_owned(),
        format!("idempotency-key: {}", order.key),
        "nightshift-fence: 7".to_owned(),
        "authorization: bearer gate-hunter2".to_owned(),
        format!(
            "nightshift-signature: {}",
            nightshift_act::sign(SECRET.as_bytes(), START.millis() / 1_000, body.as_bytes())
        ),
    ] {
        assert!(head.contains(&header), "{header} is not in\n{head}");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let want = serde_json::json!({
        "version": 1, "operation": "apply", "action": "scale_deployment",
        "target": {"id": "prod/service/shop/payment", "cluster": "prod", "kind": "service", "namespace": "shop", "name": "payment"},
        "key": order.key, "attempt": 1, "fence": 7, "deadline": order.deadline.to_rfc3339(),
        "incident": order.incident.to_string(), "plan": order.plan, "step": 0,
        "params": {"replicas": 6}, "before": {"replicas": 3},
    });
    assert_eq!(body, want);
}

#[test]
fn each_bad_setting_of_a_webhook_is_refused() {
    let good = config("https://ops.example/orders");
    let clock = || Arc::new(ManualClock::at(START));
    assert!(good.build(clock()).is_ok());
    assert!(config("http://[::1]:8080/").build(clock()).is_ok() && config("http://localhost/").build(clock()).is_ok());
    let with = |edit: &dyn Fn(&mut WebhookConfig)| {
        let mut config = good.clone();
        edit(&mut config);
        config.build(clock()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for (told, want) in [
        (with(&|c| c.url = "".into()), "url: it must begin with https://"),
        (with(&|c| c.url = "ftp://hunter2.example/".into()), "url: it must begin with https://"),
        (with(&|c| c.url = "http://ops.example/".into()), "url: orders to another host need https"),
        (with(&|c| c.url = "https://u:hunter2@ops.example/".into()), "url: it holds a user or password"),
        (with(&|c| c.secret = None), "secret: orders are signed"),
        (with(&|c| c.secret = Some("hunter2".into())), "secret: orders are signed"),
        (with(&|c| c.token = Some("hunter2\n".into())), "token: it holds what no header can carry"),
        (with(&|c| c.actions.clear()), "actions: name what it does"),
        (with(&|c| c.actions = vec![ActionType::ManualReview]), "actions: name what it does"),
    ] {
        assert!(told.starts_with(want) && !told.contains("hunter2"), "`{told}` is not `{want}`");
    }
    let config = ActuatorConfig::Webhook(good);
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.build(clock()).unwrap().kind(), "webhook");
}

// ---- executor -----------------------------------------------------------------------------------------------------

fn executor(actuator: Arc<dyn nightshift_act::Actuator>) -> Executor {
    Executor::new(BTreeMap::from([("checked".to_owned(), actuator)]), Arc::new(ManualClock::at(START)))
}

#[tokio::test]
async fn the_executor_answers_for_what_is_no_order() {
    let world = Memory::new(ALL);
    let executor = executor(Arc::new(world.clone()));
    assert_eq!(executor.declares(), BTreeMap::from([("checked".to_owned(), ALL)]));
    assert_eq!(executor.handling(ActionType::RunJob, &service("payment")), ["checked"]);
    let refused = |result: Result<nightshift_act::Answer, ActError>| match result.unwrap_err() {
        ActError::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    let unknown = Action { actuator: "kubernetes".into(), ..scale() };
    assert_eq!(
        refused(executor.carry_out(&unknown).await),
        "use actuator `kubernetes`: it is not configured; configured: checked"
    );
    let manual = Action { action: ActionType::ManualReview, ..scale() };
    assert!(refused(executor.carry_out(&manual).await).contains("does not do manual_review"));
    let late = Action { deadline: START, ..scale() };
    assert!(
        matches!(executor.carry_out(&late).await, Err(ActError::NotDone(why)) if why.contains("deadline has passed"))
    );
    // Synthetic: answered, never handed on; also to an actuator that nobody configured.
    let synthetic = Action { synthetic: true, actuator: "none".into(), ..scale() };
    for operation in [Operation::Prepare, Operation::DryRun] {
        assert!(kinds::is_done(&executor.carry_out(&synthetic.with(operation)).await));
    }
    for operation in [Operation::Canary, Operation::Apply, Operation::Undo] {
        refused(executor.carry_out(&synthetic.with(operation)).await);
    }
    assert!(world.0.lock().0.done().is_empty());
    let read = executor.carry_out(&scale().with(Operation::Prepare)).await.unwrap();
    assert_eq!(read.image["replicas"], 3);
    let fenced = Action { fence: 9, ..scale() };
    assert!(kinds::is_done(&executor.carry_out(&fenced).await));
    assert!(refused(executor.carry_out(&scale()).await).contains("9 was seen"));
    assert_eq!(executor.look(&service("payment"), ActionType::RunJob, "checked").await.unwrap()["replicas"], 6);
}

/// Counts how many of its operations run at once, and says more than anybody wants.
struct Slow(parking_lot::Mutex<(u32, u32)>);

#[async_trait]
impl nightshift_act::Actuator for Slow {
    fn kind(&self) -> &'static str {
        "slow"
    }
    fn declares(&self) -> Declares {
        ALL
    }
    fn handles(&self, _: ActionType, _: &nightshift_model::EntityId) -> bool {
        true
    }
    async fn look(&self, _: &nightshift_model::EntityId, _: ActionType) -> Result<Image, ActError> {
        Ok(image(serde_json::json!({"text": "x".repeat(70 << 10)})))
    }
    async fn perform(&self, action: &Action) -> Result<nightshift_act::Answer, ActError> {
        if action.step == 99 {
            std::future::pending::<()>().await;
        }
        {
            let mut running = self.0.lock();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.0.lock().0 -= 1;
        let image = image(serde_json::json!({"text": "x".repeat(70 << 10)}));
        Ok(nightshift_act::Answer { outcome: ActionOutcome::Done, detail: "red \u{1b}[31m\n".repeat(100), image })
    }
}

#[tokio::test]
async fn one_operation_per_target_with_a_deadline_and_bounded_answers() {
    let slow = Arc::new(Slow(parking_lot::Mutex::default()));
    let executor = Arc::new(executor(slow.clone()));
    let tasks: Vec<_> = (0..8)
        .map(|step| {
            let (executor, order) = (Arc::clone(&executor), Action { step, ..scale() });
            tokio::spawn(async move { executor.carry_out(&order).await })
        })
        .collect();
    for task in tasks {
        let answer = task.await.unwrap().unwrap();
        assert!(answer.image.is_empty(), "too large to keep, and done all the same");
        assert!(answer.detail.chars().count() <= 401 && !answer.detail.contains(['\n', '\u{1b}']), "{}", answer.detail);
    }
    assert_eq!(slow.0.lock().1, 1, "never two at once");
    let second = |n: u64| START + Duration::from_millis(500 * n);
    let hangs = Action { step: 99, deadline: second(2), ..scale() };
    assert!(matches!(executor.carry_out(&hangs).await, Err(ActError::Uncertain(_))));
    let reads = Action { operation: Operation::DryRun, ..hangs.clone() };
    assert!(
        matches!(executor.carry_out(&reads).await, Err(ActError::NotDone(_))),
        "of what changes nothing it is no matter"
    );
    // Behind one that hangs, another waits and has not begun.
    let waits = Action { deadline: second(1), ..scale() };
    let (first, second) = tokio::join!(executor.carry_out(&hangs), executor.carry_out(&waits));
    assert!(matches!(first, Err(ActError::Uncertain(_))));
    assert!(matches!(second, Err(ActError::NotDone(_))), "{second:?}");
    let prepare = scale().with(Operation::Prepare);
    assert!(
        matches!(executor.carry_out(&prepare).await, Err(ActError::Refused(why)) if why.contains("more than 65536"))
    );
}
