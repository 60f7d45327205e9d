//! The topology file.

use crate::service;
use nightshift_model::EdgeKind;
use nightshift_topology::{Criticality, FILE_BYTES_MAX, PROBLEMS_MAX, TopologyFile, fuzz_topology_yaml};
use proptest::prelude::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/topology_yaml");
const EXAMPLE: &str = include_str!("../../../../examples/topology.yaml");

#[test]
fn the_example_is_read_whole() {
    let file = TopologyFile::parse(EXAMPLE, "elsewhere").unwrap();
    assert_eq!(file.services.len(), 6);
    let checkout = &file.services[1];
    assert_eq!(checkout.id.as_str(), "local/service/shop/checkout");
    assert_eq!(checkout.criticality, Some(Criticality::P0));
    assert_eq!(checkout.environment, "production");
    assert_eq!(checkout.slos[0].window_secs, 30 * 86_400);
    assert!((checkout.slos[1].objective - 99.0).abs() < 1e-9);
    let needs: Vec<_> = checkout.depends_on.iter().map(|d| (d.to.name(), d.kind)).collect();
    assert_eq!(
        needs,
        [
            ("orders-db".into(), EdgeKind::Calls),
            ("web1".into(), EdgeKind::RunsOn),
            ("order-events".into(), EdgeKind::Messages)
        ]
    );
}

#[test]
fn ten_mistakes_are_told_at_once_with_line_and_hint() {
    let text = std::fs::read_to_string(format!("{CORPUS}/mistakes.yaml")).unwrap();
    let problems = TopologyFile::parse(&text, "local").unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let want = [
        "line 2: unknown key `servces` of the file; did you mean `services`?",
        "line 5: unknown key `critcality` of a service; did you mean `criticality`?",
        "line 6: `chekout` is no service of this file; did you mean `checkout`?",
        "line 8: criticality `P7` is not one of P0, P1, P2, P3; P0 is worst",
        "line 9: kind `servise` is not known; did you mean `service`?",
        "line 11: objective `120` is not a percentage between 0 and 100; write 99.9",
        "line 12: an SLO has no `name`; name it, for instance `availability`",
        "line 13: window `soon` is not a duration; write 30d, 4w, 12h or 90m",
        "line 14: a service has no `name`; give it the name that its telemetry carries",
        "line 15: `local/service/-/web` stands in the file twice, first on line 4; join the two, or tell them apart by namespace",
        "line 17: `loop` depends on itself; remove the entry",
        "line 18: `name` is empty; give it a value or remove the key",
        "line 19: `attributes` is not a map; write `attributes: { language: go }`",
    ];
    assert_eq!(told, want);
}

#[test]
fn what_is_no_topology_is_refused_where_it_stops_being_one() {
    let bad = [
        ("- a\n- b\n", 1, "the file holds a list"),
        ("services: 7\n", 1, "`services` is a value, expected a list"),
        ("services:\n  - 7\n", 2, "a service is a value"),
        ("services:\n  - name: [a]\n", 2, "`name` is a list"),
        ("services:\n  - name: a\n    name: b\n", 3, "read YAML"),
        ("services: [\n", 1, "read YAML"),
        ("services:\n\t- name: a\n", 2, "read YAML"),
        ("version: 9\n", 1, "version of the file is not known"),
        ("services:\n  - {name: a, aliases: [x]}\n  - {name: b, aliases: [x]}\n", 3, "alias `x` is given to"),
        (
            "services:\n  - {name: a, namespace: x}\n  - {name: a, namespace: y}\n  - {name: b, depends_on: a}\n",
            4,
            "is not one service",
        ),
    ];
    for (text, line, message) in bad {
        let problems = TopologyFile::parse(text, "local").expect_err(text);
        assert!(problems.iter().any(|p| p.line == line && p.message.contains(message)), "{text:?}: {problems:?}");
    }
    let huge = " ".repeat(FILE_BYTES_MAX + 1);
    assert!(TopologyFile::parse(&huge, "local").unwrap_err()[0].message.contains("bytes"));
}

#[test]
fn many_mistakes_are_cut_and_counted() {
    let text = "services:\n".to_owned() + &"  - owner: x\n".repeat(5_000);
    let problems = TopologyFile::parse(&text, "local").unwrap_err();
    assert_eq!(problems.len(), PROBLEMS_MAX);
    assert!(problems.last().unwrap().message.contains("further problems"));
}

#[test]
fn the_empty_file_declares_nothing() {
    for text in ["", "# nothing yet\n", "services:\n", "services: []\n"] {
        assert_eq!(TopologyFile::parse(text, "local").unwrap().services, [], "{text:?}");
    }
}

#[test]
fn a_version_keeps_its_zero_and_a_whole_id_needs_no_entry() {
    let text = "services:\n  - name: a\n    attributes: {java: \"1.20\", port: 8080, on: true}\n    depends_on: local/service/-/b\n";
    let file = TopologyFile::parse(text, "local").unwrap();
    assert_eq!(file.services[0].attributes["java"], "1.20");
    assert_eq!(file.services[0].attributes["port"], "8080");
    assert_eq!(file.services[0].depends_on[0].to, service("b"));
}

#[test]
fn the_corpus_hurts_nobody() {
    let mut files = 0;
    for entry in std::fs::read_dir(CORPUS).unwrap() {
        fuzz_topology_yaml(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 8);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz_topology_yaml(&bytes);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "(services:|name|[-a-z:{}\\[\\],&*!|>'\"# \n]|\n  - ){0,80}") {
        fuzz_topology_yaml(text.as_bytes());
    }
}
