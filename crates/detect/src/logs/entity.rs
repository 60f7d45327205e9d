//! What is known of one entity's lines: its clock in minutes, a rate per template, what is open.

use super::config::LogConfig;
use super::miner::TemplateId;
use super::rate::Rate;
use super::template_name;
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityMeta, Explanation, FaultClass, OccurrenceId, Phase, Severity, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MINUTE: i64 = 60 * NANOS_PER_SEC;
/// The template that stands for all beyond the bound.
pub(super) const OTHER: TemplateId = 0;
/// Silence of an entity, minutes, after which the silence is not learned: it was away.
const AWAY: i64 = 15;
/// Minutes at a changed rate after which it is the rate.
const ACCEPT: u32 = 30;
/// Version of the model as anomalies name it.
const MODEL_VERSION: u32 = 1;

pub(super) const fn minute_of(at: Timestamp) -> i64 {
    at.0.div_euclid(MINUTE)
}

/// What an open anomaly is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum What {
    /// A critical line.
    Critical,
    /// A template not seen before.
    New,
    /// Far more lines than usual.
    Burst,
    /// Lines that no longer come.
    Vanished,
    /// More errors of any template than usual.
    Errors,
}

impl What {
    const fn model(self) -> &'static str {
        match self {
            Self::Critical => "log_critical",
            Self::New => "log_template/new",
            Self::Burst => "log_template/burst",
            Self::Vanished => "log_template/vanished",
            Self::Errors => "log_errors",
        }
    }
}

/// One series of counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    rate: Rate,
    /// Lines in the minute that is filling.
    count: u32,
    /// Count at which the filling minute is a burst; 0: not computed yet.
    threshold: u32,
    /// Highest severity seen.
    severity: u32,
    /// Minute of the newest line.
    last_minute: i64,
    /// Minutes in which the entity spoke and this did not.
    silent: u32,
    /// Minutes with a line, and the share of minutes when the newest came: what a silence is measured by.
    hits: u32,
    present: f64,
    /// Minutes beyond the band while open, and in a row well within it.
    beyond: u32,
    within: u32,
}

/// An anomaly that is open.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open {
    record: Anomaly,
    /// Closes when no line came for so long; `None`: closed by its rate.
    hold_until: Option<Timestamp>,
    /// Minute of the last record that was sent.
    told_minute: i64,
}

/// A line as the entity sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) severity: u32,
    pub(super) template: TemplateId,
    pub(super) sample: &'a str,
    pub(super) is_new: bool,
}

/// What a new anomaly says.
pub(super) struct Say {
    pub(super) score: f64,
    pub(super) fault: FaultClass,
    pub(super) direction: Direction,
    pub(super) description: String,
    pub(super) observed: Option<f64>,
    pub(super) expected: Option<f64>,
    pub(super) upper: Option<f64>,
    pub(super) sigma: Option<f64>,
}

/// What is needed to write records.
pub(super) struct Pen<'a> {
    pub(super) config: &'a LogConfig,
    pub(super) tenant: &'a str,
    pub(super) source: &'a str,
    /// Text of a template.
    pub(super) text: &'a dyn Fn(TemplateId) -> String,
    pub(super) out: &'a mut Vec<Anomaly>,
}

/// One entity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entity {
    pub(super) meta: EntityMeta,
    source: String,
    /// The minute that is filling.
    minute: i64,
    /// Minutes with lines.
    alive: u32,
    any: bool,
    templates: BTreeMap<TemplateId, Counted>,
    errors: Counted,
    #[serde(with = "pairs")]
    open: BTreeMap<(What, TemplateId), Open>,
    new_hour: i64,
    new_told: u32,
    /// New templates that were not told.
    pub(super) suppressed: u64,
}

/// Maps with keys that are no strings, as lists of pairs.
mod pairs {
    use super::{BTreeMap, Open, TemplateId, What};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<(What, TemplateId), Open>, s: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<(What, TemplateId), Open>, D::Error> {
        Ok(Vec::<((What, TemplateId), Open)>::deserialize(d)?.into_iter().collect())
    }
}

