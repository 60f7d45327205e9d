//! The file in which summaries travel.
//!
//! JSON, so that whoever has to agree to it can read it. What is in it: for each family (kind of entity, what the
//! signal measures, level or rate) counts, mean and variance, counts of values by order of magnitude, the distribution
//! of spreads and forecast errors, sums of the tails, and the mean of each hour of the week; and for each part where it
//! is from (tenant and cluster, or a pseudonym of them), over which days, how many readings of how many series. What is
//! not in it: a reading, the time of one, the name of an entity, a label of a series. A metric's name is in it only
//! where the settings ask for a summary of that metric (`models.learn.named`).
//!
//! A family with one series shows the distribution of that series' values; whoever minds leaves out such families with
//! [`Baselines::drop_small`].

use super::learner::{FAMILIES_MAX, Summary};
use super::sketch::{FamilyKey, FamilySketch};
use nightshift_model::hash::hash128;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Mark of the file.
pub const FORMAT: &str = "nightshift-baselines";
/// Version of the file. A reader knows this one.
pub const VERSION: u32 = 1;
/// Largest file that is read, bytes.
pub const BYTES_MAX: usize = 64 << 20;
/// Exports that one file may be the sum of.
pub const PARTS_MAX: usize = 1_024;
/// Longest name of a tenant, cluster or metric, bytes.
const NAME_BYTES_MAX: usize = 256;
/// Days from the epoch that a part may be of: the years 1970 to 2262.
const DAYS: std::ops::RangeInclusive<i64> = 0..=106_751;

/// Why bytes are no such file, or two files cannot be summed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Too large.
    #[error("{0} bytes are more than the {BYTES_MAX} that a file of baselines may have")]
    TooLarge(usize),
    /// Not what it should be.
    #[error("this is no file of baselines: {0}")]
    Format(String),
    /// Another version.
    #[error("the file has version {0}, this program reads {VERSION}: use a nightshift that knows it")]
    Version(u32),
    /// Damaged or edited.
    #[error("the file says it is {said} and its content makes {made}: it is damaged or was edited")]
    Id {
        /// Its id.
        said: String,
        /// What its content makes.
        made: String,
    },
    /// The content cannot have been learned.
    #[error("the {0} cannot have been learned: the file is damaged or was made by another program")]
    Content(String),
    /// The same readings would count twice.
    #[error("both hold what {origin} learned in days {from} to {to} (from the epoch): it would count twice")]
    Overlap {
        /// Whose.
        origin: String,
        /// First day of both.
        from: i64,
        /// Last day of both.
        to: i64,
    },
    /// More than [`PARTS_MAX`] or [`FAMILIES_MAX`].
    #[error("the sum would have {0}")]
    TooMany(String),
}

/// Where a part is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the learner: the same for all exports of one data folder. Random, so that it tells nothing.
    pub origin: String,
    /// Tenant, or empty.
    pub tenant: String,
    /// Cluster, or empty.
    pub cluster: String,
    /// First day, from the epoch.
    pub from_day: i64,
    /// Last day, from the epoch.
    pub to_day: i64,
    /// Readings that were summed up.
    pub readings: u64,
}

/// Families of one or more parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Baselines {
    /// Where they are from, in order.
    pub parts: BTreeSet<Part>,
    /// By family.
    pub families: BTreeMap<FamilyKey, FamilySketch>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    id: String,
    baselines: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    parts: Vec<Part>,
    families: Vec<Family>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    of: FamilyKey,
    sketch: FamilySketch,
}

/// Enough of a file to say what it is before all of it must fit.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    format: String,
    #[serde(default)]
    version: u32,
}

impl Baselines {
    /// What a learner knows, as one part. `None` when it knows nothing yet.
    pub fn of(summary: Summary, origin: &str, tenant: &str, cluster: &str) -> Option<Self> {
        let (from_day, to_day) = summary.days?;
        let readings = summary.families.iter().filter(|(k, _)| k.metric.is_none()).map(|(_, s)| s.moments.n).sum();
        if readings == 0 {
            return None;
        }
        let (origin, tenant, cluster) = (origin.to_owned(), tenant.to_owned(), cluster.to_owned());
        let part = Part { origin, tenant, cluster, from_day, to_day, readings };
        Some(Self { parts: [part].into(), families: summary.families })
    }

    /// Removes the names of tenants and clusters; the random names of the learners stay, so that nothing counts twice.
    pub fn anonymous(mut self) -> Self {
        self.parts = std::mem::take(&mut self.parts)
            .into_iter()
            .map(|p| Part { tenant: String::new(), cluster: String::new(), ..p })
            .collect();
        self
    }

    /// Leaves out families of fewer than so many series-days.
    pub fn drop_small(mut self, series_min: u64) -> Self {
        self.families.retain(|_, s| s.series >= series_min);
        self
    }

