//! Playbook files from outside: every mistake with its line, and no bytes that hurt.

use nightshift_plan::{FILE_BYTES_MAX, PROBLEMS_MAX, Playbooks, fuzz_plan_expr, fuzz_playbook_yaml};
use proptest::prelude::*;

fn corpus(name: &str) -> String {
    format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/{}"), name)
}

fn told(text: &str) -> Vec<String> {
    Playbooks::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_told_at_once_with_line_reason_and_hint() {
    let text = std::fs::read_to_string(corpus("playbook_yaml") + "/mistakes.yaml").unwrap();
    let want = [
        "line 1: a playbook has no `title`; one line that people read before they approve it",
        "line 1: name `Scale Out` is no name; lower-case letters, digits, `_` and `-`, at most 64",
        "line 1: parameter `self` is made from itself; a parameter hides the fact of its name: call it otherwise, for instance `wanted`",
        "line 2: unknown key `titel` of a playbook; did you mean `title`?",
        "line 4: fault `cpu_saturaton` is not known; did you mean `cpu_saturation`?",
        "line 5: `success_rate` is `1.5`; a number from 0 to 1",
        "line 5: kinds `servce` is not known; did you mean `service`?",
        "line 6: `needs` names no `change`; write `needs: { change: deployment, within_mins: 60 }`",
        "line 8: type `integer` is not known; one of int, number, text, bool, map",
        "line 9: `min` of parameter `twice` is above its `max`; exchange the two",
        "line 9: `value`: a `(` is not closed; see docs/playbooks.md, Expressions",
        "line 11: `when`: the expression ends where a value is expected; see docs/playbooks.md, Expressions",
        "line 14: action `scale_deploymnt` is not known; did you mean `scale_deployment`?",
        "line 15: `scale_deployment` leaves something to take back; write `rollback: restore`",
        "line 15: `scale_deployment` needs `replicas`: replicas afterwards; add it under `params`",
        "line 15: a step has no `estimated_impact`; what people notice and for how long, for instance \"pod restart, 30 s\"",
        "line 15: a step of `scale_deployment` changes something and has no `expects`; facts that must be unchanged when it runs: replicas, min_replicas, max_replicas, partitions",
        "line 17: target `couse` is not known; did you mean `cause`?",
        "line 18: unknown key `replica` of `scale_deployment`; did you mean `replicas`?",
        "line 21: `scale_deployment` cannot be done to a part first; remove `canary`",
        "line 22: a step of `failover_db` does not say its `rollback`; `nothing` when there is nothing to take back, `impossible` when a person must decide",
        "line 22: risk low of `failover_db` is understated; at least high",
        "line 22: two steps are called `scale`, the first on line 15; rename one",
        "line 28: `deadline_secs` is `0`; a whole number from 1 to 3600",
        "line 31: a KPI is either a `signal` or a `family`; write `signal: METRIC` or `family: latency`",
        "line 32: family `latncy` is not known; did you mean `latency`?",
        "line 33: a KPI has more than one threshold; keep one of band, expected_times, below, above",
        "line 34: `interval_secs` is `31`; a whole number from 0 to 30",
        "line 35: `acts_at_once` is `maybe`; write true or false",
        "line 36: priority `SOON` is not known; one of IMMEDIATE, WITHIN_15MIN, WITHIN_1HOUR",
    ];
    assert_eq!(told(&text), want);
}

const GOOD: &str = include_str!("../../../../playbooks/scale_out.yaml");

#[test]
fn bad_files_and_what_they_are_told() {
    let step = "  - { name: a, action: restart_pods, risk: medium, expects: replicas, estimated_impact: x, rollback: nothing }\n";
    let with = |heals: &str, rest: &str| format!("name: a\ntitle: t\nheals: {heals}\nsteps:\n{step}{rest}");
    let bad = [
        ("", "the file holds nothing, expected a map"),
        ("- a\n", "the file holds a list, expected a map"),
        ("{}\n", "a playbook has no `heals`"),
        ("name: a\nname: b\n", "read YAML"),
        ("name: [\n", "read YAML"),
        ("name: a\n\ttitle: b\n", "read YAML"),
        (&with("[]", "verify: { kpis: latency }\n"), "`heals` names no fault class"),
        (&with("[memory_leak, memory_leak]", "verify: { kpis: latency }\n"), "`memory_leak` stands twice"),
        (&with("[memory_leak]", ""), "a playbook has no `verify`"),
        (&with("[memory_leak]", "verify: {}\n"), "`verify` has no `kpis`"),
        (
            &with("[memory_leak]", "verify: { kpis: latency }\nparams: { A: { type: int, value: 1 } }\n"),
            "is no name of `params`",
        ),
        (
            &with(
                "[memory_leak]",
                "verify: { kpis: latency }\nparams: { a: { type: text, value: \"'x'\", min: 3 } }\n",
            ),
            "is no number and has a range",
        ),
        (
            &with("[memory_leak]", "verify: { kpis: latency }\nparams: { a: { type: int } }\n"),
            "lacks its `type` or `value`",
        ),
        (
            &with(
                "[memory_leak]",
                "verify: { kpis: latency }\nparams: { a: { type: int, value: b }, b: { type: int, value: a } }\n",
            ),
            "in a circle: a, b",
        ),
        (&with("[memory_leak]", "verify: 7\n"), "`verify` is a value, expected a map"),
        (&with("7", ""), "`heals` is a value, expected a list"),
        ("name: a\ntitle: t\nheals: [oom_kill]\nsteps: []\nverify: { kpis: oom }\n", "`steps` is empty"),
        (
            "name: a\ntitle: t\nheals: [oom_kill]\nsteps:\n  - { name: a, action: patch_resources, risk: medium, expects: x, estimated_impact: x }\n",
            "`patch_resources` sets nothing",
        ),
    ];
    for (text, message) in bad {
        let problems = told(text);
        assert!(problems.iter().any(|p| p.contains(message)), "{text}\n{problems:#?}");
    }
    let huge = format!("{GOOD}# {}", "x".repeat(FILE_BYTES_MAX));
    assert!(told(&huge)[0].contains("at most"));
    let many = "name: a\n".to_owned() + &(0..500).map(|i| format!("key{i}: 1\n")).collect::<String>();
    let problems = told(&many);
    assert_eq!(problems.len(), PROBLEMS_MAX);
    assert!(problems.iter().any(|p| p.contains("further problems")));
}

#[test]
fn two_of_a_name_are_a_mistake_and_the_users_own_replaces() {
    let mine = GOOD.replace("min(replicas * 2,", "min(replicas + 1,");
    let (all, problems) = Playbooks::shipped().load([("mine.yaml", mine.as_str()), ("bad.yaml", "name: 7 7\n")]);
    assert!(problems.iter().all(|p| p.file == "bad.yaml") && problems.len() >= 3, "{problems:?}");
    assert!(all.get("scale_out").unwrap().params["wanted"].value.to_string().contains("+ 1"));
    assert_eq!(all.len(), Playbooks::shipped().len());
    let (_, problems) = Playbooks::shipped().load([("a.yaml", GOOD), ("b.yaml", GOOD)]);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["b.yaml: line 1: `scale_out` is the name of the playbook in a.yaml too; names are unique: rename one"]
    );
    assert!(Playbooks::shipped().without(&["scale_out".into()]).get("scale_out").is_none());
    // Another text is another digest: an approval is for what was read.
    let digest = |text: &str| Playbooks::parse(text).unwrap().digest;
    assert_ne!(digest(GOOD), digest(&mine));
    assert_eq!(digest(GOOD).len(), 12);
}

#[test]
fn the_corpora_hurt_nobody() {
    let mut files = 0;
    for (folder, replay) in [("playbook_yaml", fuzz_playbook_yaml as fn(&[u8])), ("plan_expr", fuzz_plan_expr)] {
        for entry in std::fs::read_dir(corpus(folder)).unwrap() {
            replay(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
    }
    assert!(files >= 8, "{files} files");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz_playbook_yaml(&bytes);
        fuzz_plan_expr(&bytes);
    }

    /// A good file with a piece cut out, doubled or replaced.
    #[test]
    fn no_damage_panics(at in 0..GOOD.len(), n in 0..40_usize, with in "[a-z0-9:{}\\[\\]'\"\n ,*()-]{0,20}") {
        let floor = |i: usize| (0..=i.min(GOOD.len())).rev().find(|i| GOOD.is_char_boundary(*i)).unwrap_or(0);
        let (from, to) = (floor(at), floor(at + n));
        fuzz_playbook_yaml(format!("{}{with}{}", &GOOD[..from], &GOOD[to..]).as_bytes());
    }

    #[test]
    fn no_expression_panics(text in "[a-z0-9_.()+*/<>=!,' -]{0,80}") {
        fuzz_plan_expr(text.as_bytes());
    }
}