impl Entity {
    pub(super) fn new(meta: EntityMeta, source: &str, at: Timestamp) -> Self {
        Self {
            meta,
            source: source.into(),
            minute: minute_of(at),
            alive: 0,
            any: false,
            templates: BTreeMap::new(),
            errors: Counted::default(),
            open: BTreeMap::new(),
            new_hour: i64::MIN,
            new_told: 0,
            suppressed: 0,
        }
    }

    /// The newest minute that had a line.
    pub(super) const fn newest_minute(&self) -> i64 {
        self.minute
    }

    /// Whether it had no line for `minutes` minutes at `minute`.
    pub(super) fn idle_since(&self, minute: i64, minutes: i64) -> bool {
        let newest = self.templates.values().map(|c| c.last_minute).max().unwrap_or(self.minute);
        minute - newest > minutes
    }

    pub(super) const fn warm(&self, config: &LogConfig) -> bool {
        self.alive >= config.warmup_minutes
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// A template was joined into another: so are its counts. What is open for it stays until it ends.
    pub(super) fn join(&mut self, from: TemplateId, into: TemplateId) {
        if let Some(old) = self.templates.remove(&from) {
            let alive = self.alive;
            let new = self
                .templates
                .entry(into)
                .or_insert_with(|| Counted { rate: Rate::silent(alive), ..Counted::default() });
            new.count += old.count;
            new.rate.mean += old.rate.mean;
            new.rate.variance += old.rate.variance;
            new.rate.present = new.rate.present.max(old.rate.present);
            new.rate.minutes = new.rate.minutes.max(old.rate.minutes);
            new.severity = new.severity.max(old.severity);
            new.last_minute = new.last_minute.max(old.last_minute);
            new.silent = new.silent.min(old.silent);
            new.threshold = 0;
        }
    }

    /// One line. `critical` was found in it.
    pub(super) fn line(&mut self, line: Line<'_>, critical: Option<Say>, pen: &mut Pen<'_>) {
        let minute = minute_of(line.at);
        if minute > self.minute {
            self.close_minutes(minute, pen);
        }
        self.any = true;
        let warm = self.warm(pen.config);
        let alive = self.alive;
        let known = self.templates.contains_key(&line.template);
        let id =
            if known || self.templates.len() < pen.config.templates_per_entity_max { line.template } else { OTHER };
        let counted =
            self.templates.entry(id).or_insert_with(|| Counted { rate: Rate::silent(alive), ..Counted::default() });
        // A line that came late belongs to a minute that is learned already.
        let current = minute == self.minute;
        counted.count = counted.count.saturating_add(u32::from(current));
        counted.last_minute = counted.last_minute.max(minute);
        counted.silent = 0;
        counted.severity = counted.severity.max(line.severity);
        let hold = Timestamp(line.at.0.saturating_add(i64::from(pen.config.hold_secs) * NANOS_PER_SEC));
        if let Some(say) = critical {
            self.tell(What::Critical, id, line, say, Some(hold), pen);
        }
        if self.open.contains_key(&(What::Vanished, id)) {
            self.close((What::Vanished, id), line.at, pen);
        }
        if !known && id != OTHER && warm && line.is_new {
            self.new_template(id, line, hold, pen);
        } else if self.open.contains_key(&(What::New, id)) {
            self.again((What::New, id), line, hold, pen);
        }
        if warm && current {
            self.burst(What::Burst, id, line, pen);
        }
        if line.severity >= super::critical::ERROR {
            self.errors.count = self.errors.count.saturating_add(u32::from(current));
            if warm && current {
                self.burst(What::Errors, OTHER, line, pen);
            }
        }
    }

    fn new_template(&mut self, id: TemplateId, line: Line<'_>, hold: Timestamp, pen: &mut Pen<'_>) {
        let hour = minute_of(line.at).div_euclid(60);
        if hour != self.new_hour {
            (self.new_hour, self.new_told) = (hour, 0);
        }
        if self.new_told >= pen.config.new_per_hour_max {
            self.suppressed += 1;
            return;
        }
        self.new_told += 1;
        let score = match line.severity {
            super::critical::ERROR.. => 0.6,
            super::critical::WARN.. => 0.45,
            _ => 0.2,
        };
        let say = Say {
            score,
            fault: FaultClass::Unknown,
            direction: Direction::Up,
            description: format!("new log template on {}: {}", self.meta.id.name(), short(&(pen.text)(id))),
            observed: Some(1.0),
            expected: Some(0.0),
            upper: None,
            sigma: None,
        };
        self.tell(What::New, id, line, say, Some(hold), pen);
    }

    /// Looks whether the filling minute is a burst by now. One comparison in the common case.
    fn burst(&mut self, what: What, id: TemplateId, line: Line<'_>, pen: &mut Pen<'_>) {
        let config = pen.config;
        let counted = match what {
            What::Errors => &mut self.errors,
            _ => match self.templates.get_mut(&id) {
                Some(c) => c,
                None => return,
            },
        };
        if counted.threshold == 0 {
            let by_sigma = counted.rate.threshold(config.burst_sigma).ceil();
            let by_factor = (counted.rate.mean * 3.0).ceil();
            // Saturates: a threshold that no u32 reaches never fires.
            counted.threshold = (by_sigma.max(by_factor) as u32).max(config.burst_lines_min);
        }
        if counted.count < counted.threshold {
            return;
        }
        let (count, rate) = (f64::from(counted.count), counted.rate);
        let severity = if what == What::Errors { super::critical::ERROR } else { counted.severity };
        if self.open.contains_key(&(what, id)) {
            return;
        }
        let sigma = rate.sigma(count);
        // Further out is surer; INFO and below never reach the dashboard's 0.5 by rate alone.
        let over = ((sigma - config.burst_sigma) / 20.0).clamp(0.0, 1.0);
        let score = match severity {
            super::critical::ERROR.. => 0.65 + 0.2 * over,
            super::critical::WARN.. => 0.5 + 0.15 * over,
            _ => 0.4 + 0.09 * over,
        };
        let name = self.meta.id.name();
        let (fault, description) = if what == What::Errors {
            let fault = match self.meta.id.kind() {
                nightshift_model::EntityKind::Service | nightshift_model::EntityKind::Workload => {
                    FaultClass::ErrorRateSpike
                }
                _ => FaultClass::Unknown,
            };
            (fault, format!("{name} logs {count:.0} errors in a minute, usually {:.1}", rate.mean))
        } else {
            let text = short(&(pen.text)(id));
            (FaultClass::Unknown, format!("{name} logs {count:.0} a minute, usually {:.1}: {text}", rate.mean))
        };
        let say = Say {
            score,
            fault,
            direction: Direction::Up,
            description,
            observed: Some(count),
            expected: Some(rate.mean),
            upper: Some(f64::from(counted_threshold(&rate, config))),
            sigma: Some(sigma),
        };
        self.tell(what, id, line, say, None, pen);
    }

    /// Closes the minutes before `minute`: scores, learns, ends what is over.
    pub(super) fn close_minutes(&mut self, minute: i64, pen: &mut Pen<'_>) {
        if minute <= self.minute {
            return;
        }
        let gap = minute - self.minute;
        self.close_minute(pen);
        self.minute = minute;
        self.any = false;
        // The minutes between had no line of the entity at all: telemetry may be missing. A short gap is learned as
        // silence of the whole, so that a rate is not that of busy minutes only; nothing vanishes by it.
        if gap <= AWAY {
            for _ in 1..gap {
                for counted in self.templates.values_mut() {
                    counted.rate.learn(0.0);
                }
                self.errors.rate.learn(0.0);
            }
        }
        self.expire(Timestamp(minute.saturating_mul(MINUTE)), pen);
    }

    fn close_minute(&mut self, pen: &mut Pen<'_>) {
        if !self.any {
            return;
        }
        let config = pen.config;
        let end = Timestamp((self.minute + 1).saturating_mul(MINUTE).saturating_sub(1));
        self.alive = self.alive.saturating_add(1);
        let warm = self.warm(config);
        let mut over = Vec::new();
        let mut gone = Vec::new();
        let mut forget = Vec::new();
        for (id, counted) in &mut self.templates {
            if counted.settle(config, self.open.contains_key(&(What::Burst, *id))) {
                over.push((What::Burst, *id));
            }
            if counted.last_minute < self.minute {
                counted.silent = counted.silent.saturating_add(1);
                let regular = counted.rate.minutes > 60 && counted.hits >= 20 && *id != OTHER;
                if config.vanished && warm && regular && counted.silent == counted.silence_limit(config) {
                    gone.push(*id);
                }
                if counted.rate.mean < 1e-4 && counted.silent > 1440 {
                    forget.push(*id);
                }
            }
        }
        for id in forget {
            if !self.open.keys().any(|(_, open)| *open == id) {
                self.templates.remove(&id);
            }
        }
        if self.errors.settle(config, self.open.contains_key(&(What::Errors, OTHER))) {
            over.push((What::Errors, OTHER));
        }
        for key in over {
            self.close(key, end, pen);
        }
        for id in gone {
            let Some(counted) = self.templates.get(&id) else { continue };
            let before = counted.present;
            let minutes = counted.silent;
            let since = Timestamp((counted.last_minute + 1).saturating_mul(MINUTE));
            let line = Line { at: since, severity: counted.severity, template: id, sample: "", is_new: false };
            let say = Say {
                score: if before > 0.95 && counted.severity >= super::critical::WARN { 0.5 } else { 0.4 },
                fault: FaultClass::Unknown,
                direction: Direction::Flat,
                description: format!(
                    "{} stopped logging {minutes} minutes ago: {}",
                    self.meta.id.name(),
                    short(&(pen.text)(id))
                ),
                observed: Some(0.0),
                expected: Some(before),
                upper: None,
                sigma: None,
            };
            self.tell(What::Vanished, id, line, say, None, pen);
        }
        // What is still open and was worse than when last told.
        let minute = self.minute;
        let mut updates = Vec::new();
        for ((what, id), open) in &mut self.open {
            if matches!(what, What::Burst | What::Errors) && open.told_minute < minute {
                let counted = if *what == What::Errors { Some(&self.errors) } else { self.templates.get(id) };
                if counted.is_some_and(|c| c.beyond > 0) {
                    open.told_minute = minute;
                    open.record.last_seen = end;
                    open.record.phase = Phase::Update;
                    updates.push(open.record.clone());
                }
            }
        }
        pen.out.append(&mut updates);
    }

    /// Ends what had no line for its hold time at `now` (event time).
    pub(super) fn expire(&mut self, now: Timestamp, pen: &mut Pen<'_>) {
        let over: Vec<_> =
            self.open.iter().filter(|(_, o)| o.hold_until.is_some_and(|until| until <= now)).map(|(k, _)| *k).collect();
        for key in over {
            let at = self.open.get(&key).map_or(now, |o| o.record.last_seen);
            self.close(key, at, pen);
        }
    }

    fn close(&mut self, key: (What, TemplateId), at: Timestamp, pen: &mut Pen<'_>) {
        if let Some(mut open) = self.open.remove(&key) {
            open.record.phase = Phase::Closed;
            open.record.last_seen = at.max(open.record.last_seen);
            pen.out.push(open.record);
        }
    }

    fn again(&mut self, key: (What, TemplateId), line: Line<'_>, hold: Timestamp, pen: &mut Pen<'_>) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let minute = minute_of(line.at);
        open.hold_until = open.hold_until.map(|until| until.max(hold));
        open.record.last_seen = open.record.last_seen.max(line.at);
        if let Some(n) = &mut open.record.explanation.observed {
            *n += 1.0;
        }
        if minute > open.told_minute {
            open.told_minute = minute;
            open.record.phase = Phase::Update;
            pen.out.push(open.record.clone());
        }
    }

