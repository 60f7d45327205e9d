//! Logs: templates mined from lines, and what is odd about them.
//!
//! Lives here: masking ([`mask`]), template mining ([`miner`]), rates per entity and template and the anomalies made
//! from them ([`detector`]), critical lines ([`critical`]), secrets taken out of samples ([`redact`]), and mining of
//! whole files for measuring ([`backtest`]).
//!
//! Never here: reading files, following them, joining multi-line records (`collect`).

pub mod backtest;
mod config;
pub mod critical;
pub mod detector;
mod entity;
pub mod header;
#[cfg(test)]
mod makes;
pub mod mask;
pub mod miner;
mod rate;
pub mod redact;

pub use config::LogConfig;
pub use detector::{LogDetector, LogError, LogStats};
pub use miner::{MinerConfig, TemplateId, TemplateMiner, TemplateRef};

/// Name of a template as people and records see it.
pub fn template_name(id: TemplateId) -> String {
    format!("t{id:016x}")
}
