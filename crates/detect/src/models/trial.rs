//! Two models on one stream: which of them was right where people said what it was, and may the new one take over?
//!
//! A label is an incident of which somebody said that it was real, or that nothing was wrong. A model was right on it
//! when it alarmed on one of the incident's entities within the incident's time and it was real, or kept silent and it
//! was not. Both models are counted by the same rule on the same labels, so the comparison is one of pairs: only the
//! labels on which they differ say which is better (McNemar 1947). Intervals are Wilson's (1927).
//!
//! What labels cannot say: incidents exist because the active model (or a rule, a log, an alert) alarmed, so what only
//! the shadow sees has no label. It is therefore bounded instead: the alarms a day may grow by a stated factor only.

use nightshift_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// When a shadow may take over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrialConfig {
    /// Fewest labels within the trial.
    #[schemars(range(min = 5, max = 100_000))]
    pub labels_min: u32,
    /// Fewest labels on which the two differ: five of five is the least that chance alone gives in less than one of
    /// twenty cases.
    #[schemars(range(min = 5, max = 100_000))]
    pub differing_min: u32,
    /// Least gain: labels on which only the shadow is right less those on which only the active one is, as a share of
    /// all labels.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gain_min: f64,
    /// Real incidents that the shadow may miss although the active model found them, as a share of the real ones.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub recall_loss_max: f64,
    /// Times as many alarms a day as the active model has that the shadow may have.
    #[schemars(range(min = 0.1, max = 100.0))]
    pub alarms_factor_max: f64,
    /// Alarms a day that are always allowed.
    #[schemars(range(min = 0.0, max = 100_000.0))]
    pub alarms_free: f64,
    /// Time before and after an incident in which an alarm still belongs to it, seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub slack_secs: u32,
    /// Shortest trial, hours.
    #[schemars(range(min = 0.0, max = 8_760.0))]
    pub hours_min: f64,
}

impl Default for TrialConfig {
    fn default() -> Self {
        Self {
            labels_min: 20,
            differing_min: 5,
            gain_min: 0.02,
            recall_loss_max: 0.02,
            alarms_factor_max: 1.2,
            alarms_free: 1.0,
            slack_secs: 300,
            hours_min: 24.0,
        }
    }
}

/// An alarm of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Occurrence.
    pub id: String,
    /// Entity's id.
    pub entity: String,
    /// When it began.
    pub onset: Timestamp,
    /// Newest reading of it.
    pub last: Timestamp,
    /// Highest score so far.
    pub score: f64,
}

/// What somebody said of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Short id.
    pub incident: String,
    /// Whether something was wrong.
    pub real: bool,
    /// Entities of its symptoms and its true cause.
    pub entities: Vec<String>,
    /// Its onset.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Hits.
    pub hits: u64,
    /// Of so many.
    pub of: u64,
    /// Lower end; 0 when there are none.
    pub low: f64,
    /// Upper end; 1 when there are none.
    pub high: f64,
}

impl Share {
    /// Wilson's score interval.
    pub fn new(hits: u64, of: u64) -> Self {
        if of == 0 {
            return Self { hits: 0, of: 0, low: 0.0, high: 1.0 };
        }
        let hits = hits.min(of);
        let (n, p) = (of as f64, hits as f64 / of as f64);
        let z2 = Z * Z;
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
        Self { hits, of, low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
    }
}

/// How one model did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Of the labelled incidents that it alarmed on, those that were real.
    pub precision: Share,
    /// Of the real ones, those that it alarmed on.
    pub recall: Share,
    /// Its alarms within the trial.
    pub alarms: u64,
    /// The same a day.
    pub alarms_a_day: f64,
}

/// The two beside each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Hours of the trial.
    pub hours: f64,
    /// Labels within it.
    pub labels: u64,
    /// The active model.
    pub active: Scores,
    /// The shadow.
    pub shadow: Scores,
    /// Labels on which only the shadow is right.
    pub shadow_only_right: u64,
    /// Labels on which only the active model is right.
    pub active_only_right: u64,
    /// Real incidents that the active model found and the shadow did not.
    pub shadow_missed: u64,
    /// Alarms of the shadow with none of the active model beside them.
    pub shadow_alone: u64,
    /// Alarms of the active model with none of the shadow beside them.
    pub active_alone: u64,
}

/// Whether it may take over, and why not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may.
    pub promote: bool,
    /// What speaks against it, or for it when nothing does.
    pub reasons: Vec<String>,
}

fn overlaps(f: &Finding, entities: &[String], from: Timestamp, to: Timestamp) -> bool {
    f.onset <= to && f.last >= from && entities.contains(&f.entity)
}