    fn tell(
        &mut self,
        what: What,
        id: TemplateId,
        line: Line<'_>,
        say: Say,
        hold: Option<Timestamp>,
        pen: &mut Pen<'_>,
    ) {
        let key = (what, id);
        if self.open.contains_key(&key) {
            if let Some(hold) = hold {
                self.again(key, line, hold, pen);
            }
            return;
        }
        let signal = if what == What::Errors { "log_errors".to_owned() } else { template_name(id) };
        let labels: BTreeMap<String, String> =
            [("reason".to_owned(), what.model().rsplit('/').next().unwrap_or_default().to_owned())].into();
        let fingerprint =
            Anomaly::fingerprint_of(pen.tenant, self.meta.id.as_str(), AnomalyKind::Log, &signal, &labels);
        let mut features = BTreeMap::new();
        features.insert("severity_number".to_owned(), f64::from(line.severity));
        features.insert("minutes_learned".to_owned(), f64::from(self.alive));
        let record = Anomaly {
            id: OccurrenceId::derive(fingerprint, line.at),
            fingerprint,
            tenant: pen.tenant.to_owned(),
            entity: self.meta.clone(),
            kind: AnomalyKind::Log,
            signal,
            labels,
            onset: line.at,
            last_seen: line.at,
            phase: Phase::Open,
            score: say.score,
            severity: Severity::from_score(say.score),
            direction: say.direction,
            fault: say.fault,
            description: say.description,
            explanation: Explanation {
                observed: say.observed,
                expected: say.expected,
                lower: None,
                upper: say.upper,
                sigma: say.sigma,
                model: what.model().into(),
                model_version: MODEL_VERSION,
                features,
                sample: super::redact::redact(line.sample),
            },
            source: if pen.source.is_empty() { self.source.clone() } else { pen.source.to_owned() },
        };
        pen.out.push(record.clone());
        self.open.insert(key, Open { record, hold_until: hold, told_minute: minute_of(line.at) });
    }
}

