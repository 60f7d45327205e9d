//! Syslog as a program sends it that nobody here wrote: `logger` of util-linux, over UDP and TCP, in both formats.

use nightshift_collect::Source as _;
use nightshift_collect::supervise::{BoundAddresses, Surroundings};
use nightshift_collect::syslog::Config;
use nightshift_collect::testkit::TestContext;
use std::collections::BTreeMap;
use tokio::process::Command;

#[tokio::test]
async fn logger_is_understood() {
    let bound = BoundAddresses::default();
    let around = Surroundings {
        data_dir: "/nonexistent".into(),
        host_name: "me".into(),
        bound: bound.clone(),
        kubernetes: None,
    };
    let config = Config { udp_listen: "127.0.0.1:0".into(), tcp_listen: "127.0.0.1:0".into(), ..Config::default() };
    let mut source = config.build("syslog", &around).unwrap();
    let test = TestContext::new("syslog");
    let context = test.context.clone();
    let task = tokio::spawn(async move { source.run(&context).await });
    while bound.all().len() < 2 {
        tokio::task::yield_now().await;
    }
    let port = |key: &str| bound.all()[key].port().to_string();
    let (udp, tcp) = (port("syslog.udp_listen"), port("syslog.tcp_listen"));
    let mut sent = Vec::new();
    for (n, (transport, port)) in [("--udp", &udp), ("--tcp", &tcp)].into_iter().enumerate() {
        for (m, format) in [&["--rfc3164"][..], &["--rfc5424"], &["--rfc5424", "--octet-count"]].into_iter().enumerate()
        {
            if transport == "--udp" && format.len() > 1 {
                continue;
            }
            let text = format!("message {n}{m}: disk is full");
            let mut command = Command::new("logger");
            command.args([transport, "--server", "127.0.0.1", "--port", port]).args(format);
            let status = command.args(["--priority", "daemon.err", "--tag", "nightshift-test", &text]).status().await;
            assert!(status.expect("logger, of Debian's bsdutils, is installed").success());
            sent.push(text);
        }
    }
    let got = test.sink.wait_until(|r| r.logs.len() >= sent.len()).await;
    let by_body: BTreeMap<&str, _> = got.logs.iter().map(|l| (l.body.as_str(), l)).collect();
    for text in &sent {
        let entry = by_body.get(text.as_str()).unwrap_or_else(|| panic!("{text} is not in {:?}", got.logs));
        assert_eq!((entry.severity, entry.stream.as_str()), (17, "nightshift-test"), "{entry:?}");
        assert!(!entry.resource["host.name"].is_empty());
    }
    test.context.shutdown.cancel();
    task.await.unwrap().unwrap();
}