/// Compares two models over a trial of so many hours.
pub fn compare(
    labels: &[Label],
    active: &[Finding],
    shadow: &[Finding],
    hours: f64,
    config: &TrialConfig,
) -> Comparison {
    let slack = Duration::from_secs(u64::from(config.slack_secs));
    let found = |by: &[Finding], l: &Label| by.iter().any(|f| overlaps(f, &l.entities, l.from - slack, l.to + slack));
    let (mut hit, mut real, mut said) = ([0u64; 2], 0u64, [0u64; 2]);
    let mut out = Comparison { hours, labels: labels.len() as u64, ..Comparison::default() };
    for label in labels {
        let of = [found(active, label), found(shadow, label)];
        real += u64::from(label.real);
        for (i, found) in of.into_iter().enumerate() {
            said[i] += u64::from(found);
            hit[i] += u64::from(found && label.real);
        }
        match of.map(|found| found == label.real) {
            [false, true] => out.shadow_only_right += 1,
            [true, false] => out.active_only_right += 1,
            _ => {}
        }
        out.shadow_missed += u64::from(label.real && of == [true, false]);
    }
    let alone = |these: &[Finding], others: &[Finding]| {
        let beside = |f: &Finding| {
            let entities = std::slice::from_ref(&f.entity);
            others.iter().any(|o| overlaps(o, entities, f.onset - slack, f.last + slack))
        };
        these.iter().filter(|f| !beside(f)).count() as u64
    };
    out.shadow_alone = alone(shadow, active);
    out.active_alone = alone(active, shadow);
    let days = (hours / 24.0).max(1.0 / 24.0);
    let scores = |i: usize, findings: &[Finding]| Scores {
        precision: Share::new(hit[i], said[i]),
        recall: Share::new(hit[i], real),
        alarms: findings.len() as u64,
        alarms_a_day: findings.len() as f64 / days,
    };
    out.active = scores(0, active);
    out.shadow = scores(1, shadow);
    out
}

impl Comparison {
    /// Whether the alarms a day stay within their bound; else why not.
    fn alarms_within(&self, config: &TrialConfig) -> Option<String> {
        let bound = (self.active.alarms_a_day * config.alarms_factor_max).max(config.alarms_free);
        (self.shadow.alarms_a_day > bound).then(|| {
            format!(
                "{:.1} alarms a day are more than {bound:.1} ({} x the active model's {:.1}, at least {})",
                self.shadow.alarms_a_day, config.alarms_factor_max, self.active.alarms_a_day, config.alarms_free
            )
        })
    }

    fn too_short(&self, config: &TrialConfig) -> Option<String> {
        (self.hours < config.hours_min)
            .then(|| format!("the trial lasted {:.1} h, at least {} h are asked for", self.hours, config.hours_min))
    }

    /// Whether the shadow is better on the labels beyond the stated bound.
    pub fn on_labels(&self, config: &TrialConfig) -> Decision {
        let mut against: Vec<String> = self.too_short(config).into_iter().collect();
        if self.labels < u64::from(config.labels_min) {
            against.push(format!(
                "{} labels within the trial, at least {} are asked for: `nightshift feedback` gives them",
                self.labels, config.labels_min
            ));
        }
        let differing = self.shadow_only_right + self.active_only_right;
        let better = Share::new(self.shadow_only_right, differing);
        if differing < u64::from(config.differing_min) {
            against
                .push(format!("the two differ on {differing} labels, at least {} are asked for", config.differing_min));
        } else if better.low <= 0.5 {
            against.push(format!(
                "of the {differing} labels on which they differ the shadow is right on {}: 95 % interval {:.2} to {:.2}, \
                 which must lie above 0.5",
                self.shadow_only_right, better.low, better.high
            ));
        }
        let gain = self.shadow_only_right as f64 - self.active_only_right as f64;
        if gain < config.gain_min * self.labels as f64 {
            against.push(format!(
                "it gains {gain:.0} of {} labels, at least {:.1} % are asked for",
                self.labels,
                100.0 * config.gain_min
            ));
        }
        if self.shadow_missed as f64 > config.recall_loss_max * self.active.recall.of as f64 {
            against.push(format!(
                "it misses {} real incidents that the active model found (of {}; {:.1} % are allowed)",
                self.shadow_missed,
                self.active.recall.of,
                100.0 * config.recall_loss_max
            ));
        }
        against.extend(self.alarms_within(config));
        if against.is_empty() {
            let why = format!(
                "right on {} labels on which the active model is wrong, wrong on {} on which it is right",
                self.shadow_only_right, self.active_only_right
            );
            return Decision { promote: true, reasons: vec![why] };
        }
        Decision { promote: false, reasons: against }
    }