    /// Adds another's. Commutative and associative; but twice the same would count twice, and so is refused.
    ///
    /// # Errors
    /// When both hold days of the same learner, or the sum is too large. Then nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), ExportError> {
        if let Some(found) = self.overlap(other) {
            return Err(found);
        }
        if self.parts.len() + other.parts.len() > PARTS_MAX {
            return Err(ExportError::TooMany(format!("more than {PARTS_MAX} parts")));
        }
        let new = other.families.keys().filter(|k| !self.families.contains_key(*k)).count();
        if self.families.len() + new > FAMILIES_MAX {
            return Err(ExportError::TooMany(format!("more than {FAMILIES_MAX} families")));
        }
        self.parts.extend(other.parts.iter().cloned());
        for (key, sketch) in &other.families {
            self.families.entry(key.clone()).or_default().merge(sketch);
        }
        Ok(())
    }

    /// What would count twice in the sum of the two, if anything.
    pub fn overlap(&self, other: &Self) -> Option<ExportError> {
        for theirs in &other.parts {
            let mine = self.parts.iter().filter(|p| p.origin == theirs.origin && p.tenant == theirs.tenant);
            for part in mine {
                let (from, to) = (part.from_day.max(theirs.from_day), part.to_day.min(theirs.to_day));
                if from <= to {
                    let origin = if part.cluster.is_empty() { part.origin.clone() } else { part.cluster.clone() };
                    return Some(ExportError::Overlap { origin, from, to });
                }
            }
        }
        None
    }

    /// Readings of all parts.
    pub fn readings(&self) -> u64 {
        self.parts.iter().fold(0, |sum, p| sum.saturating_add(p.readings))
    }

    /// Hash of the content: equal content has an equal id.
    pub fn id(&self) -> String {
        self.write().0
    }

    /// The file. Reading it gives the same again.
    pub fn to_text(&self) -> String {
        let (id, body) = self.write();
        format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"id\":\"{id}\",\"baselines\":{body}}}\n")
    }

    fn write(&self) -> (String, String) {
        let families = self.families.iter().map(|(of, sketch)| Family { of: of.clone(), sketch: sketch.clone() });
        let body = Body { parts: self.parts.iter().cloned().collect(), families: families.collect() };
        let body = serde_json::to_string(&body).expect("numbers are finite, keys are text");
        (format!("{:032x}", hash128(&[body.as_bytes()])), body)
    }

    /// Reads a file. The id is a checksum, no signature: it finds damage, not forgery.
    ///
    /// # Errors
    /// When it is too large, no such file, of another version, damaged, or says what cannot have been learned.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExportError> {
        if bytes.len() > BYTES_MAX {
            return Err(ExportError::TooLarge(bytes.len()));
        }
        let format = |e: serde_json::Error| ExportError::Format(e.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(format)?;
        if head.format != FORMAT {
            return Err(ExportError::Format(format!("its `format` is not `{FORMAT}`")));
        }
        if head.version != VERSION {
            return Err(ExportError::Version(head.version));
        }
        let file: File = serde_json::from_slice(bytes).map_err(format)?;
        let this = Self::from_body(file.baselines)?;
        let made = this.id();
        if made != file.id {
            let said = file.id.chars().take(64).collect();
            return Err(ExportError::Id { said, made });
        }
        Ok(this)
    }

    fn from_body(body: Body) -> Result<Self, ExportError> {
        let bad = |what: &str| Err(ExportError::Content(what.to_owned()));
        if body.parts.is_empty() || body.parts.len() > PARTS_MAX || body.families.len() > FAMILIES_MAX {
            return bad("number of parts or families");
        }
        let mut this = Self::default();
        for part in body.parts {
            let named = [&part.origin, &part.tenant, &part.cluster].iter().all(|n| is_name(n));
            let days = DAYS.contains(&part.from_day) && DAYS.contains(&part.to_day) && part.from_day <= part.to_day;
            if !named || part.origin.is_empty() || !days || part.readings == 0 {
                return bad("parts");
            }
            if !this.parts.insert(part) {
                return bad("parts");
            }
        }
        for Family { of, sketch } in body.families {
            let named = of.metric.as_ref().is_none_or(|m| !m.is_empty() && is_name(m));
            if !named || !sketch.is_sound() {
                return bad(&format!("figures of `{of}`"));
            }
            if this.families.insert(of, sketch).is_some() {
                return bad("families (one is there twice)");
            }
        }
        Ok(this)
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// For fuzzing: bytes as a file. Must not panic, whatever they are; what is read can be written and summed.
#[doc(hidden)]
pub fn fuzz_baselines(bytes: &[u8]) {
    let mut read = Baselines::parse(bytes);
    if read.is_err()
        && let Ok(body) = serde_json::from_slice::<Body>(bytes)
    {
        read = Baselines::from_body(body);
    }
    if let Ok(mut this) = read {
        let again = Baselines::parse(this.to_text().as_bytes());
        assert_eq!(again.as_ref(), Ok(&this), "what was written reads the same");
        assert!(this.clone().merge(&this).is_err(), "twice the same is refused");
        let parts: BTreeSet<Part> =
            this.parts.iter().map(|p| Part { origin: format!("{}x", p.origin), ..p.clone() }).collect();
        // Another learner's: it may not be refused, nor panic; too many parts or names too long are.
        drop(this.merge(&Baselines { parts, families: this.families.clone() }));
        for sketch in this.families.values() {
            let (median, warm) = (sketch.values.quantile(0.5), super::warm::Warm::of(sketch));
            assert!(median.is_none_or(f64::is_finite) && warm.is_none_or(|w| w.up.mean.is_finite()));
        }
    }
}

#[cfg(test)]
mod tests;
