//! Nightshift's own metrics, in one registry.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt::Write as _;

/// Labels with one name; the values are few and fixed.
macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),* };)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
            #[expect(missing_docs, reason = "the fields are the labels of the same name")]
            pub struct $name { $(pub $field: Text),* }
        )*
    };
}

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(pub std::borrow::Cow<'static, str>);

impl EncodeLabelValue for Text {
    fn encode(&self, e: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        e.write_str(&self.0)
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

labels! {
    /// By source, as configured.
    BySource { source };
    /// By source and reason.
    BySourceAndReason { source, reason };
    /// By reason.
    ByReason { reason };
    /// By severity and status.
    BySeverityAndStatus { severity, status };
    /// By severity and kind.
    BySeverityAndKind { severity, kind };
    /// By group and topic.
    ByGroupAndTopic { group, topic };
    /// By outcome.
    ByOutcome { outcome };
    /// By rule.
    ByRule { rule };
    /// By verdict.
    ByVerdict { verdict };
    /// By workflow node.
    ByNode { node };
}

/// Makes the histograms of a family.
type MakeHistogram = fn() -> Histogram;

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $field:ident: $type:ty = $new:expr, $name:literal;)*) => {
        /// Every metric that Nightshift keeps of itself. Cheap to clone; all clones count together.
        #[derive(Debug, Clone)]
        pub struct SelfMetrics {
            $($(#[doc = $help])* pub $field: $type,)*
        }

        impl Default for SelfMetrics {
            fn default() -> Self {
                Self { $($field: $new,)* }
            }
        }

        impl SelfMetrics {
            /// Enters all of them.
            pub fn register(&self, registry: &mut Registry) {
                $(registry.register(concat!("nightshift_", $name), concat!($($help),*).trim(), self.$field.clone());)*
            }
        }
    };
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 22))
}

metrics! {
    /// Samples taken in, by source
    samples_received: Family<BySource, Counter> = Family::default(), "samples_received";
    /// Samples that passed through the detectors, warm-up included
    samples_scored: Counter = Counter::default(), "samples_scored";
    /// Samples that were not taken or not scored, by source and reason
    samples_rejected: Family<BySourceAndReason, Counter> = Family::default(), "samples_rejected";
    /// Log lines taken in, by source
    logs_received: Family<BySource, Counter> = Family::default(), "logs_received";
    /// Spans taken in, by source
    spans_received: Family<BySource, Counter> = Family::default(), "spans_received";
    /// Changes and events taken in, by source
    changes_received: Family<BySource, Counter> = Family::default(), "changes_received";
    /// Requests refused because the bus was full, by source
    backpressure: Family<BySource, Counter> = Family::default(), "backpressure";
    /// Times a source was started again after it failed, by source
    source_restarts: Family<BySource, Counter> = Family::default(), "source_restarts";
    /// Series with live detector state
    series_live: Gauge = Gauge::default(), "series_live";
    /// Scores of anomalies when they began
    anomaly_score: Histogram = Histogram::new((1..=20).map(|i| f64::from(i) / 20.0)), "anomaly_score";
    /// Anomalies that began, by severity and kind
    anomalies: Family<BySeverityAndKind, Counter> = Family::default(), "anomalies";
    /// Incidents that reached a status, by severity and status
    incidents: Family<BySeverityAndStatus, Counter> = Family::default(), "incidents";
    /// Seconds from the first symptom's onset to the incident, event time
    mttd_seconds: Histogram = seconds(), "mttd_seconds";
    /// Seconds from the incident to its resolution, event time
    mttr_seconds: Histogram = seconds(), "mttr_seconds";
    /// Actions carried out, by outcome
    actions: Family<ByOutcome, Counter> = Family::default(), "actions";
    /// Actions that were stopped, by rule
    actions_blocked: Family<ByRule, Counter> = Family::default(), "actions_blocked";
    /// Feedback from people, by verdict
    feedback: Family<ByVerdict, Counter> = Family::default(), "feedback";
    /// Records a group has yet to read, by group and topic
    bus_lag: Family<ByGroupAndTopic, Gauge> = Family::default(), "bus_lag";
    /// Records sent to dead-letter, by reason
    dead_letters: Family<ByReason, Counter> = Family::default(), "dead_letters";
    /// Seconds a workflow node took, by node
    node_seconds: Family<ByNode, Histogram, MakeHistogram> = Family::new_with_constructor(seconds as MakeHistogram), "node_seconds";
}

impl SelfMetrics {
    /// Samples, log lines, spans and changes that a source brought since the start.
    pub fn items_of(&self, source: &str) -> u64 {
        let labels = BySource { source: source.to_owned().into() };
        [&self.samples_received, &self.logs_received, &self.spans_received, &self.changes_received]
            .into_iter()
            .filter_map(|family| family.get(&labels).map(|counter| counter.get()))
            .sum()
    }
}

/// The registry as Prometheus reads it (OpenMetrics text).
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        // Writing to a string cannot fail; should it ever, an empty page would read as "no metrics".
        let _ = writeln!(text, "# nightshift could not write its metrics");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let m = SelfMetrics::default();
        m.samples_received.get_or_create(&BySource { source: "host".into() }).inc_by(3);
        m.incidents.get_or_create(&BySeverityAndStatus { severity: "high".into(), status: "resolved".into() }).inc();
        m.node_seconds.get_or_create(&ByNode { node: "detection".into() }).observe(0.1);
        let mut registry = Registry::default();
        m.register(&mut registry);
        let text = render(&registry);
        for line in [
            "nightshift_samples_received_total{source=\"host\"} 3",
            "nightshift_samples_scored_total 0",
            "nightshift_series_live 0",
            "nightshift_incidents_total{severity=\"high\",status=\"resolved\"} 1",
            "nightshift_node_seconds_count{node=\"detection\"} 1",
            "nightshift_mttd_seconds_count 0",
            "nightshift_mttr_seconds_count 0",
            "nightshift_anomaly_score_count 0",
        ] {
            assert!(text.contains(line), "{line} missing in\n{text}");
        }
    }
}