    /// The rule where there are no labels: only after drift, and only within the bound on alarms.
    pub fn on_drift(&self, drifted: usize, config: &TrialConfig) -> Decision {
        let mut against: Vec<String> = self.too_short(config).into_iter().collect();
        if self.labels >= u64::from(config.labels_min) {
            against.push("there are enough labels: they decide".into());
        }
        if drifted == 0 {
            against.push("no family has drifted, so there is no need".into());
        }
        against.extend(self.alarms_within(config));
        if against.is_empty() {
            let why = format!("{drifted} families have drifted, and its alarms a day stay within their bound");
            return Decision { promote: true, reasons: vec![why] };
        }
        Decision { promote: false, reasons: against }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(entity: &str, at: i64) -> Finding {
        let (onset, last) = (Timestamp::from_secs(at), Timestamp::from_secs(at + 60));
        Finding { id: at.to_string(), entity: entity.into(), onset, last, score: 0.8 }
    }

    fn label(real: bool, at: i64) -> Label {
        let (from, to) = (Timestamp::from_secs(at), Timestamp::from_secs(at + 120));
        Label { incident: format!("INC-{at}"), real, entities: vec!["a".into()], from, to }
    }

    /// Incidents every 10,000 s: `real` real ones, then `false_ones` that were nothing.
    fn labels(real: i64, false_ones: i64) -> Vec<Label> {
        (0..real + false_ones).map(|i| label(i < real, 10_000 * (i + 1))).collect()
    }

    fn all(labels: &[Label]) -> Vec<Finding> {
        labels.iter().map(|l| finding("a", l.from.0 / 1_000_000_000)).collect()
    }

    #[test]
    fn wilson_is_as_published() {
        let s = Share::new(8, 10);
        assert!((s.low - 0.4902).abs() < 1e-3 && (s.high - 0.9433).abs() < 1e-3, "{s:?}");
        assert_eq!((Share::new(0, 0).low, Share::new(0, 0).high), (0.0, 1.0));
        assert!(Share::new(5, 5).low > 0.5 && Share::new(3, 3).low < 0.5);
    }

    #[test]
    fn a_shadow_that_keeps_silent_where_nothing_was_wrong_is_promoted() {
        let labels = labels(14, 8);
        let active = all(&labels);
        let shadow: Vec<Finding> = active[..14].to_vec();
        let c = compare(&labels, &active, &shadow, 72.0, &TrialConfig::default());
        assert_eq!((c.shadow_only_right, c.active_only_right, c.shadow_missed), (8, 0, 0));
        assert_eq!((c.active.precision.hits, c.active.precision.of), (14, 22));
        assert_eq!((c.shadow.precision.hits, c.shadow.precision.of, c.shadow.recall.of), (14, 14, 14));
        assert_eq!((c.active_alone, c.shadow_alone), (8, 0));
        let d = c.on_labels(&TrialConfig::default());
        assert!(d.promote, "{d:?}");
        assert!(!c.on_drift(3, &TrialConfig::default()).promote, "labels decide");
    }

    #[test]
    fn each_reason_against_is_told() {
        let config = TrialConfig::default();
        let told = |c: &Comparison, want: &str| {
            let d = c.on_labels(&config);
            assert!(!d.promote && d.reasons.iter().any(|r| r.contains(want)), "{want}: {d:?}");
        };
        let few = labels(3, 3);
        told(&compare(&few, &all(&few), &all(&few)[..3], 72.0, &config), "at least 20 are asked for");
        let many = labels(14, 8);
        let active = all(&many);
        told(&compare(&many, &active, &active, 72.0, &config), "the two differ on 0 labels");
        told(&compare(&many, &active, &active[..14], 2.0, &config), "lasted 2.0 h");
        let deaf = compare(&many, &active, &[], 72.0, &config);
        told(&deaf, "misses 14 real incidents");
        told(&deaf, "must lie above 0.5");
        let mut noisy = active[..14].to_vec();
        noisy.extend((0..200).map(|i| finding("b", 1_000 * i)));
        let c = compare(&many, &active, &noisy, 72.0, &config);
        told(&c, "alarms a day are more than");
        assert_eq!(c.shadow_alone, 200);
    }

    #[test]
    fn without_labels_only_drift_and_few_alarms_promote() {
        let config = TrialConfig::default();
        let quiet = compare(&[], &[finding("a", 1)], &[], 48.0, &config);
        assert!(quiet.on_drift(2, &config).promote && !quiet.on_labels(&config).promote);
        assert!(!quiet.on_drift(0, &config).promote);
        let loud: Vec<Finding> = (0..99).map(|i| finding("a", i * 100)).collect();
        assert!(!compare(&[], &[], &loud, 48.0, &config).on_drift(2, &config).promote);
    }

    /// An alarm beside the incident's time, or of another entity, says nothing of it.
    #[test]
    fn only_alarms_of_its_entities_within_its_time_count() {
        let labels = [label(true, 50_000)];
        for (f, want) in [
            (finding("a", 50_010), 1),
            (finding("a", 49_700), 1),
            (finding("a", 49_000), 0),
            (finding("a", 50_600), 0),
            (finding("b", 50_010), 0),
        ] {
            let c = compare(&labels, &[], std::slice::from_ref(&f), 24.0, &TrialConfig::default());
            assert_eq!(c.shadow.recall.hits, want, "{f:?}");
        }
    }
}
