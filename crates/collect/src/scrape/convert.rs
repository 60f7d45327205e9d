//! From samples of an exposition to points.

use super::discovery::Target;
use super::parse::Sample;
use crate::resolve::names_entity;
use crate::{Attributes, MetricPoint};
use nightshift_model::Timestamp;
use nightshift_model::batch::SeriesKind;
use std::collections::HashMap;
use std::sync::Arc;

/// Different places that the samples of one answer may tell of before they share the target's own.
const PLACES_MAX: usize = 10_000;

/// Resources of samples. Most are about the target; those whose labels name a pod, a host or a service (an exporter
/// that speaks for others) are about that.
#[derive(Debug)]
pub(crate) struct Resources {
    base: Arc<Attributes>,
    known: HashMap<Vec<(String, String)>, Arc<Attributes>>,
}

impl Resources {
    pub(crate) fn new(base: Attributes) -> Self {
        Self { base: Arc::new(base), known: HashMap::new() }
    }

    /// The resource that these labels tell of.
    pub(crate) fn of(&mut self, labels: &[(String, String)]) -> Arc<Attributes> {
        let own = |(n, v): &&(String, String)| names_entity(n) && self.base.get(n) != Some(v);
        let telling: Vec<_> = labels.iter().filter(own).cloned().collect();
        if telling.is_empty() {
            return self.base.clone();
        }
        if let Some(known) = self.known.get(&telling) {
            return known.clone();
        }
        if self.known.len() >= PLACES_MAX {
            return self.base.clone();
        }
        let mut attributes = (*self.base).clone();
        attributes.extend(telling.iter().cloned());
        let attributes = Arc::new(attributes);
        self.known.insert(telling, attributes.clone());
        attributes
    }
}

/// Puts the points of one scrape together.
pub(crate) struct Scrape<'a> {
    target: &'a Target,
    honor_labels: bool,
    honor_timestamps: bool,
    at: Timestamp,
    resources: Resources,
    points: Vec<MetricPoint>,
}

impl<'a> Scrape<'a> {
    /// `at`: when it was asked, the time of samples that do not say theirs.
    pub(crate) fn new(target: &'a Target, honor_labels: bool, honor_timestamps: bool, at: Timestamp) -> Self {
        let resources = Resources::new(target.labels.clone());
        Self { target, honor_labels, honor_timestamps, at, resources, points: Vec::new() }
    }

    /// Takes a sample.
    pub(crate) fn put(&mut self, sample: Sample<'_>) {
        let mut labels: Vec<(String, String)> = Vec::with_capacity(sample.labels.len() + self.target.labels.len());
        for (name, value) in sample.labels {
            // An empty label is an absent one.
            if value.is_empty() {
                continue;
            }
            let clash = self.target.labels.contains_key(&*name);
            match (clash, self.honor_labels) {
                (true, false) => labels.push((format!("exported_{name}"), value.into_owned())),
                _ => labels.push((name.into_owned(), value.into_owned())),
            }
        }
        self.point(sample.name.into_owned(), labels, sample.kind, sample.at, sample.value);
    }

    fn point(
        &mut self,
        name: String,
        mut labels: Vec<(String, String)>,
        kind: SeriesKind,
        at: Option<Timestamp>,
        value: f64,
    ) {
        for (n, v) in &self.target.labels {
            if !labels.iter().any(|(own, _)| own == n) {
                labels.push((n.clone(), v.clone()));
            }
        }
        let resource = self.resources.of(&labels);
        let at = at.filter(|_| self.honor_timestamps).unwrap_or(self.at);
        self.points.push(MetricPoint { resource, name, labels, kind, at, value });
    }

    /// The points, with those that tell of the scrape itself. `samples`: how many there were, `None` when it failed
    /// (then what came before the failure is thrown away).
    pub(crate) fn finish(mut self, samples: Option<usize>, seconds: f64) -> Vec<MetricPoint> {
        if samples.is_none() {
            self.points.clear();
        }
        let up = if samples.is_some() { 1.0 } else { 0.0 };
        for (name, value) in
            [("up", up), ("scrape_duration_seconds", seconds), ("scrape_samples_scraped", samples.unwrap_or(0) as f64)]
        {
            self.point(name.to_owned(), Vec::new(), SeriesKind::Gauge, None, value);
        }
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn target() -> Target {
        let labels = [("instance", "a:1"), ("job", "ksm")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        Target { address: "a:1".into(), url: String::new(), labels: labels.into() }
    }

    fn sample(labels: &[(&'static str, &'static str)]) -> Sample<'static> {
        Sample {
            name: "m".into(),
            labels: labels.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v))).collect(),
            value: 1.0,
            at: Some(Timestamp::from_secs(5)),
            kind: SeriesKind::Gauge,
        }
    }

    fn label<'a>(point: &'a MetricPoint, name: &str) -> Option<&'a str> {
        point.labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[test]
    fn labels_of_the_target_win_unless_told_otherwise() {
        for (honor, instance, exported) in [(false, "a:1", Some("x")), (true, "x", None)] {
            let target = target();
            let mut scrape = Scrape::new(&target, honor, true, Timestamp::EPOCH);
            scrape.put(sample(&[("instance", "x"), ("b", ""), ("c", "d")]));
            let points = scrape.finish(Some(1), 0.1);
            let p = &points[0];
            assert_eq!((label(p, "instance"), label(p, "exported_instance")), (Some(instance), exported));
            assert_eq!((label(p, "b"), label(p, "c"), label(p, "job")), (None, Some("d"), Some("ksm")));
            assert_eq!(p.at, Timestamp::from_secs(5));
        }
    }

    #[test]
    fn an_exporter_that_speaks_for_others_gives_them_their_samples() {
        let target = target();
        let mut scrape = Scrape::new(&target, false, false, Timestamp::from_secs(9));
        scrape.put(sample(&[("namespace", "shop"), ("pod", "p-1")]));
        scrape.put(sample(&[("namespace", "shop"), ("pod", "p-1"), ("x", "y")]));
        scrape.put(sample(&[("le", "1")]));
        let points = scrape.finish(Some(3), 0.1);
        assert_eq!(points[0].resource["pod"], "p-1");
        assert!(Arc::ptr_eq(&points[0].resource, &points[1].resource));
        assert!(!points[2].resource.contains_key("pod"));
        assert_eq!(points[0].at, Timestamp::from_secs(9), "times of the target are not taken");
    }

    #[test]
    fn a_failed_scrape_leaves_nothing_but_up() {
        let target = target();
        let mut scrape = Scrape::new(&target, false, true, Timestamp::EPOCH);
        scrape.put(sample(&[]));
        let points = scrape.finish(None, 0.1);
        let names: Vec<_> = points.iter().map(|p| (p.name.as_str(), p.value)).collect();
        assert_eq!(names, [("up", 0.0), ("scrape_duration_seconds", 0.1), ("scrape_samples_scraped", 0.0)]);
    }
}
