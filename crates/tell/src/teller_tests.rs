//! The teller on a store in memory, with receivers that answer as told, and a webhook over a real socket.

use crate::notifier::{Attempt, Notifier, SendError, TellConfig, Wants};
use crate::postmortem::fixtures::*;
use crate::*;
use async_trait::async_trait;
use nightshift_model::{Clock, IncidentId, ManualClock, Severity};
use nightshift_store::{Commit, CommitFault, MemoryStore, Store};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const TENANT: &str = "default";

/// What a receiver was sent: (delivery, try, letter).
type Got = Arc<Mutex<Vec<(String, u32, LetterKind)>>>;
type Answers = Arc<Mutex<VecDeque<Result<Option<u16>, SendError>>>>;

/// Keeps what it is sent, and answers from a list; when that is empty it takes everything.
struct Scripted {
    got: Got,
    answers: Answers,
}

#[async_trait]
impl Notifier for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }
    fn to(&self) -> String {
        "a test".into()
    }
    async fn send(&self, attempt: Attempt<'_>, letter: &Letter) -> Result<Option<u16>, SendError> {
        self.got.lock().push((attempt.delivery.into(), attempt.number, letter.kind));
        self.answers.lock().pop_front().unwrap_or(Ok(Some(200)))
    }
}

fn later(status: Option<u16>) -> Result<Option<u16>, SendError> {
    Err(SendError::Later { why: "not now".into(), status, retry_after_secs: None })
}

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    got: Got,
    answers: Answers,
    config: TellConfig,
}

impl World {
    async fn with(book: &Book) -> Self {
        let store = Arc::new(MemoryStore::new());
        for row in &book.rows {
            let draft = nightshift_model::JournalDraft {
                incident: row.incident,
                at: row.at,
                actor: row.actor.clone(),
                event: row.event.clone(),
            };
            store.commit(TENANT, Commit { journal: vec![draft], ..Commit::default() }).await.unwrap();
        }
        let config = TellConfig { backoff_secs: 2, attempts_max: 3, ..TellConfig::default() };
        let clock = Arc::new(ManualClock::at(t(200.0)));
        Self { store, clock, got: Got::default(), answers: Answers::default(), config }
    }

    fn teller(&self, names: &[&str]) -> Teller {
        let receivers = names.iter().map(|name| Receiver {
            name: (*name).into(),
            wants: Wants::default(),
            notifier: Box::new(Scripted { got: self.got.clone(), answers: self.answers.clone() }),
        });
        let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = (self.store.clone(), self.clock.clone());
        Teller::new(store, clock, receivers.collect(), self.config.clone(), SmallRng::seed_from_u64(7))
    }

    async fn log(&self) -> Vec<Delivery> {
        let documents = self.store.documents(TENANT, DELIVERIES).await.unwrap();
        documents.iter().map(|d| Delivery::from_document(d).unwrap()).collect()
    }
}

fn sent(log: &[Delivery]) -> usize {
    log.iter().filter(|d| d.state == DeliveryState::Sent).count()
}

#[tokio::test]
async fn each_letter_is_sent_once_to_each_and_the_log_says_so() {
    let world = World::with(&rolled_back()).await;
    let mut teller = world.teller(&["a", "b"]);
    let told = teller.turn().await.unwrap();
    // Alert (opened and assessed are one), cause, plan, escalated.
    assert_eq!((told.queued, told.sent, told.failed), (8, 8, 0));
    assert_eq!(teller.turn().await.unwrap(), Told::default());
    let log = world.log().await;
    assert_eq!((log.len(), sent(&log)), (8, 8));
    assert!(log.iter().all(|d| d.attempts == 1 && d.letter.is_none() && d.ended_at.is_some() && d.to == "a test"));
    // In the order of the journal, each.
    let kinds: Vec<LetterKind> = world.got.lock().iter().map(|g| g.2).collect();
    let one = [LetterKind::Alert, LetterKind::Cause, LetterKind::Plan, LetterKind::Escalated];
    assert_eq!(kinds, [one, one].concat());
    // Another teller (a restart) has nothing to add.
    assert_eq!(world.teller(&["a", "b"]).turn().await.unwrap(), Told::default());
}

