//! Edges from spans.

use crate::{host, service};
use nightshift_model::proto::Span;
use nightshift_model::{EntityId, Observation, Timestamp};
use nightshift_topology::{SpanJoiner, SpanJoinerConfig};
use proptest::prelude::*;

fn t(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

fn span(trace: u8, id: u8, parent: u8, kind: u32, peer: &str) -> Span {
    Span {
        start_ns: t(0).0,
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        kind,
        peer: peer.into(),
        ..Span::default()
    }
}

fn edges(joiner: &mut SpanJoiner, at: i64) -> Vec<String> {
    joiner
        .drain(t(at))
        .into_iter()
        .map(|(_, o)| match o {
            Observation::Edge { from, to, kind, count, .. } => {
                format!("{}>{} {kind:?} {count}", from.name(), to.name())
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

fn fresh() -> SpanJoiner {
    SpanJoiner::new(SpanJoinerConfig::default())
}

#[test]
fn parent_and_child_in_two_services_are_a_call_in_either_order() {
    for order in [[0, 1], [1, 0]] {
        let spans = [(service("web"), span(1, 1, 0, 3, "shop:8080")), (service("shop"), span(1, 2, 1, 2, ""))];
        let mut joiner = fresh();
        for i in order {
            joiner.observe("t", &spans[i].0, &spans[i].1, t(0));
        }
        assert_eq!(edges(&mut joiner, 0), ["web>shop Calls 1"]);
        // The child spoke for itself: its name from the client's side makes no second edge.
        assert_eq!(edges(&mut joiner, 1_000), [""; 0]);
    }
}

#[test]
fn spans_of_one_service_are_no_edge_and_tenants_do_not_mix() {
    let mut joiner = fresh();
    joiner.observe("t", &service("web"), &span(1, 1, 0, 2, ""), t(0));
    joiner.observe("t", &service("web"), &span(1, 2, 1, 1, ""), t(0));
    joiner.observe("u", &service("shop"), &span(1, 3, 1, 2, ""), t(0));
    assert_eq!(edges(&mut joiner, 1_000), [""; 0]);
}

#[test]
fn a_client_that_nobody_answers_is_believed_after_the_wait() {
    let mut joiner = fresh();
    joiner.observe("t", &service("shop"), &span(1, 1, 0, 3, "orders-db:5432"), t(0));
    joiner.observe("t", &service("shop"), &span(1, 2, 0, 3, "10.1.2.3:5432"), t(0));
    assert_eq!(edges(&mut joiner, 10), [""; 0]);
    assert_eq!(edges(&mut joiner, 100), ["shop>orders-db Calls 1"]);
    assert_eq!(joiner.waiting(), 0);
}

#[test]
fn a_consumer_depends_on_its_producer() {
    let mut joiner = fresh();
    joiner.observe("t", &service("shop"), &span(1, 1, 0, 4, ""), t(0));
    joiner.observe("t", &service("mail"), &span(1, 2, 1, 5, ""), t(0));
    assert_eq!(edges(&mut joiner, 0), ["mail>shop Messages 1"]);
}

#[test]
fn peers_are_names_not_numbers() {
    let from = EntityId::new("c", "service", "shop", "web");
    let id = |peer| SpanJoiner::peer_entity(&from, peer).map(|id| id.to_string());
    assert_eq!(id("payments.bank.svc.cluster.local:443").as_deref(), Some("c/service/bank/payments"));
    assert_eq!(id("cart").as_deref(), Some("c/service/shop/cart"));
    assert_eq!(id("api.example.com").as_deref(), Some("c/service/-/api.example.com"));
    for nobody in ["", "10.0.0.1", "10.0.0.1:80", "[::1]:80", "localhost:80", ":80"] {
        assert_eq!(id(nobody), None, "{nobody}");
    }
}

#[test]
fn a_flood_of_spans_stays_within_its_bounds() {
    let mut joiner = SpanJoiner::new(SpanJoinerConfig { spans_max: 100, edges_max: 5, ..SpanJoinerConfig::default() });
    for i in 0..10_000u32 {
        let mut s = span(1, 1, 0, 3, &format!("peer{i}"));
        s.trace_id = i.to_be_bytes().repeat(4);
        joiner.observe("t", &host("h"), &s, t(0));
    }
    assert!(joiner.waiting() <= 100);
    assert!(edges(&mut joiner, 0).len() <= 5);
    assert!(joiner.dropped() > 9_000);
}

proptest! {
    /// Spans arrive in any order and some twice: the edges are the same, each counted once.
    #[test]
    fn the_order_of_spans_does_not_matter(order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(), again in 0..8usize) {
        let names = ["a", "b", "c", "d"];
        let spans: Vec<(EntityId, Span)> = (0..8u8)
            .map(|i| (service(names[usize::from(i) % 4]), span(1, i + 1, i / 2 + u8::from(i > 0), 2, "")))
            .map(|(e, mut s)| { if s.span_id == s.parent_span_id { s.parent_span_id.clear(); } (e, s) })
            .collect();
        let run = |order: &[usize]| {
            let mut joiner = fresh();
            for &i in order {
                joiner.observe("t", &spans[i].0, &spans[i].1, t(0));
            }
            edges(&mut joiner, 0)
        };
        let straight = run(&(0..8).collect::<Vec<_>>());
        prop_assert!(!straight.is_empty());
        prop_assert_eq!(&run(&order), &straight);
        let mut twice = order;
        twice.push(again);
        let repeated = run(&twice);
        prop_assert_eq!(repeated.len(), straight.len());
    }
}
