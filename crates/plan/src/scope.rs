//! What the expressions of a playbook may look at when it is bound: parameters, looked-at facts, what a change says,
//! and the incident's own numbers.

use crate::expr::{Scope, Series, Val};
use crate::playbook::Needs;
use crate::targets::Place;
use nightshift_model::{Anomaly, Change, ChangeType, EntityId, Hypothesis, Timestamp, families};
use std::collections::BTreeMap;

/// The anomaly's signal is the one of this name, or measures what this family does.
pub(crate) fn shows(anomaly: &Anomaly, signal_or_family: &str) -> bool {
    anomaly.signal == signal_or_family
        || families::family(&anomaly.signal, |k| anomaly.labels.get(k).map(String::as_str))
            .is_some_and(|f| f.as_str() == signal_or_family)
}

/// The facts about one target.
pub(crate) struct Facts<'a> {
    pub(crate) place: Place<'a>,
    /// What the expression is about.
    pub(crate) target: &'a EntityId,
    /// Parameters that are bound already.
    pub(crate) params: &'a BTreeMap<String, Val>,
    /// The newest change that the playbook needs, or any of the target.
    pub(crate) change: Option<&'a Change>,
}

impl Facts<'_> {
    fn looked_at(&self, name: &str) -> Option<Val> {
        Val::from_json(self.place.images.get(self.target)?.get(name)?)
    }

    /// Facts of the change, without what they must not shadow.
    fn of_change(&self, name: &str) -> Option<Val> {
        match name {
            "flag" => self.flag().map(Val::Text),
            "flag_before" => self.flag_before().map(Val::Bool),
            _ => {
                let change = self.change?;
                let text = match name {
                    "version" => change.version.as_str(),
                    "author" => change.author.as_str(),
                    "git_sha" => change.git_sha.as_str(),
                    other => change.attributes.get(other)?.as_str(),
                };
                (!text.is_empty()).then(|| Val::from_text(text))
            }
        }
    }

    /// Which flag was flipped: what the change says, else the only flag that the target has.
    fn flag(&self) -> Option<String> {
        let told = self.change.and_then(|c| ["flag", "feature", "flag_key"].iter().find_map(|k| c.attributes.get(*k)));
        if let Some(name) = told {
            return Some(name.strip_prefix("flag.").unwrap_or(name).to_owned());
        }
        let mut flags = self.place.images.get(self.target)?.keys().filter_map(|k| k.strip_prefix("flag."));
        flags.next().filter(|_| flags.next().is_none()).map(str::to_owned)
    }

    /// What it was before: what the change says, else the other value.
    fn flag_before(&self) -> Option<bool> {
        let told = self.change.and_then(|c| ["before", "from", "previous"].iter().find_map(|k| c.attributes.get(*k)));
        match told.map(String::as_str) {
            Some("true" | "on" | "enabled") => return Some(true),
            Some("false" | "off" | "disabled") => return Some(false),
            _ => {}
        }
        match self.looked_at(&format!("flag.{}", self.flag()?))? {
            Val::Bool(now) => Some(!now),
            _ => None,
        }
    }
}

impl Scope for Facts<'_> {
    fn fact(&self, name: &str) -> Option<Val> {
        if let Some(value) = self.params.get(name) {
            return Some(value.clone());
        }
        if let Some(value) = self.looked_at(name) {
            return Some(value);
        }
        if let Some(rest) = name.strip_prefix("change.") {
            return self.of_change(rest);
        }
        let info = self.place.topology.entity(self.target)?;
        if name == "version" && !info.meta.version.is_empty() {
            return Some(Val::Text(info.meta.version.clone()));
        }
        let declared = info.declared?.attributes.get(name)?;
        Some(Val::from_text(declared))
    }

    fn facts_with(&self, prefix: &str) -> BTreeMap<String, f64> {
        let Some(image) = self.place.images.get(self.target) else { return BTreeMap::new() };
        let from = image.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        from.filter_map(|(name, value)| {
            let number = value.as_f64().filter(|n| n.is_finite())?;
            Some((name[prefix.len()..].to_owned(), number))
        })
        .collect()
    }

    fn series(&self, which: Series, signal: &str) -> Option<f64> {
        let own = self
            .place
            .incident
            .anomalies
            .iter()
            .filter(|a| self.place.topology.resolve(&a.entity.id) == self.target && shows(a, signal));
        let worst = own.max_by(|a, b| a.score.total_cmp(&b.score).then_with(|| b.id.cmp(&a.id)))?;
        let e = &worst.explanation;
        match which {
            Series::Baseline => e.expected,
            Series::Observed => e.observed,
            Series::Lower => e.lower,
            Series::Upper => e.upper,
        }
        .filter(|n| n.is_finite())
    }
}

/// Whether what the playbook needs has happened, and the change if it is at hand. `None`: it has not, or nobody knows.
pub(crate) fn needed_change<'a>(
    needs: &Needs,
    hypothesis: &Hypothesis,
    cause: &EntityId,
    place: Place<'_>,
    changes: &'a [Change],
) -> Option<Option<&'a Change>> {
    let onset = place.incident.onset;
    let within = i64::try_from(needs.within_secs).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    // Reported later than the onset it may be; what came after the detection, our own actions too, caused nothing.
    let latest = onset.max(place.incident.detected_at);
    let in_time = |at: Timestamp| at <= latest && at.0 >= onset.0.saturating_sub(within);
    let found = change_of(cause, place, changes, |c| needs.changes.contains(&c.change_type) && in_time(c.at));
    if found.is_some() {
        return Some(found);
    }
    // The ranking cites what it rests on; the words before the colon are the kind and the author.
    let word = |kind: ChangeType| format!("{kind:?}").to_lowercase();
    let cited = hypothesis.evidence.iter().any(|e| {
        e.id.starts_with("change:") && in_time(e.at) && {
            let said = e.text.split([':', ' ']).next().unwrap_or("");
            needs.changes.iter().any(|kind| word(*kind) == said)
        }
    });
    cited.then_some(None)
}

/// The newest change of an entity that fits.
pub(crate) fn change_of<'a>(
    entity: &EntityId,
    place: Place<'_>,
    changes: &'a [Change],
    fits: impl Fn(&Change) -> bool,
) -> Option<&'a Change> {
    let name = entity.name();
    changes
        .iter()
        .filter(|c| match &c.entity {
            Some(id) => place.topology.resolve(id) == entity,
            None => c.service == name,
        })
        .filter(|c| fits(c))
        .max_by(|a, b| a.at.cmp(&b.at).then_with(|| b.id.cmp(&a.id)))
}
