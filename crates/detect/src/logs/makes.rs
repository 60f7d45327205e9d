//! Lines as well-known software writes them, none of it in the sets that the masks were learned from: those that say
//! the same are one template, the others are not. Two or three lines of each kind, so masks alone must do it. Names with
//! one digit (`eth0`) are left out: the masks keep them as words, and it takes three of them to make a parameter.

use super::backtest::{LogFormat, backtest_logs};
use std::collections::BTreeMap;

/// A make, and the kinds of lines it writes.
const MAKES: &[(&str, &[&[&str]])] = &[
    (
        "nginx",
        &[
            &[
                r#"10.0.0.7 - - [22/Nov/2026:17:03:11 +0000] "GET /api/v1/items?page=3 HTTP/1.1" 200 5123 "-" "curl/8.5.0""#,
                r#"10.9.0.1 - - [23/Nov/2026:01:00:59 +0000] "GET /index.html HTTP/1.1" 404 153 "-" "curl/8.5.0""#,
            ],
            &[
                r#"31#31: *7 open() "/usr/share/nginx/html/favicon.ico" failed (2: No such file or directory), client: 10.0.0.7, server: localhost, request: "GET /favicon.ico HTTP/1.1", host: "localhost:8080""#,
                r#"8#8: *1204 open() "/srv/www/robots.txt" failed (2: No such file or directory), client: 192.168.1.14, server: localhost, request: "GET /robots.txt HTTP/1.1", host: "10.0.0.5:80""#,
            ],
            &[
                r"29#29: *55 upstream timed out (110: Connection timed out) while reading response header from upstream, client: 10.1.2.3",
                r"30#30: *912 upstream timed out (110: Connection timed out) while reading response header from upstream, client: 10.1.2.4",
            ],
            &["signal 17 (SIGCHLD) received from 1234", "signal 17 (SIGCHLD) received from 77"],
        ],
    ),
    (
        "PostgreSQL",
        &[
            &[
                "LOG:  checkpoint complete: wrote 44 buffers (0.3%); 0 WAL file(s) added, 0 removed, 0 recycled; write=4.306 s, sync=0.003 s, total=4.312 s; sync files=12, longest=0.002 s, average=0.001 s; distance=260 kB, estimate=260 kB; lsn=0/1573FA0, redo lsn=0/1573F68",
                "LOG:  checkpoint complete: wrote 9120 buffers (55.7%); 0 WAL file(s) added, 12 removed, 3 recycled; write=269.001 s, sync=0.121 s, total=269.312 s; sync files=98, longest=0.052 s, average=0.002 s; distance=540672 kB, estimate=540672 kB; lsn=2/9C0000D8, redo lsn=2/80001A20",
            ],
            &[
                "LOG:  connection received: host=10.0.0.5 port=52114",
                "LOG:  connection received: host=127.0.0.1 port=40734",
            ],
            &[
                "LOG:  duration: 1523.114 ms  execute <unnamed>: SELECT 1",
                "LOG:  duration: 900.020 ms  execute <unnamed>: SELECT 1",
            ],
            &[
                r#"ERROR:  duplicate key value violates unique constraint "orders_2024_pkey""#,
                r#"ERROR:  duplicate key value violates unique constraint "users_v2_pkey""#,
            ],
            &["DETAIL:  Key (id)=(4711) already exists.", "DETAIL:  Key (id)=(12) already exists."],
            &[
                "LOG:  process 2811 still waiting for ShareLock on transaction 7519 after 1000.120 ms",
                "LOG:  process 99 still waiting for ShareLock on transaction 812345 after 1000.031 ms",
            ],
        ],
    ),
    (
        "Kafka",
        &[
            &[
                "[Partition orders-3 broker=1] ISR updated to 1,2,3 and version updated to 12",
                "[Partition payments-11 broker=2] ISR updated to 2,3 and version updated to 4",
            ],
            &[
                "[GroupCoordinator 1]: Preparing to rebalance group billing-7 in state PreparingRebalance with old generation 5 (__consumer_offsets-12) (reason: removing member consumer-1-9c3f on heartbeat expiration)",
                "[GroupCoordinator 2]: Preparing to rebalance group search-2 in state PreparingRebalance with old generation 41 (__consumer_offsets-3) (reason: removing member consumer-8-77ab on heartbeat expiration)",
            ],
            &[
                "[Log partition=orders-3, dir=/var/lib/kafka] Rolled new log segment at offset 91022 in 3 ms.",
                "[Log partition=payments-0, dir=/data/kafka-1] Rolled new log segment at offset 7 in 12 ms.",
            ],
        ],
    ),
    (
        "Prometheus",
        &[
            &[
                r#"time=2026-11-22T17:12:01.114Z level=INFO source=head.go:812 msg="WAL segment loaded" component=tsdb segment=3 maxSegment=9"#,
                r#"time=2026-11-22T17:12:02.220Z level=INFO source=head.go:812 msg="WAL segment loaded" component=tsdb segment=10 maxSegment=11"#,
            ],
            &[
                r#"ts=2026-11-22T17:12:01.114Z caller=compact.go:523 level=info component=tsdb msg="write block" mint=1700000000000 maxt=1700007200000 ulid=01HFK3Z8Q2X9 duration=1.201s"#,
                r#"ts=2026-11-22T19:12:01.700Z caller=compact.go:523 level=info component=tsdb msg="write block" mint=1700007200000 maxt=1700014400000 ulid=01HFKAZ1B7YY duration=902.1ms"#,
            ],
        ],
    ),
    (
        "Kubernetes",
        &[
            &[
                r#"I1122 17:03:11.123456    1234 kubelet.go:2345] "SyncLoop (PLEG): event for pod" pod="shop/cart-7d9f8b6c5-x2x9z""#,
                r#"I1123 01:59:00.000001   98765 kubelet.go:2345] "SyncLoop (PLEG): event for pod" pod="kube-system/coredns-5d78c9869d-4kx2m""#,
            ],
            &[
                r#"E1122 17:03:11.123456       1 leaderelection.go:330] error retrieving resource lock kube-system/kube-scheduler: Get "https://10.0.0.1:6443/apis/coordination.k8s.io/v1/leases": context deadline exceeded"#,
                r#"E1122 18:00:00.700000       1 leaderelection.go:330] error retrieving resource lock kube-system/kube-scheduler: Get "https://10.0.0.9:6443/apis/coordination.k8s.io/v1/leases": context deadline exceeded"#,
            ],
            &[
                "Back-off restarting failed container app in pod web-5f6d8-abcd1_default(0f1b7a7e-1a2b-4c3d-9e8f-aa11bb22cc33)",
                "Back-off restarting failed container app in pod web-77c9b-zz9x1_default(9a1b7a7e-1a2b-4c3d-9e8f-aa11bb22cc44)",
            ],
            &[
                "Liveness probe failed: HTTP probe failed with statuscode: 503",
                "Liveness probe failed: HTTP probe failed with statuscode: 500",
            ],
            &[
                "10.244.1.7:41234 - 22101 \"A IN shop.default.svc.cluster.local. udp 54 false 512\" NOERROR qr,aa,rd 106 0.000141s",
                "10.244.0.3:50001 - 7 \"A IN shop.default.svc.cluster.local. udp 54 false 512\" NOERROR qr,aa,rd 106 0.002201s",
            ],
        ],
    ),
    (
        "others",
        &[
            &[
                "1:M 22 Nov 2026 17:03:11.123 * 100 changes in 300 seconds. Saving...",
                "1:M 23 Nov 2026 01:10:11.900 * 10000 changes in 60 seconds. Saving...",
            ],
            &[
                "DB saved on disk, 12 MB of memory used by copy-on-write",
                "DB saved on disk, 4 MB of memory used by copy-on-write",
            ],
            &[
                "Aborted connection 1187 to db: 'shop' user: 'app' host: '10.0.0.9' (Got timeout reading communication packets)",
                "Aborted connection 12 to db: 'shop' user: 'app' host: '10.0.0.10' (Got timeout reading communication packets)",
            ],
            &[
                "10.0.1.2:38290 [22/Nov/2026:17:03:11.655] http-in api/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0",
                "10.0.1.9:1029 [22/Nov/2026:17:04:00.001] http-in api/srv2 2/0/1/7/10 503 212 - - ---- 14/13/2/1/0 0/0",
            ],
            &[
                "Started session-42.scope - Session 42 of User deploy.",
                "Started session-7.scope - Session 7 of User deploy.",
            ],
            &[
                "Out of memory: Killed process 4711 (java) total-vm:8123456kB, anon-rss:4123456kB",
                "Out of memory: Killed process 12 (java) total-vm:123456kB, anon-rss:99kB",
            ],
            &[
                "GC(117) Pause Young (Normal) (G1 Evacuation Pause) 512M->101M(1024M) 7.114ms",
                "GC(9) Pause Young (Normal) (G1 Evacuation Pause) 24M->8M(512M) 1.001ms",
            ],
            &[
                "status installed libc6:amd64 2.36-9+deb12u10",
                "status installed libc6:amd64 2.36-9",
                "status installed libc6:amd64 1:2.36~rc1-1",
            ],
        ],
    ),
];

#[test]
fn lines_that_say_the_same_are_one_template() {
    let mut wrong = Vec::new();
    for (make, kinds) in MAKES {
        let lines: Vec<(usize, &str)> =
            kinds.iter().enumerate().flat_map(|(kind, lines)| lines.iter().map(move |l| (kind, *l))).collect();
        let mined = backtest_logs(lines.iter().map(|(_, line)| *line), LogFormat::Content);
        let mut templates: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let mut kinds_of: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, (kind, line)) in lines.iter().enumerate() {
            let text = mined.text(i).unwrap();
            let of_kind = templates.entry(*kind).or_default();
            if !of_kind.contains(&text) {
                of_kind.push(text);
            }
            if *kinds_of.entry(text).or_insert(*kind) != *kind {
                wrong.push(format!("{make}: also of another kind: {line}"));
            }
        }
        wrong.extend(templates.values().filter(|t| t.len() > 1).map(|t| format!("{make}: {}", t.join("\n    "))));
    }
    assert!(wrong.is_empty(), "{} of the kinds are not one template:\n{}", wrong.len(), wrong.join("\n"));
}
