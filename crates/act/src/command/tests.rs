//! Programs that misbehave.

use super::*;
use crate::conformance::order;
use nightshift_model::{ManualClock, Timestamp};
use serde_json::json;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn target() -> EntityId {
    EntityId::new("prod", "service", "shop", "payment")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn action(apply: &[&str]) -> CommandAction {
    let (look, dry_run, canary, observe, undo) = Default::default();
    CommandAction { action: ActionType::RunJob, apply: words(apply), look, dry_run, canary, observe, undo }
}

/// `sh -c SCRIPT`, which only a user who names the shell gets.
fn shell(script: &str) -> CommandConfig {
    CommandConfig {
        programs: words(&["/bin/sh"]),
        actions: vec![CommandAction {
            look: words(&["/bin/sh", "-c", script]),
            observe: words(&["/bin/sh", "-c", script]),
            ..action(&["/bin/sh", "-c", script, "sh", "{name}", "{params.x}"])
        }],
        ..CommandConfig::default()
    }
}

fn built(config: &CommandConfig) -> Result<Command, BuildError> {
    config.build(Arc::new(ManualClock::at(NOW)))
}

fn job(operation: Operation) -> Action {
    let params = [("x".to_owned(), json!("a b; exit 3"))].into();
    Action { operation, ..order(&target(), ActionType::RunJob, params, NOW) }
}

async fn apply(script: &str) -> Result<Answer, ActError> {
    built(&shell(script)).unwrap().perform(&job(Operation::Apply)).await
}

#[tokio::test]
async fn exit_codes_mean_what_the_docs_say() {
    for (script, operation, want) in [
        ("exit 0", Operation::Apply, Ok(ActionOutcome::Done)),
        ("exit 75", Operation::Apply, Err("NotDone")),
        ("exit 1", Operation::Apply, Ok(ActionOutcome::Failed)),
        ("exit 70", Operation::Apply, Ok(ActionOutcome::Failed)),
        ("kill -9 $$", Operation::Apply, Err("Uncertain")),
        ("exit 0", Operation::Observe, Ok(ActionOutcome::FoundDone)),
        ("exit 1", Operation::Observe, Ok(ActionOutcome::Failed)),
        ("exit 2", Operation::Observe, Ok(ActionOutcome::Unknown)),
        ("exit 75", Operation::Observe, Err("NotDone")),
        ("kill -9 $$", Operation::Observe, Err("NotDone")),
    ] {
        let got = built(&shell(script)).unwrap().perform(&job(operation)).await;
        let told = format!("{script} of {operation}: {got:?}");
        match (got, want) {
            (Ok(answer), Ok(want)) => assert_eq!(answer.outcome, want, "{told}"),
            (Err(error), Err(want)) => assert!(format!("{error:?}").starts_with(want), "{told}"),
            _ => panic!("{told}"),
        }
    }
}

#[tokio::test]
async fn values_are_arguments_and_nothing_more() {
    let answer = apply(r#"printf '%s|%s|%s\n' "$#" "$1" "$2""#).await.unwrap();
    assert_eq!(answer.detail, "2|payment|a b; exit 3");
}

#[tokio::test]
async fn the_environment_is_cleared() {
    let mut config = shell("env | sort | tr '\\n' ' '");
    config.env.insert("REGION".into(), "eu".into());
    let answer = built(&config).unwrap().perform(&job(Operation::Apply)).await.unwrap();
    let names: Vec<&str> =
        answer.detail.split(' ').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect();
    let known = ["NIGHTSHIFT_DEADLINE", "NIGHTSHIFT_FENCE", "NIGHTSHIFT_KEY", "NIGHTSHIFT_OPERATION", "PATH", "REGION"];
    // What the shell itself adds is not ours.
    let seen: Vec<&str> = names.into_iter().filter(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n)).collect();
    assert_eq!(seen, known, "{}", answer.detail);
}

#[tokio::test]
async fn standard_input_is_empty_and_outputs_are_bounded() {
    assert_eq!(apply("cat; echo end").await.unwrap().detail, "end");
    let endless = "yes 0123456789 | head -c 3000000; echo; echo told >&2";
    assert_eq!(apply(endless).await.unwrap().detail, "told");
    let command = built(&shell("yes '{' | head -c 3000000")).unwrap();
    let why = command.look(&target(), ActionType::RunJob).await.unwrap_err().to_string();
    assert!(why.contains("printed more than is taken"), "{why}");
}

#[tokio::test]
async fn what_hangs_is_killed_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!("sleep 600 & echo $! >{0}; echo $$ >>{0}; wait", pids.display());
    let command = built(&shell(&script)).unwrap();
    let order = Action { deadline: NOW + Duration::from_secs(2), ..job(Operation::Apply) };
    let late = command.perform(&order).await.unwrap_err();
    assert!(matches!(&late, ActError::Uncertain(why) if why.contains("killed at its deadline")), "{late:?}");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2, "it ran");
    for pid in pids.lines() {
        assert!(is_gone(pid), "{pid} still runs");
    }
}

