//! Source `prometheus_scrape`: asks programs for their metrics, as Prometheus does.
//!
//! Lives here: targets (static and from files), the text formats, one loop per target. Never here: what becomes of a
//! sample (see [`crate::ingest`]).
//!
//! A scrape is taken whole or not at all: what cannot be read to its end is `up` 0 and no samples. While the bus is
//! full a target's samples wait and it is not scraped again: a scrape that nobody takes helps nobody.

mod convert;
mod discovery;
mod parse;
mod source;

pub use discovery::TargetGroup;
#[doc(hidden)]
pub use discovery::fuzz_file_sd;
#[doc(hidden)]
pub use parse::fuzz_exposition;
pub use parse::{Dialect, ParseError, ParseLimits, Parser, Sample};
pub use source::{ScrapeConfig, ScrapeSource};

pub(crate) use convert::Resources;