#[tokio::test]
async fn what_is_pending_survives_a_restart_and_keeps_its_id() {
    let world = World::with(&rolled_back()).await;
    world.answers.lock().extend([later(Some(503))]);
    let mut teller = world.teller(&["a"]);
    let told = teller.turn().await.unwrap();
    assert_eq!((told.sent, told.failed), (3, 1));
    let due = teller.next_due().unwrap();
    assert!(due > world.clock.now() && due <= world.clock.now() + Duration::from_secs(3), "{due}");
    drop(teller);
    let mut teller = world.teller(&["a"]);
    assert_eq!(teller.turn().await.unwrap(), Told::default(), "not before its time");
    world.clock.set(due);
    assert_eq!(teller.turn().await.unwrap().sent, 1);
    let alerts: Vec<(String, u32)> =
        world.got.lock().iter().filter(|g| g.2 == LetterKind::Alert).map(|g| (g.0.clone(), g.1)).collect();
    assert_eq!(alerts.iter().map(|a| a.1).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(alerts[0].0, alerts[1].0);
    assert_eq!(sent(&world.log().await), 4);
}

#[tokio::test]
async fn tries_are_bounded_and_a_refusal_ends_them_at_once() {
    let world = World::with(&by_itself()).await;
    let never = Err(SendError::Never { why: "answered 404".into(), status: Some(404) });
    // The alert is refused for good; the letter of the resolution never gets through.
    world.answers.lock().extend([never, later(Some(500)), later(Some(500)), later(Some(500)), later(Some(500))]);
    let mut teller = world.teller(&["a"]);
    for _ in 0..10 {
        teller.turn().await.unwrap();
        world.clock.advance(Duration::from_secs(400));
    }
    let log = world.log().await;
    let of = |kind| log.iter().find(|d| d.kind == kind).unwrap();
    let (alert, resolved) = (of(LetterKind::Alert), of(LetterKind::Resolved));
    assert_eq!((alert.state, alert.attempts, alert.last_status), (DeliveryState::Failed, 1, Some(404)));
    assert_eq!((resolved.state, resolved.attempts, resolved.last_status), (DeliveryState::Failed, 3, Some(500)));
    assert_eq!((resolved.last_error.as_str(), resolved.next_at), ("not now", None));
    assert_eq!(world.got.lock().len(), 4);
}

/// A receiver that cannot be reached costs one try a turn, not one for each letter.
#[tokio::test]
async fn an_absent_receiver_does_not_hold_up_the_others() {
    let world = World::with(&rolled_back()).await;
    let absent: Answers = Arc::new(Mutex::new((0..99).map(|_| later(None)).collect()));
    let away = Got::default();
    let mut receivers: Vec<Receiver> = Vec::new();
    for (name, got, answers) in [("away", &away, &absent), ("here", &world.got, &world.answers)] {
        let notifier = Box::new(Scripted { got: got.clone(), answers: answers.clone() });
        receivers.push(Receiver { name: name.into(), wants: Wants::default(), notifier });
    }
    let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = (world.store.clone(), world.clock.clone());
    let mut teller = Teller::new(store, clock, receivers, world.config.clone(), SmallRng::seed_from_u64(7));
    let told = teller.turn().await.unwrap();
    assert_eq!((told.sent, told.failed), (4, 1));
    assert_eq!((world.got.lock().len(), away.lock().len()), (4, 1));
}

/// Dying after sending and before writing that down sends it twice under one id: receivers can drop the second.
#[tokio::test]
async fn a_crash_between_sending_and_writing_it_down_repeats_under_the_same_id() {
    let world = World::with(&by_itself()).await;
    let mut teller = world.teller(&["a"]);
    // The first commit (cursor and deliveries) succeeds, the second (results) does not.
    world.store.fail_commit(2, CommitFault::BeforeEffect);
    assert!(teller.turn().await.is_err());
    drop(teller);
    assert_eq!(world.teller(&["a"]).turn().await.unwrap().sent, 2);
    let got = world.got.lock();
    let ids: Vec<&str> = got.iter().map(|g| g.0.as_str()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[..2], ids[2..]);
}

/// When the commit of the cursor fails nothing was sent, and nothing is lost.
#[tokio::test]
async fn nothing_is_sent_before_it_is_written_down() {
    let world = World::with(&by_itself()).await;
    let mut teller = world.teller(&["a"]);
    for fault in [CommitFault::BeforeEffect, CommitFault::AfterEffect] {
        world.store.fail_commit(1, fault);
        assert!(teller.turn().await.is_err());
        assert!(world.got.lock().is_empty());
    }
    assert_eq!(teller.turn().await.unwrap().sent, 2);
    assert_eq!(sent(&world.log().await), 2);
    assert_eq!(world.got.lock().len(), 2);
}

#[tokio::test]
async fn old_news_is_passed_over_and_the_log_is_bounded() {
    let mut world = World::with(&rolled_back()).await;
    world.clock.set(t(7_200.0));
    let told = world.teller(&["new"]).turn().await.unwrap();
    assert_eq!((told.queued, told.stale), (0, 5));
    world.clock.set(t(200.0));
    world = World::with(&rolled_back()).await;
    world.config.deliveries_kept = 2;
    let mut teller = world.teller(&["a"]);
    teller.turn().await.unwrap();
    let note = nightshift_model::EventKind::Acknowledged { note: String::new() };
    let draft = nightshift_model::JournalDraft { incident: ID, at: t(190.0), actor: "mira".into(), event: note };
    world.store.commit(TENANT, Commit { journal: vec![draft], ..Commit::default() }).await.unwrap();
    teller.turn().await.unwrap();
    assert_eq!(world.log().await.len(), 2);
}

#[tokio::test]
async fn a_notifier_that_is_gone_ends_its_deliveries() {
    let world = World::with(&by_itself()).await;
    world.answers.lock().extend([later(None)]);
    world.teller(&["old"]).turn().await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    world.teller(&["new"]).turn().await.unwrap();
    let log = world.log().await;
    assert!(log.iter().all(|d| d.state == DeliveryState::Failed && d.last_error.contains("no longer configured")));
}

#[tokio::test]
async fn the_postmortem_letter_carries_its_text() {
    let mut book = fixed();
    let written = postmortem(&book.rows, &book.incident(), &People::new()).unwrap();
    let (sha256, through_seq) = (written.sha256(), written.facts.through_seq);
    book.add(30.0, "system", nightshift_model::EventKind::PostmortemWritten { sha256, through_seq });
    let world = World::with(&book).await;
    let commit = Commit { documents: vec![written.to_document()], ..Commit::default() };
    world.store.commit(TENANT, commit).await.unwrap();
    assert_eq!(stored_postmortem(&*world.store, TENANT, ID).await.unwrap(), Some(written.clone()));
    assert_eq!(stored_postmortem(&*world.store, TENANT, IncidentId(8)).await.unwrap(), None);
    world.answers.lock().extend((0..9).map(|_| later(None)));
    let mut teller = world.teller(&["a"]);
    teller.turn().await.unwrap();
    let log = world.log().await;
    let letter = log.iter().find(|d| d.kind == LetterKind::Postmortem).and_then(|d| d.letter.clone()).unwrap();
    assert_eq!(letter.lines, ["1 action item with a due date"]);
    let Detail::Postmortem { markdown, .. } = letter.detail else { panic!("{letter:?}") };
    assert_eq!(markdown.as_deref(), Some(written.markdown.as_str()));
}

mod socket {
    //! A webhook over a real socket, answered by hand: what is on the wire is what the documentation says.

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request and returns its head and body.
    async fn serve(listener: &TcpListener, answer: &str) -> (String, Vec<u8>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        let (head, start) = loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            bytes.extend_from_slice(&part[..n]);
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break (String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase(), end + 4);
            }
        };
        let length = header(&head, "content-length").unwrap().parse::<usize>().unwrap();
        while bytes.len() < start + length {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            bytes.extend_from_slice(&part[..n]);
        }
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        (head, bytes[start..].to_vec())
    }

    fn header(head: &str, name: &str) -> Option<String> {
        head.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    }

    fn hook(port: u16) -> Webhook {
        let config = WebhookConfig {
            url: format!("http://127.0.0.1:{port}/hook/hunter2").into(),
            secret: Some("secret".into()),
            timeout_secs: 10,
            wants: Wants::default(),
        };
        Webhook::new(&config).unwrap()
    }

    fn letter() -> Letter {
        let book = approved();
        letters(&book.rows[0], &book.incident()).unwrap()
    }

    #[tokio::test]
    async fn the_message_is_signed_and_names_its_delivery() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = hook(listener.local_addr().unwrap().port());
        let attempt = Attempt { delivery: "abc", number: 2, at: t(9.0) };
        let letter = letter();
        let ((head, body), answer) = tokio::join!(serve(&listener, "204 No Content"), hook.send(attempt, &letter));
        assert_eq!(answer, Ok(Some(204)));
        assert!(head.starts_with("post /hook/hunter2 "));
        assert_eq!(header(&head, DELIVERY_HEADER).as_deref(), Some("abc"));
        let now = t(9.0).millis() / 1_000;
        assert_eq!(verify(b"secret", &header(&head, SIGNATURE_HEADER).unwrap(), &body, now), Ok(()));
        let message: Message = serde_json::from_slice(&body).unwrap();
        let want = Message { version: 1, delivery: "abc".into(), attempt: 2, sent_at: t(9.0), letter };
        assert_eq!(message, want);
    }

    #[tokio::test]
    async fn answers_say_whether_to_try_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hook = hook(port);
        let letter = letter();
        for (answer, want) in [
            ("200 OK", Ok(Some(200))),
            ("500 Oops\r\nretry-after: 17", Err((true, Some(500), Some(17)))),
            ("429 Slow\r\nretry-after: Wed, 21 Oct 2026 07:28:00 GMT", Err((true, Some(429), None))),
            ("408 Late", Err((true, Some(408), None))),
            ("404 Gone", Err((false, Some(404), None))),
            ("401 Who", Err((false, Some(401), None))),
            ("302 There\r\nlocation: http://127.0.0.1:1/", Err((false, Some(302), None))),
        ] {
            let attempt = Attempt { delivery: "abc", number: 1, at: t(9.0) };
            let (_, result) = tokio::join!(serve(&listener, answer), hook.send(attempt, &letter));
            let shown = format!("{result:?}");
            let got = result.map_err(|e| match e {
                SendError::Later { status, retry_after_secs, .. } => (true, status, retry_after_secs),
                SendError::Never { status, .. } => (false, status, None),
            });
            assert_eq!(got, want, "{answer}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        drop(listener);
        let attempt = Attempt { delivery: "abc", number: 1, at: t(9.0) };
        let error = hook.send(attempt, &letter).await.unwrap_err();
        assert!(matches!(&error, SendError::Later { status: None, .. }), "{error}");
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains(&port.to_string()), "{error}");
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
        for url in ["", "hunter2", "ftp://hunter2/", "http://", "mailto:hunter2"] {
            let config = WebhookConfig { url: url.into(), secret: None, timeout_secs: 1, wants: Wants::default() };
            let told = Webhook::new(&config).err().unwrap();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}

/// One suite for every kind: a letter goes out whole, and the notifier says whom it reaches without a secret.
#[tokio::test]
async fn every_kind_of_notifier_keeps_the_contract() {
    let (host, port) = ("127.0.0.1", 9);
    let text = format!(
        r#"{{"c":{{"type":"console","stream":"stderr"}},"w":{{"type":"webhook","url":"http://{host}:{port}/hunter2"}}}}"#
    );
    let config = TellConfig { notifiers: serde_json::from_str(&text).unwrap(), ..TellConfig::default() };
    let built = receivers(&config).map_err(|e| format!("{e:?}")).unwrap();
    assert_eq!(
        built.iter().map(|r| (r.name.as_str(), r.notifier.kind())).collect::<Vec<_>>(),
        [("c", "console"), ("w", "webhook")]
    );
    let book = approved();
    let letter = letters(&book.rows[0], &book.incident()).unwrap();
    for receiver in &built {
        assert!(!receiver.notifier.to().is_empty() && !receiver.notifier.to().contains("hunter2"));
        let attempt = Attempt { delivery: "abc", number: 1, at: t(9.0) };
        // Port 9 discards or refuses: whatever the answer, it ends, and holds no secret.
        let result = receiver.notifier.send(attempt, &letter).await;
        assert!(!format!("{result:?}").contains("hunter2"));
        assert!(receiver.wants.takes(&letter) && letter.severity >= Severity::Medium);
    }
    let bad = TellConfig {
        notifiers: serde_json::from_str(r#"{"w":{"type":"webhook","url":"hunter2"}}"#).unwrap(),
        ..TellConfig::default()
    };
    let told = receivers(&bad).err().unwrap();
    assert_eq!(told[0].0, "w");
    assert!(!told[0].1.contains("hunter2"));
}
