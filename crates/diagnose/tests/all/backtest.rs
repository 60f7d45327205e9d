//! Ranking of recorded cases.

use nightshift_diagnose::backtest::{Case, Frame, LogRow, SpanRow, is_incident, rank_case};
use proptest::prelude::*;

/// 30 quiet rows; in the case the named metrics rise after the alert at 600.
fn case(names: &[&str], ill: &[(&str, f64)]) -> Case {
    let header: Vec<String> = std::iter::once("timestamp".into()).chain(names.iter().map(|n| (*n).into())).collect();
    let row = |at: i64, factor: &dyn Fn(&str) -> f64| {
        let values =
            names.iter().enumerate().map(|(i, n)| ((10.0 + i as f64 + (at / 60 % 3) as f64) * factor(n)).to_string());
        std::iter::once(at.to_string()).chain(values).collect::<Vec<_>>()
    };
    let normal = (0..30).map(|i| row(i * 60, &|_| 1.0));
    let during = (0..10).map(|i| {
        let at = i * 60 + 300;
        row(at, &|n| ill.iter().find(|(name, _)| *name == n && at >= 600).map_or(1.0, |(_, f)| *f))
    });
    Case {
        normal: Frame::from_rows(&header, normal),
        metrics: Frame::from_rows(&header, during),
        graph: vec![("web".into(), "shop".into()), ("shop".into(), "db".into()), ("mail".into(), "smtp".into())],
        alert_at: 600.0,
        ..Case::default()
    }
}

const NAMES: [&str; 6] =
    ["web|latency_p95", "shop|latency_p95", "db|latency_p95", "db|cpu_pct", "mail|latency_p95", "(front)|latency_p95"];

#[test]
fn the_deepest_ill_dependency_leads_and_pseudo_services_are_no_candidates() {
    let ill =
        [("web|latency_p95", 6.0), ("shop|latency_p95", 6.0), ("db|latency_p95", 6.0), ("(front)|latency_p95", 9.0)];
    let ranking = rank_case(&case(&NAMES, &ill));
    assert_eq!((ranking[0].service.as_str(), ranking[0].metric.as_str()), ("db", "latency_p95"), "{ranking:#?}");
    assert!(ranking[0].evidence.iter().any(|e| e.starts_with("lost_time")));
    assert!(ranking.iter().all(|r| r.service != "(front)"));
    assert!(ranking.len() >= 5, "places are filled: {ranking:#?}");
    let mut turned = NAMES;
    turned.reverse();
    let services =
        |list: &[nightshift_diagnose::backtest::Ranked]| list.iter().map(|r| r.service.clone()).collect::<Vec<_>>();
    // The quiet values differ with the place of a column, the order of what is ill does not.
    assert_eq!(services(&rank_case(&case(&turned, &ill)))[0], "db");
}

#[test]
fn what_the_alerting_service_does_not_need_is_another_matter() {
    let mut c = case(&NAMES, &[("shop|latency_p95", 4.0), ("mail|latency_p95", 50.0)]);
    assert_eq!(rank_case(&c)[0].service, "mail");
    c.alert_service = Some("web".into());
    assert_eq!(rank_case(&c)[0].service, "shop");
}

#[test]
fn lines_of_failure_and_own_time_are_symptoms() {
    let mut c = case(&NAMES, &[]);
    c.logs = (0..40)
        .map(|i| LogRow {
            at_ns: 600_000_000_000 + i,
            service: "shop".into(),
            trace_id: "".into(),
            span_id: "".into(),
            message: format!("connection {i} refused"),
        })
        .collect();
    let first = &rank_case(&c)[0];
    assert_eq!((first.service.as_str(), first.metric.as_str()), ("shop", "log"));
    // The same lines in normal times say nothing.
    c.normal_logs = c.logs.clone();
    assert!(rank_case(&c).iter().all(|r| r.metric != "log"));
    let span = |ms: i64, i: i64| SpanRow {
        start_ns: i,
        end_ns: i + ms * 1_000_000,
        trace_id: i.to_string().as_str().into(),
        span_id: "a".into(),
        parent_id: "root".into(),
        service: "db".into(),
        operation: "query".into(),
    };
    c.normal_spans = (0..20).map(|i| span(10, i)).collect();
    c.spans = (0..20).map(|i| span(100, i)).collect();
    assert_eq!(rank_case(&c)[0].service, "db");
}