fn counted_threshold(rate: &Rate, config: &LogConfig) -> u32 {
    (rate.threshold(config.burst_sigma).max(rate.mean * 3.0).ceil() as u32).max(config.burst_lines_min)
}

impl Counted {
    /// Ends the filling minute: scores it, then learns it. True when an open burst is over.
    fn settle(&mut self, config: &LogConfig, open: bool) -> bool {
        let count = f64::from(self.count);
        let limit = f64::from(counted_threshold(&self.rate, config));
        let mut over = false;
        if open {
            // It ends below half the way to the threshold, three minutes in a row: one event, one alarm.
            if count >= limit {
                self.beyond += 1;
                self.within = 0;
            } else if count < self.rate.mean + (limit - self.rate.mean) / 2.0 {
                self.within += 1;
            } else {
                self.within = 0;
            }
            if self.beyond >= ACCEPT {
                // A new normal: learned anew from here.
                self.rate = Rate { minutes: config.warmup_minutes / 2, mean: count, variance: count, present: 1.0 };
                over = true;
            }
            over |= self.within >= 3;
            if over {
                (self.beyond, self.within) = (0, 0);
            }
        }
        // A burst teaches no more than the edge of what is normal.
        let learned = if open || count >= limit { count.min(self.rate.mean.max(1.0) * 1.5) } else { count };
        self.rate.learn(learned);
        if self.count > 0 {
            self.hits = self.hits.saturating_add(1);
            self.present = self.rate.present;
        }
        self.count = 0;
        self.threshold = 0;
        over
    }

    fn silence_limit(&self, config: &LogConfig) -> u32 {
        Rate { present: self.present, ..self.rate }.silence(config.vanished_probability) as u32
    }
}

/// A text for a description: one line, at most 160 bytes, no secrets.
pub(super) fn short(text: &str) -> String {
    const MAX: usize = 160;
    let text = super::redact::redact(text);
    if text.len() <= MAX {
        return text;
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX)])
}
