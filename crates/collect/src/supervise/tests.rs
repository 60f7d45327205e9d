//! Sources that panic, fail, end and hang, and what their supervisor makes of it.

use super::*;
use crate::testkit::TestContext;
use async_trait::async_trait;
use nightshift_health::Health;
use nightshift_model::ManualClock;

/// Does what its script says, one step per run; then observes until told to end.
struct Scripted {
    name: String,
    steps: Vec<Step>,
    clock: Arc<ManualClock>,
    runs: tokio::sync::watch::Sender<usize>,
}

#[derive(Clone, Copy)]
enum Step {
    Panic,
    Fail,
    FailAfter(Duration),
    Fatal,
    End,
}

#[async_trait]
impl Source for Scripted {
    fn name(&self) -> &str {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "scripted"
    }
    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let run = *self.runs.borrow();
        self.runs.send_replace(run + 1);
        let failed = |what: &str, fatal| SourceError { what: what.into(), source: None, fatal };
        match self.steps.get(run) {
            Some(Step::Panic) => panic!("out of hand"),
            Some(Step::Fail) => Err(failed("read the thing", false)),
            Some(Step::FailAfter(time)) => {
                self.clock.advance(*time);
                Err(failed("read the thing", false))
            }
            Some(Step::Fatal) => Err(failed("find the program", true)),
            Some(Step::End) => Ok(()),
            None => {
                context.health.healthy("observing");
                context.shutdown.cancelled().await;
                Ok(())
            }
        }
    }
}

struct Room {
    test: TestContext,
    supervisor: Supervisor,
}

fn room() -> Room {
    let test = TestContext::new("room");
    let shared = Shared {
        sink: test.sink.clone(),
        clock: test.clock.clone(),
        board: test.board.clone(),
        metrics: test.context.metrics.clone(),
    };
    let restart = RestartConfig { backoff_initial_ms: 1, backoff_max_ms: 2, healthy_after_secs: 60 };
    Room { supervisor: Supervisor::new(shared, restart, CancellationToken::new(), 7), test }
}

impl Room {
    fn start(&mut self, name: &str, steps: &[Step]) -> tokio::sync::watch::Receiver<usize> {
        let (runs, seen) = tokio::sync::watch::channel(0);
        let clock = self.test.clock.clone();
        self.supervisor.start(Box::new(Scripted { name: name.into(), steps: steps.to_vec(), clock, runs })).unwrap();
        seen
    }

    fn status(&self, name: &str) -> (Health, String) {
        let rows = self.test.board.components();
        rows.into_iter().find(|c| c.name == format!("{name}-collector")).map(|c| (c.status, c.detail)).unwrap()
    }
}

#[tokio::test]
async fn one_source_that_panics_and_fails_comes_back_and_stops_no_other() {
    let mut room = room();
    let mut good = room.start("good", &[]);
    let mut bad = room.start("bad", &[Step::Panic, Step::Fail, Step::End, Step::Panic]);
    bad.wait_for(|runs| *runs == 5).await.unwrap();
    good.wait_for(|runs| *runs == 1).await.unwrap();
    let rows = room.supervisor.table().rows();
    assert_eq!((rows[0].name.as_str(), rows[0].restarts), ("bad", 4));
    assert_eq!(rows[0].last_error, "it panicked: out of hand");
    assert_eq!((rows[1].restarts, rows[1].state), (0, SourceState::Running));
    let label = BySource { source: "bad".into() };
    assert_eq!(room.test.context.metrics.source_restarts.get_or_create(&label).get(), 4);
    assert_eq!(room.status("bad").0, Health::Healthy, "it is well again");
    let table = room.supervisor.table();
    assert!(room.supervisor.stop(Duration::from_secs(30)).await.is_empty());
    assert!(table.rows().iter().all(|r| r.state == SourceState::Ended));
}

#[tokio::test]
async fn a_fatal_error_stops_for_good_and_says_why() {
    let mut room = room();
    room.start("gone", &[Step::Fatal]);
    let task = room.supervisor.running.remove("gone").unwrap();
    task.await.unwrap();
    let (health, detail) = room.status("gone");
    assert_eq!((health, detail.as_str()), (Health::Unhealthy, "stopped for good: find the program"));
    assert_eq!(room.supervisor.table().rows()[0].state, SourceState::Failed);
}

#[tokio::test]
async fn a_healthy_period_forgives_earlier_failures() {
    let mut room = room();
    let long = Step::FailAfter(Duration::from_secs(61));
    let mut runs = room.start("s", &[Step::Fail, Step::Fail, long]);
    runs.wait_for(|runs| *runs == 4).await.unwrap();
    let row = &room.supervisor.table().rows()[0];
    assert_eq!((row.restarts, row.failures_in_a_row), (3, 1), "the third failure came after a healthy while");
}

#[tokio::test]
async fn names_are_unique() {
    let mut room = room();
    room.start("a", &[]);
    let (runs, _) = tokio::sync::watch::channel(0);
    let clock = room.test.clock.clone();
    let again = Scripted { name: "a".into(), steps: vec![], clock, runs };
    assert!(room.supervisor.start(Box::new(again)).unwrap_err().to_string().contains("`a`"));
}

#[tokio::test]
async fn one_that_does_not_end_is_cut_off_and_named() {
    struct Deaf;
    #[async_trait]
    impl Source for Deaf {
        fn name(&self) -> &str {
            "deaf"
        }
        fn kind(&self) -> &'static str {
            "deaf"
        }
        async fn run(&mut self, _: &SourceContext) -> Result<(), SourceError> {
            std::future::pending().await
        }
    }
    let mut room = room();
    room.supervisor.start(Box::new(Deaf)).unwrap();
    assert_eq!(room.supervisor.stop(Duration::from_millis(20)).await, ["deaf"]);
}

#[test]
fn backoff_doubles_to_its_limit_with_jitter_from_the_seed() {
    let config = RestartConfig { backoff_initial_ms: 100, backoff_max_ms: 1000, healthy_after_secs: 1 };
    let mut random = SmallRng::seed_from_u64(1);
    for (failures, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000), (u32::MAX, 1000)] {
        let wait = config.backoff(failures, &mut random).as_millis();
        assert!((full / 2..=full).contains(&wait), "{failures}: {wait}");
    }
    let waits = |seed| {
        let mut random = SmallRng::seed_from_u64(seed);
        (1..9).map(|n| config.backoff(n, &mut random)).collect::<Vec<_>>()
    };
    assert_eq!(waits(3), waits(3));
    assert_ne!(waits(3), waits(4));
}

#[test]
fn state_files_of_different_names_differ() {
    let around = Surroundings {
        data_dir: "/d".into(),
        host_name: "h".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    assert_eq!(around.state_file("files", "app"), Path::new("/d/files-app.json"));
    assert_ne!(around.state_file("files", "a/b"), around.state_file("files", "a_b"));
    assert!(!around.state_file("files", "../../etc").to_string_lossy().contains(".."));
}
