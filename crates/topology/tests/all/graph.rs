//! The graph: names, joins, edges, ages, questions.

use crate::{host, service};
use nightshift_model::{EdgeKind, EntityId, EntityMeta, Observation, Timestamp};
use nightshift_topology::{Row, Topology, TopologyConfig, TopologyFile};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn t(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

fn edge(from: &str, to: &str, at: i64) -> Observation {
    Observation::Edge { from: service(from), to: service(to), kind: EdgeKind::Calls, count: 1, at: t(at) }
}

fn seen(id: EntityId, at: i64) -> Observation {
    Observation::Entity { entity: EntityMeta::bare(id), at: t(at) }
}

fn alias(name: &str, entity: EntityId, at: i64) -> Observation {
    Observation::Alias { name: name.into(), entity, at: t(at) }
}

/// Keeps rows as a store would.
#[derive(Default, Clone)]
struct Rows(BTreeMap<(String, String), Vec<u8>>);

impl Rows {
    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            let key = (row.collection, row.key);
            match row.body {
                Some(body) => drop(self.0.insert(key, body)),
                None => drop(self.0.remove(&key)),
            }
        }
    }

    fn all(&self) -> Vec<Row> {
        let one = |((c, k), b): (&(String, String), &Vec<u8>)| Row {
            collection: c.clone(),
            key: k.clone(),
            body: Some(b.clone()),
        };
        self.0.iter().map(one).collect()
    }
}

fn learn(observations: &[Observation]) -> (Topology, Rows) {
    let (mut topology, mut rows) = (Topology::new(TopologyConfig::default()), Rows::default());
    for o in observations {
        rows.take(topology.apply(o, t(1_000_000)));
    }
    (topology, rows)
}

#[test]
fn a_host_with_three_names_is_one_entity_and_keeps_the_oldest_id() {
    let (topology, rows) = learn(&[
        seen(host("web1"), 0),
        alias("host.name=web1", host("web1"), 0),
        seen(host("10.0.0.7"), 5),
        alias("instance=10.0.0.7", host("10.0.0.7"), 5),
        edge("shop", "db", 6),
        Observation::Edge { from: service("shop"), to: host("10.0.0.7"), kind: EdgeKind::RunsOn, count: 3, at: t(7) },
        // The agent says: this address is web1.
        alias("instance=10.0.0.7", host("web1"), 9),
        // And an entity may be named as a whole.
        alias(host("web1.lan").as_str(), host("web1"), 10),
    ]);
    for name in ["web1", "10.0.0.7", "web1.lan"] {
        assert_eq!(topology.resolve(&host(name)), &host("web1"), "{name}");
    }
    assert_eq!(topology.alias("instance=10.0.0.7"), Some(&host("web1")));
    assert!(topology.edge(&service("shop"), &host("web1"), t(10)).is_some());
    assert_eq!(topology.callers(&host("web1.lan")).count(), 1);
    let (back, wrong) = Topology::from_rows(TopologyConfig::default(), rows.all());
    assert_eq!(wrong, [""; 0]);
    assert_eq!(back.view(100, t(10))["edges"], topology.view(100, t(10))["edges"]);
    assert_eq!(back.resolve(&host("10.0.0.7")), &host("web1"));
}

#[test]
fn a_chain_of_joins_ends_at_the_eldest() {
    let (topology, _) = learn(&[
        seen(host("c"), 3),
        seen(host("b"), 2),
        seen(host("a"), 1),
        alias(host("c").as_str(), host("b"), 4),
        alias(host("b").as_str(), host("a"), 5),
    ]);
    assert_eq!(topology.resolve(&host("c")), &host("a"));
    assert_eq!(topology.sizes().0, 1);
}

#[test]
fn learned_edges_age_out_and_declared_ones_stay() {
    let file = TopologyFile::parse("services:\n  - {name: a, depends_on: b}\n  - {name: b}\n", "local").unwrap();
    let mut topology = Topology::new(TopologyConfig { edge_ttl_secs: 100, ..TopologyConfig::default() });
    topology.declare(&file);
    topology.apply(&edge("a", "b", 0), t(0));
    topology.apply(&edge("a", "c", 0), t(0));
    assert_eq!(topology.expire(t(50)), []);
    let gone = topology.expire(t(200));
    assert_eq!(gone.iter().filter(|r| r.body.is_none()).count(), 2, "{gone:?}");
    let left: Vec<String> = topology.dependencies(&service("a")).map(|n| n.id.name()).collect();
    assert_eq!(left, ["b"]);
    // Declared no more: gone with the next reading of the file.
    topology.declare(&TopologyFile::default());
    assert_eq!(topology.dependencies(&service("a")).count(), 0);
}

#[test]
fn the_count_of_an_edge_halves_while_it_is_not_seen() {
    let config = TopologyConfig { edge_half_life_secs: 100, ..TopologyConfig::default() };
    let mut topology = Topology::new(config);
    for _ in 0..8 {
        topology.apply(&edge("a", "b", 0), t(0));
    }
    let count = |at| topology.edge(&service("a"), &service("b"), t(at)).unwrap().count;
    assert!((count(0) - 8.0).abs() < 1e-9);
    assert!((count(100) - 4.0).abs() < 1e-9);
    assert!((count(300) - 1.0).abs() < 1e-9);
}

#[test]
fn a_repetition_is_written_only_now_and_then() {
    let mut topology = Topology::new(TopologyConfig { touch_secs: 60, ..TopologyConfig::default() });
    let writes: usize = (0..600).map(|s| topology.apply(&edge("a", "b", s), t(s)).len()).sum();
    assert_eq!(writes, 10);
    let writes: usize = (0..600).map(|s| topology.apply(&seen(host("h"), s), t(s)).len()).sum();
    assert_eq!(writes, 10);
}

