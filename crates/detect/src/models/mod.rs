//! Models that live: what is learned of families of series, in a form that can be summed.
//!
//! Lives here: mergeable summaries per entity kind and signal family ([`sketch`]), the learner that fills them beside
//! the detector ([`learner`]), their file ([`export`]), how far recent days are from what was learned ([`drift`]), what
//! a new series starts with ([`warm`]), versions of the detector's configuration ([`version`]), and the comparison of
//! two of them on the labels that people gave ([`trial`]).
//!
//! Never here: I/O, a clock, chance. What is in a file is counts and means of families; no reading, no time of one, no
//! name of an entity and no label of a series ([`export`] says exactly what).

pub mod drift;
pub mod export;
pub mod learner;
pub mod quantile;
pub mod sketch;
pub mod trial;
pub mod version;
pub mod warm;

pub use drift::{DriftConfig, FamilyDrift, Verdict};
pub use export::{Baselines, ExportError, Part, fuzz_baselines};
pub use learner::{Learner, LearnerConfig, Summary};
pub use quantile::Quantiles;
pub use sketch::{FamilyKey, FamilySketch, Form, Moments};
pub use warm::{Warm, WarmStart};
