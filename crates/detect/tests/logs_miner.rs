//! Template mining from outside: grouping, refinement, bounds, restart.

use nightshift_detect::logs::backtest::{LogFormat, backtest_logs};
use nightshift_detect::logs::{MinerConfig, TemplateMiner};

fn miner() -> TemplateMiner {
    TemplateMiner::new(MinerConfig::default())
}

#[test]
fn an_id_survives_refinement() {
    let mut m = miner();
    let first = m.learn("user anna logged in from the office");
    assert!(first.is_new);
    assert!(!m.learn("user anna logged in from the office").is_new);
    let mut ids = vec![first.id];
    for name in ["bert", "carl", "dora", "emil", "fritz"] {
        ids.push(m.learn(&format!("user {name} logged in from the office")).id);
    }
    assert_eq!(m.text(first.id).as_deref(), Some("user <*> logged in from the office"));
    assert!(ids.iter().all(|id| m.resolve(*id) == first.id), "{ids:?}");
    assert!(!m.learn("user gustav logged in from the office").is_new);
    assert_eq!((m.len(), m.count(first.id)), (1, 8));
    assert_eq!(m.take_joins().len(), 4);
}

#[test]
fn few_words_in_one_place_stay_events_of_their_own() {
    let mut m = miner();
    for line in ["lock acquired by worker", "lock released by worker", "lock stolen by worker"] {
        assert!(m.learn(line).is_new);
    }
    assert_eq!(m.len(), 3);
}

#[test]
fn names_keep_what_they_have_in_common() {
    let mut m = miner();
    let mut id = 0;
    for name in ["alpha.one", "beta.two", "gamma.three", "delta.four", "eps.five"] {
        id = m.learn(&format!("com.example.{name} asked for a job")).id;
    }
    assert_eq!(m.text(id).as_deref(), Some("com.example.<*> asked for a job"));
    id = m.learn("org.other.thing asked for a job").id;
    assert_eq!(m.text(id).as_deref(), Some("<*> asked for a job"));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut m = TemplateMiner::new(MinerConfig { templates_max: 100, ..MinerConfig::default() });
    let word = |mut n: u64| {
        let mut w = String::new();
        for _ in 0..5 {
            w.push((b'a' + (n % 26) as u8) as char);
            n = (n / 26) ^ n.wrapping_mul(0x9e37_79b9);
        }
        w
    };
    for i in 0..20_000u64 {
        m.learn(&format!("{} {} {} {}", word(i * 7), word(i * 11 + 1), word(i * 13 + 2), word(i * 17 + 3)));
        m.learn("a line that is used all the time");
        assert!(m.len() <= 101);
    }
    assert!(m.stats().evicted > 0);
    assert!(!m.learn("a line that is used all the time").is_new, "what is used does not leave");
}

#[test]
fn long_lines_are_cut_and_counted() {
    let mut m = TemplateMiner::new(MinerConfig { line_bytes_max: 256, ..MinerConfig::default() });
    let a = m.learn(&format!("{}{}", "word ".repeat(60), "tail one"));
    let b = m.learn(&format!("{}{}", "word ".repeat(60), "tail two"));
    assert_eq!(a.id, b.id);
    assert_eq!(m.stats().cut, 2);
    m.learn(&"ü".repeat(3000));
    m.learn(&"( ".repeat(3000));
}

fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for i in 0..400u32 {
        let name = ["anna", "bert", "carl", "dora", "emil", "fritz", "gerd"][(i * i % 7) as usize];
        lines.push(match i % 5 {
            0 => format!("connection from 10.0.0.{i} accepted"),
            1 => format!("user {name} logged in"),
            2 => format!("com.example.{name}.job{} done in {i} ms", i % 3),
            3 => format!("cache {} for shard {}", ["hit", "miss"][(i % 2) as usize], i % 64),
            _ => format!("GET /api/v1/{name}/{i} status={}", 200 + i % 3),
        });
    }
    lines
}

#[test]
fn a_restart_anywhere_changes_nothing() {
    let lines = lines();
    let mut whole = miner();
    let want: Vec<_> = lines.iter().map(|l| whole.learn(l)).collect();
    for cut in (0..lines.len()).step_by(13) {
        let mut before = miner();
        for l in &lines[..cut] {
            before.learn(l);
        }
        let json = serde_json::to_string(&before.save()).unwrap();
        let mut after = TemplateMiner::load(MinerConfig::default(), serde_json::from_str(&json).unwrap());
        let got: Vec<_> = lines[cut..].iter().map(|l| after.learn(l)).collect();
        assert_eq!(got, want[cut..], "cut at {cut}");
        for r in &want {
            let id = whole.resolve(r.id);
            assert_eq!(after.text(id), whole.text(id));
        }
    }
}

#[test]
fn the_final_groups_are_told_for_every_line() {
    let lines = ["user a1b2 in", "x", "user ffff0 in", "x", ""];
    let mined = backtest_logs(lines, LogFormat::Content);
    assert_eq!(mined.lines, [0, 1, 0, 1, 2]);
    assert_eq!(mined.text(0), Some("user <*> in"));
    assert_eq!(mined.text(9), None);
    let raw = backtest_logs(["2026-01-02 03:04:05 INFO App: b 7", "2026-01-02 03:04:06 INFO App: b 8"], LogFormat::Raw);
    assert_eq!(raw.templates.len(), 1);
    assert_eq!(raw.text(0), Some("b <*>"));
}

#[test]
fn the_corpus_of_the_fuzzer_passes() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/detect_log_line");
    let mut n = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        nightshift_detect::logs::detector::fuzz_log_line(&std::fs::read(entry.unwrap().path()).unwrap());
        n += 1;
    }
    assert!(n >= 5);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        nightshift_detect::logs::detector::fuzz_log_line(&bytes);
    }

    #[test]
    fn the_same_lines_give_the_same_templates(words in proptest::collection::vec("[a-d]{1,2}[0-9]?( [a-d.]{1,3}){0,3}", 0..60)) {
        let (mut a, mut b) = (miner(), miner());
        for w in &words {
            proptest::prop_assert_eq!(a.learn(w), b.learn(w));
        }
    }
}