#[test]
fn questions_up_down_path_and_blast_radius() {
    let text = "services:
  - {name: web, depends_on: [shop], business_impact: 'every visitor', criticality: P1}
  - {name: shop, depends_on: [db], business_impact: '30 % of payments', criticality: P0}
  - {name: db, criticality: P2}
";
    let mut topology = Topology::new(TopologyConfig::default());
    topology.declare(&TopologyFile::parse(text, "local").unwrap());
    assert_eq!(topology.up(&service("db"), 8), BTreeMap::from([(service("shop"), 1), (service("web"), 2)]));
    assert_eq!(topology.up(&service("db"), 1).len(), 1);
    assert_eq!(topology.down(&service("web"), 8).len(), 2);
    let path = topology.path(&service("web"), &service("db"), 8).unwrap();
    assert_eq!(path, [service("web"), service("shop"), service("db")]);
    assert_eq!(topology.path(&service("db"), &service("web"), 8), None);
    assert_eq!(topology.path(&service("web"), &service("db"), 1), None);

    let radius = topology.blast_radius(&[service("db")]);
    assert_eq!(radius.at_risk, [service("shop"), service("web")]);
    assert_eq!(radius.criticality, "P2");
    assert_eq!(radius.estimated_user_impact.as_deref(), Some("at risk: 30 % of payments; every visitor"));
    let radius = topology.blast_radius(&[service("db"), service("shop")]);
    assert_eq!((radius.criticality.as_str(), radius.at_risk), ("P0", vec![service("web")]));
    assert_eq!(radius.estimated_user_impact.as_deref(), Some("30 % of payments"));
    assert_eq!(topology.find("shop"), Some(&service("shop")));
    assert_eq!(topology.view_of("nothing", 3), None);
    assert_eq!(topology.view_of("db", 3).unwrap()["up"][1]["hops"], 2);
}

#[test]
fn bounds_hold_and_are_counted() {
    let config = TopologyConfig { entities_max: 3, edges_max: 2, aliases_max: 1, ..TopologyConfig::default() };
    let mut topology = Topology::new(config);
    for i in 0..10 {
        topology.apply(&seen(host(&format!("h{i}")), i), t(i));
        topology.apply(&edge("a", &format!("s{i}"), i), t(i));
        topology.apply(&alias(&format!("n{i}"), host("h0"), i), t(i));
    }
    topology.apply(&edge("a", "a", 0), t(0));
    assert_eq!(topology.sizes(), (3, 2, 1));
    let rejected = topology.rejected();
    assert_eq!((rejected.entities, rejected.edges, rejected.aliases), (7, 9, 9));
}

#[test]
fn damaged_rows_are_told_and_left_out() {
    let row =
        |collection: &str, body: &[u8]| Row { collection: collection.into(), key: "k".into(), body: Some(body.into()) };
    let rows = [row("topology.edge", b"{}"), row("topology.entity", b"\xff"), row("elsewhere", b"{}")];
    let (topology, wrong) = Topology::from_rows(TopologyConfig::default(), rows);
    assert_eq!((topology.sizes(), wrong.len()), ((0, 0, 0), 3));
}

#[test]
fn a_test_entity_is_not_learned() {
    let mut meta = EntityMeta::bare(host("burst"));
    meta.synthetic = true;
    let (topology, rows) = learn(&[Observation::Entity { entity: meta, at: t(0) }]);
    assert_eq!((topology.sizes().0, rows.0.len()), (0, 0));
}

fn observations() -> impl Strategy<Value = Vec<Observation>> {
    let one = (0..4u8, 0..6u8, 0..6u8, 0..100i64).prop_map(|(what, a, b, at)| {
        let name = |n: u8| service(&format!("s{n}"));
        match what {
            0 => seen(name(a), at),
            1 => alias(name(a).as_str(), name(b), at),
            2 => alias(&format!("alias{a}"), name(b), at),
            _ => edge(&format!("s{a}"), &format!("s{b}"), at),
        }
    });
    prop::collection::vec(one, 0..60)
}

proptest! {
    /// What is stored is the graph: reading it back gives the same answers.
    #[test]
    fn rows_give_the_graph_back(list in observations()) {
        let config = TopologyConfig { touch_secs: 0, ..TopologyConfig::default() };
        let (mut topology, mut rows) = (Topology::new(config.clone()), Rows::default());
        for o in &list {
            rows.take(topology.apply(o, t(1_000)));
        }
        let (back, wrong) = Topology::from_rows(config, rows.all());
        prop_assert_eq!(wrong, Vec::<String>::new());
        let strip = |topology: &Topology| {
            let mut view = topology.view(1_000, t(1_000));
            view["revision"] = 0.into();
            view
        };
        prop_assert_eq!(strip(&back), strip(&topology));
    }

    /// No edge leads to an entity that was joined into another, and every edge is known from both ends.
    #[test]
    fn joins_leave_no_loose_ends(list in observations()) {
        let (topology, _) = learn(&list);
        for n in 0..6 {
            let id = service(&format!("s{n}"));
            let whole = topology.resolve(&id).clone();
            prop_assert_eq!(topology.resolve(&whole), &whole);
            for next in topology.dependencies(&id) {
                prop_assert_eq!(topology.resolve(next.id), next.id);
                prop_assert!(topology.callers(next.id).any(|c| *c.id == whole));
            }
        }
    }
}