#[tokio::test]
async fn what_is_given_up_is_killed_too() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!("sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    let command = built(&shell(&script)).unwrap();
    let order = job(Operation::Apply);
    let mut running = Box::pin(command.perform(&order));
    while !pids.exists() {
        tokio::select! {
            ended = &mut running => panic!("{ended:?}"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    drop(running);
    let pid = std::fs::read_to_string(&pids).unwrap();
    assert!(is_gone(pid.trim()), "{pid} still runs");
}

/// Whether a process has ended, or is about to: a signal that cannot be caught takes a moment.
fn is_gone(pid: &str) -> bool {
    let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        // The state follows the name in brackets; a zombie has ended.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
    };
    (0..500).any(|_| {
        let is = gone();
        if !is {
            std::thread::sleep(Duration::from_millis(10));
        }
        is
    })
}

#[tokio::test]
async fn what_is_left_behind_does_not_hold_the_answer_up() {
    let answer = apply("sleep 600 & echo told").await.unwrap();
    assert_eq!(answer.detail, "told");
}

#[tokio::test]
async fn a_program_that_is_not_there_was_not_started() {
    let config = CommandConfig {
        programs: words(&["/nowhere/job"]),
        actions: vec![action(&["/nowhere/job"])],
        ..CommandConfig::default()
    };
    let refused = built(&config).unwrap().perform(&job(Operation::Apply)).await.unwrap_err();
    assert!(matches!(&refused, ActError::Refused(why) if why.contains("start `/nowhere/job`")), "{refused:?}");
}

#[tokio::test]
async fn programs_run_as_their_own_user() {
    let own = rustix::process::geteuid();
    let config = CommandConfig { uid: Some(65_534), ..shell("id -u; id -g; id -G | tr '\\n' ' '") };
    match built(&config) {
        Ok(command) => {
            assert!(own.is_root(), "only root may");
            assert_eq!(command.perform(&job(Operation::Apply)).await.unwrap().detail, "65534", "groups: its own only");
        }
        Err(e) => {
            assert!(!own.is_root());
            assert!(e.key == "uid" && e.what.contains("only root may change users"), "{e}");
        }
    }
}

#[test]
fn each_bad_setting_is_refused_with_its_key() {
    let good = shell("exit 0");
    assert!(built(&good).is_ok());
    let with = |edit: &dyn Fn(&mut CommandConfig)| {
        let mut config = good.clone();
        edit(&mut config);
        built(&config).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for (told, want) in [
        (with(&|c| c.programs = words(&["sh"])), "programs.0: `sh` is no whole path"),
        (with(&|c| c.programs = words(&["/bin/../sh"])), "programs.0"),
        (with(&|c| c.programs.clear()), "actions.0.apply: `/bin/sh` is not in `programs`"),
        (with(&|c| c.actions.clear()), "actions: name what it does"),
        (with(&|c| c.actions[0].apply.clear()), "actions.0.apply: name a program"),
        (
            with(&|c| c.actions[0].undo = words(&["/bin/rm", "{name}"])),
            "actions.0.undo: `/bin/rm` is not in `programs`",
        ),
        (with(&|c| c.actions[0].look = words(&["/bin/sh", "{key}"])), "actions.0.look"),
        (with(&|c| c.actions[0].apply = words(&["/bin/sh", "--x={name}"])), "actions.0.apply"),
        (with(&|c| c.actions[0].action = ActionType::ManualReview), "actions.0.action: manual_review"),
        (with(&|c| c.actions.push(c.actions[0].clone())), "actions.1.action: run_job is there twice"),
        (with(&|c| c.working_dir = "tmp".into()), "working_dir"),
        (with(&|c| c.pass_env = words(&["A=B"])), "env: `A=B`"),
        (with(&|c| drop(c.env.insert("A".into(), "\0".into()))), "env: a value"),
        (with(&|c| c.gid = Some(7)), "gid: a group needs a user"),
    ] {
        assert!(told.starts_with(want), "`{told}` is not `{want}`");
    }
}

#[test]
fn bad_images_are_refused() {
    for bad in ["", "[]", "3", "{", "{\"a\":}", "{} {}", "\u{0}"] {
        assert!(read_image(bad.as_bytes(), false).unwrap_err().contains("printed no JSON object"), "{bad}");
    }
    assert!(read_image(&vec![b' '; IMAGE_BYTES_MAX + 1], false).unwrap_err().contains("more than is taken"));
    assert!(read_image(b"{}", true).is_err());
    assert_eq!(read_image(b" {\"replicas\": 3}\n", false).unwrap()["replicas"], 3);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/command_look");
    let seeds =
        std::fs::read_dir(folder).unwrap().map(|e| fuzz_command_look(&std::fs::read(e.unwrap().path()).unwrap()));
    assert!(seeds.count() >= 3);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        fuzz_command_look(&bytes);
    }
}