#[test]
fn nothing_wrong_says_so_and_a_fault_says_more() {
    let best = |c: &Case| rank_case(c).first().map_or(0.0, |r| r.support);
    assert!(best(&case(&NAMES, &[])) < 0.1, "noise is no evidence");
    assert!(!is_incident(&rank_case(&case(&NAMES, &[]))) && !is_incident(&[]));
    let ill = case(&NAMES, &[("db|cpu_pct", 6.0)]);
    assert!(best(&ill) > 2.0 && is_incident(&rank_case(&ill)));
}

#[test]
fn time_lost_between_two_services_is_of_the_one_whose_wires_are_all_slow() {
    let names = [
        "web|client_lat_p50_to_shop_s",
        "web|client_lat_p50_to_db_s",
        "shop|client_lat_p50_to_db_s",
        "shop|server_lat_p50_from_web_s",
        "db|server_lat_p50_from_web_s",
        "db|server_lat_p50_from_shop_s",
    ];
    let mut c = case(&names, &[("web|client_lat_p50_to_db_s", 9.0), ("shop|client_lat_p50_to_db_s", 9.0)]);
    c.graph.clear();
    assert_eq!(rank_case(&c)[0].service, "db");
}

#[test]
fn who_asks_no_more_though_asked_as_ever_broke_off() {
    let names = ["web|requests_sum", "shop|requests_sum", "db|requests_sum"];
    assert_eq!(rank_case(&case(&names, &[("db|requests_sum", 0.0)]))[0].service, "shop");
}

#[test]
fn a_dependency_that_was_never_there_is_not_what_broke() {
    let names = ["shop|availability_avg", "db|availability_avg"];
    let mut c = case(&names, &[("shop|availability_avg", 0.5), ("db|availability_avg", 0.1)]);
    assert_eq!(rank_case(&c)[0].service, "db");
    c.normal.columns.retain(|key, _| key.0 != "db");
    assert_eq!(rank_case(&c)[0].service, "shop");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Neither the order of columns and edges nor the unit of a kind of metric matters.
    #[test]
    fn order_and_units_do_not_matter(
        factors in prop::collection::vec(1.0..20.0_f64, NAMES.len()),
        unit in 0.001..1000.0_f64,
        kind in prop::sample::select(vec!["latency_p95", "cpu_pct"]),
    ) {
        let ill: Vec<(&str, f64)> = NAMES.iter().copied().zip(factors).collect();
        let first = case(&NAMES, &ill);
        let mut second = first.clone();
        second.graph.reverse();
        for frame in [&mut second.metrics, &mut second.normal] {
            for (_, values) in frame.columns.iter_mut().filter(|(key, _)| key.1 == kind) {
                values.iter_mut().flatten().for_each(|v| *v *= unit);
            }
        }
        let places = |c: &Case| rank_case(c).into_iter().map(|r| (r.service, r.metric)).collect::<Vec<_>>();
        prop_assert_eq!(places(&first), places(&second));
    }

    #[test]
    fn no_table_panics(
        header in prop::collection::vec("[a-c(]{0,2}\\|?[a-z_]{0,8}", 0..6),
        rows in prop::collection::vec(prop::collection::vec("-?[0-9]{0,20}(e[0-9]{1,3})?|NaN|inf|", 0..7), 0..20),
        graph in prop::collection::vec(("[a-c]{0,2}", "[a-c]{0,2}"), 0..6),
        at in any::<f64>(),
    ) {
        let frame = Frame::from_rows(&header, rows);
        let c = Case { metrics: frame.clone(), normal: frame, graph, alert_at: at, alert_service: Some("a".into()), ..Case::default() };
        for r in rank_case(&c) {
            prop_assert!(r.score.is_finite());
        }
    }
}
