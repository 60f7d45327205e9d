//! The journal, through a program that behaves as `journalctl` does.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use nightshift_collect::journald::Config;
use nightshift_collect::supervise::{BoundAddresses, Surroundings};
use nightshift_collect::testkit::TestContext;
use nightshift_collect::{Source as _, SourceError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tokio::task::JoinHandle;

fn run(program: &str, dir: &Path) -> (TestContext, JoinHandle<Result<(), SourceError>>) {
    let around = Surroundings {
        data_dir: dir.into(),
        host_name: "me".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    let config = Config { program: program.into(), units: vec!["a.service".into()], ..Config::default() };
    let mut source = config.build("journald", &around).unwrap();
    let test = TestContext::new("journald");
    let context = test.context.clone();
    (test, tokio::spawn(async move { source.run(&context).await }))
}

fn fake(dir: &Path, script: &str) -> String {
    let path = dir.join("journalctl");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_machine_without_it_is_told_so_and_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_test, task) = run("no-such-journalctl", dir.path());
    let error = task.await.unwrap().unwrap_err();
    assert!(error.fatal && error.what.contains("not present on this machine"), "{error}");
}

#[tokio::test]
async fn it_goes_on_after_the_cursor_and_asks_for_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let program = fake(
        dir.path(),
        r#"printf '{"__CURSOR":"s=7;i=1","PRIORITY":"6","MESSAGE":"%s"}\n' "$*"; printf 'no json\n'; sleep 1000"#,
    );
    for (run_no, part) in [(1, "--lines=0"), (2, "--after-cursor=s=7;i=1")] {
        let (test, task) = run(&program, dir.path());
        let got = test.sink.wait_until(|r| !r.logs.is_empty()).await;
        let arguments = &got.logs[0].body;
        for want in [part, "--follow", "--output=json", "--unit=a.service"] {
            assert!(arguments.contains(want), "run {run_no}: {want} is not in {arguments}");
        }
        assert_eq!(got.logs[0].severity, 9);
        test.context.shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_end_that_nobody_asked_for_is_an_error_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let program = fake(dir.path(), "echo 'Failed to open journal' >&2; sleep 0.2; exit 1");
    let (_test, task) = run(&program, dir.path());
    let error = task.await.unwrap().unwrap_err();
    assert!(!error.fatal && error.what.contains("Failed to open journal"), "{error}");
}
