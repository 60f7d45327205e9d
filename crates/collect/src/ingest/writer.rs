//! One request on its way to the bus.

use super::batches::Batches;
use super::rules::{Reason, Tally, TimeRule};
use super::series::Known;
use super::{Ingest, Scratch};
use crate::SinkError;
use crate::resolve::{Origin, Resolved};
use nightshift_health::BySource;
use nightshift_model::batch::{SeriesKind, labels};
use nightshift_model::hash::{hash128, series_fingerprint};
use nightshift_model::{Observation, Timestamp, topics};
use std::sync::atomic::Ordering;

/// What a request carries, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Samples.
    Samples,
    /// Log lines.
    Logs,
    /// Spans.
    Spans,
}

/// Samples of one series between two looks at the size of the batch.
const SAMPLES_AT_ONCE: usize = 1024;

/// Takes the items of one request and publishes them. Dropped without [`Self::commit`], nothing of it remains.
pub(crate) struct Writer<'a> {
    ingest: &'a Ingest,
    source: &'a str,
    origin: &'a Origin,
    seed: u64,
    /// `None` only while it is dropped.
    scratch: Option<Scratch>,
    rule: TimeRule,
    now: Timestamp,
    newest: Timestamp,
    /// What became of the items so far.
    pub(crate) tally: Tally,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(ingest: &'a Ingest, source: &'a str, origin: &'a Origin) -> Self {
        let now = ingest.clock.now();
        ingest.keep_up(now);
        Self {
            ingest,
            source,
            origin,
            seed: origin.seed(),
            scratch: Some(ingest.take_scratch()),
            rule: TimeRule::at(now, &ingest.limits),
            now,
            newest: Timestamp(i64::MIN),
            tally: Tally::default(),
        }
    }

    /// Borrows the decompression buffer; give it back with [`Self::put_body`].
    pub(crate) fn take_body(&mut self) -> Vec<u8> {
        self.scratch.as_mut().map(|s| std::mem::take(&mut s.body)).unwrap_or_default()
    }

    pub(crate) fn put_body(&mut self, body: Vec<u8>) {
        if let Some(scratch) = &mut self.scratch {
            scratch.body = body;
        }
    }

    /// Borrows the buffers for labels and samples; give them back with [`Self::put_parts`].
    pub(crate) fn take_parts(&mut self) -> (Vec<u8>, Vec<(Timestamp, f64)>) {
        let parts = |s: &mut Scratch| (std::mem::take(&mut s.labels), std::mem::take(&mut s.samples));
        self.scratch.as_mut().map(parts).unwrap_or_default()
    }

    pub(crate) fn put_parts(&mut self, labels: Vec<u8>, samples: Vec<(Timestamp, f64)>) {
        if let Some(scratch) = &mut self.scratch {
            (scratch.labels, scratch.samples) = (labels, samples);
        }
    }

    /// Takes samples of one series. `raw`: its labels as they came, `Label` messages with tag 1. `kind`: when the
    /// protocol tells it with the series.
    #[inline]
    pub(crate) fn series(&mut self, raw: &[u8], kind: Option<SeriesKind>, samples: &[(Timestamp, f64)]) {
        let key = self.ingest.series.key(raw, self.seed);
        let mut known = match self.ingest.series.get(key) {
            Some(known) => known,
            None => match self.get_to_know(raw, key) {
                Ok(known) => known,
                Err(reason) => return self.tally.count(reason, samples.len() as u64),
            },
        };
        if let Some(kind) = kind {
            known.kind = kind;
        }
        if known.canonical {
            self.put_samples(&known, raw, samples);
        } else {
            let sorted = labels::encode(labels::iter(raw).map_while(Result::ok));
            self.put_samples(&known, &sorted, samples);
        }
    }

    /// Takes samples of a series that was resolved already; `labels` is the wire form.
    #[inline]
    pub(crate) fn put_samples(&mut self, known: &Known, labels: &[u8], samples: &[(Timestamp, f64)]) {
        let Some(scratch) = &mut self.scratch else { return };
        for some in samples.chunks(SAMPLES_AT_ONCE) {
            let (rule, tally, newest) = (self.rule, &mut self.tally, &mut self.newest);
            let mut good = some.iter().copied().filter(|&(at, value)| {
                *newest = (*newest).max(at);
                let checked = rule.check_sample(at, value);
                if let Err(reason) = checked {
                    tally.count(reason, 1);
                }
                checked.is_ok()
            });
            // A series without a sample that is taken is not begun.
            let Some(first) = good.next() else { continue };
            let Some(batch) = scratch.batches.series(known, labels, &self.ingest.entities) else {
                let lost = 1 + good.count() as u64;
                self.tally.count(Reason::EntityLimit, lost);
                continue;
            };
            let mut n = 0;
            for (at, value) in std::iter::once(first).chain(good) {
                batch.sample(at, value);
                n += 1;
            }
            self.tally.accepted += n;
            scratch.batches.close_if_full(known.shard, self.source);
        }
    }

    /// A series that is not remembered: parsed, checked, resolved.
    #[cold]
    fn get_to_know(&mut self, raw: &[u8], key: u64) -> Result<Known, Reason> {
        let limits = &self.ingest.limits;
        if raw.len() > limits.label_bytes_max {
            return Err(Reason::LabelLimit);
        }
        let mut found = Vec::with_capacity(16);
        for label in labels::iter(raw) {
            found.push(label.map_err(|_| Reason::BadLabels)?);
        }
        found.sort_by_key(|(name, _)| *name);
        let twice = found.windows(2).any(|w| w[0].0 == w[1].0);
        if twice || found.iter().any(|(name, _)| name.is_empty()) {
            return Err(Reason::BadLabels);
        }
        if found.len() > limits.labels_max {
            return Err(Reason::LabelLimit);
        }
        let metric = found.iter().find(|(n, _)| *n == labels::NAME).map_or("", |(_, v)| *v);
        if metric.is_empty() {
            return Err(Reason::NoName);
        }
        let canonical = labels::encode(found.iter().copied());
        let resolved = self.ingest.resolver.resolve_or_reporter(&found[..], self.origin);
        let known = self.know(&resolved, &canonical, self.ingest.kind_of(metric), canonical == raw)?;
        self.ingest.series.put(key, known);
        Ok(known)
    }

    /// A series of a resolved entity; `labels` is the wire form.
    pub(crate) fn know(
        &self,
        resolved: &Resolved,
        labels: &[u8],
        kind: SeriesKind,
        canonical: bool,
    ) -> Result<Known, Reason> {
        let entity = self.intern(resolved)?;
        let fingerprint = series_fingerprint(&self.ingest.tenant, resolved.meta.id.as_str(), labels);
        Ok(Known { fingerprint, entity: entity.index, shard: entity.shard, kind, canonical })
    }

    /// The number of a resolved entity; tells topology what is new.
    pub(crate) fn intern(&self, resolved: &Resolved) -> Result<super::entities::Interned, Reason> {
        let entity = self.ingest.entities.intern(resolved, self.now).ok_or(Reason::EntityLimit)?;
        for name in &resolved.aliases {
            if self.ingest.resolver.learn(name, &resolved.meta.id) {
                let alias = Observation::Alias { name: name.clone(), entity: resolved.meta.id.clone(), at: self.now };
                self.ingest.entities.tell([alias]);
            }
        }
        Ok(entity)
    }

    /// Checks the time of an item that is no sample.
    pub(crate) fn check_time(&mut self, at: Timestamp) -> bool {
        self.newest = self.newest.max(at);
        match self.rule.check(at) {
            Ok(()) => true,
            Err(reason) => {
                self.tally.count(reason, 1);
                false
            }
        }
    }

    /// The batches, to put log lines and spans into.
    pub(crate) fn batches(&mut self) -> Option<(&mut Batches, &'a Ingest)> {
        let ingest = self.ingest;
        self.scratch.as_mut().map(|s| (&mut s.batches, ingest))
    }

    /// Publishes what was taken. `request`: hash of what the client sent, by which it is known when it comes again;
    /// `None`: the content of the batches. `unique`: this is no retry even if the content is the same.
    pub(crate) async fn commit(mut self, what: What, request: Option<u128>, unique: bool) -> Result<Tally, SinkError> {
        let (ingest, source, now) = (self.ingest, self.source, self.now);
        let mut tally = self.tally;
        let filled = self.scratch.as_mut().map(|s| s.batches.finish(source)).unwrap_or_default();
        let newest = self.newest;
        // The buffers are free for the next request while this one waits for the disk.
        drop(self);
        if newest.0 != i64::MIN {
            ingest.note_clock(source, newest, now);
        }
        tally.report(source, &ingest.metrics);
        if filled.is_empty() {
            return Ok(tally);
        }
        let nonce = if unique { ingest.calls.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let (mut ids, mut records) = (Vec::with_capacity(filled.len() * 16), Vec::with_capacity(filled.len()));
        for batch in filled {
            let (id, record) = ingest.envelope(batch, nonce, now);
            ids.extend_from_slice(&id.to_bytes());
            records.push(record);
        }
        let key = request.unwrap_or_else(|| hash128(&[&ids]));
        if request.is_none() && !unique && ingest.dedup.seen(source, key).is_some() {
            Tally::repeated(tally.accepted).report(source, &ingest.metrics);
            tally.duplicates += tally.accepted;
            tally.accepted = 0;
            return Ok(tally);
        }
        ingest.publish(source, topics::TELEMETRY_RAW, records).await?;
        if !unique {
            ingest.dedup.remember(source, [(key, tally.accepted)]);
        }
        let by_source = BySource { source: source.to_owned().into() };
        let counter = match what {
            What::Samples => &ingest.metrics.samples_received,
            What::Logs => &ingest.metrics.logs_received,
            What::Spans => &ingest.metrics.spans_received,
        };
        counter.get_or_create(&by_source).inc_by(tally.accepted);
        ingest.tell_topology(now).await;
        Ok(tally)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(scratch) = self.scratch.take() {
            self.ingest.give_back(scratch);
        }
    }
}

impl Ingest {
    /// Whether this very request was taken already; the items it had then.
    pub(crate) fn seen_request(&self, source: &str, request: u128) -> Option<Tally> {
        let n = self.dedup.seen(source, request)?;
        let tally = Tally::repeated(n);
        tally.report(source, &self.metrics);
        Some(tally)
    }
}
