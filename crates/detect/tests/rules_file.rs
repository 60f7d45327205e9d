//! Rule files from outside: the shipped ones pass their tests, and mistakes are told all at once with their place.

use nightshift_detect::rules::{check_file, parse_file, run_tests};
use std::collections::BTreeSet;

const DEFAULT: &str = include_str!("../../../rules/default.yaml");

#[test]
fn the_shipped_rules_have_no_problem_and_each_has_a_test_that_fires() {
    let problems = check_file(DEFAULT);
    assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
    let results = run_tests(DEFAULT);
    let failed: Vec<_> = results.iter().filter(|r| !r.passed()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let tested: BTreeSet<_> = results.iter().map(|r| r.rule.as_str()).collect();
    for rule in parse_file(DEFAULT).unwrap().rules {
        assert!(tested.contains(rule.name.as_str()), "rule {} has no test", rule.name);
        assert!(!rule.description.is_empty(), "rule {} has no description", rule.name);
    }
}

/// A test that cannot fail proves nothing: with every threshold turned around the shipped tests must fail.
#[test]
fn the_shipped_tests_can_fail() {
    let turned = DEFAULT.replace("firing: true", "firing: TRUE").replace("firing: false", "firing: true");
    let turned = turned.replace("firing: TRUE", "firing: false");
    let results = run_tests(&turned);
    assert!(!results.is_empty() && results.iter().all(|r| !r.passed()));
    assert!(results[0].failures[0].contains("at 240s it should fire, and does not"), "{:?}", results[0]);
}

#[test]
fn ten_mistakes_are_told_at_once_each_with_line_and_hint() {
    let text = r#"
rules:
  - name: one
    when: avrg(up, 5m) < 1
  - name: one
    when: up = 1
  - name: two words
    when: up == 0
    severety: high
  - name: three
    when: |
      up == 0
      and up
    for: 5
    fault: disk_ful
    severity: urgent
  - name: four
    when: "up{job='x'} > 80%"
    summary: "{value} of {job}"
    by: job
  - when: up == 0
  - just text
tests:
  - name: t
    rule: thre
    series:
      - series: up{job=~"x"}
        values: 1 2 b
      - series: up
        values: 0x5
    expect:
      - at: 5m
        firing: maybe
extra: 1
"#;
    let want: &[(usize, usize, &str, &str)] = &[
        (4, 11, "no function `avrg`", "`avg`"),
        (5, 5, "two rules `one`", "own name"),
        (6, 14, "`=` compares nothing", "=="),
        (7, 11, "`two words` cannot be", "letters"),
        (9, 5, "no key `severety`", "`severity`"),
        (13, 11, "this is a number", "compare"),
        (14, 10, "`for: 5` is not a duration", "2m"),
        (15, 12, "not a fault class", "`disk_full`"),
        (16, 15, "`urgent` is not a severity", "critical"),
        (19, 26, "no place `{job}`", "listed in `by`"),
        (20, 9, "`by` is a text, a list is needed", "- "),
        (21, 5, "a rule has no `name`", "add"),
        (22, 5, "a rule is a text", "name, description"),
        (25, 11, "no rule `thre`", "`three`"),
        (27, 9, "not tests of labels", "="),
        (28, 17, "`b` cannot be read", "0+10x5"),
        (30, 17, "hexadecimal", "quotes"),
        (33, 17, "`firing` is a text", "true or false"),
        (34, 1, "no key `extra`", "rules, tests"),
    ];
    let found = check_file(text);
    for (line, column, message, hint) in want {
        assert!(
            found.iter().any(|p| p.line == *line
                && p.column == *column
                && p.message.contains(message)
                && p.hint.contains(hint)),
            "{line}:{column} {message} is not in\n{}",
            found.iter().map(|p| format!("{p}\n")).collect::<String>()
        );
    }
    assert_eq!(found.len(), want.len(), "{found:#?}");
    assert!(found.is_sorted_by_key(|p| (p.line, p.column)));
    assert!(run_tests(text).is_empty());
}

#[test]
fn whole_files_that_are_none() {
    for (text, message) in [
        ("", "a map is needed"),
        ("- 1\n", "a map is needed"),
        ("rules: 5\n", "a list is needed"),
        ("rules: [\n", "not YAML"),
        ("tests: []\n", "no `rules`"),
        ("rules:\n  - name: a\n    name: b\n    when: up == 0\n", ""),
        (&"a".repeat(2 << 20), "at most"),
        (&"[".repeat(100_000), ""),
    ] {
        let problems = check_file(text);
        assert!(problems.iter().any(|p| p.message.contains(message)), "{:.20}: {problems:?}", text);
    }
    assert!(check_file("rules: []\n").is_empty());
}

#[test]
fn a_test_that_would_run_for_days_is_refused() {
    let text = "rules: [{name: a, when: up == 0}]\ntests:\n  - name: t\n    rule: a\n    interval: 1s\n    series: []\n    \
                expect: [{at: 7d, firing: false}]\n";
    let results = run_tests(text);
    assert!(results[0].failures[0].contains("steps"), "{results:?}");
}

#[test]
fn the_corpora_of_the_fuzzers_pass() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 2] = [
        ("rule_expr", nightshift_detect::rules::expr::fuzz_rule_expr),
        ("rule_file", nightshift_detect::rules::file::fuzz_rule_file),
    ];
    for (name, target) in targets {
        let dir = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut n = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            n += 1;
        }
        assert!(n >= 4, "{name}");
    }
}
