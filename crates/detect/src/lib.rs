//! nightshift-detect
pub mod logs;
pub mod rules;
pub mod sealed;
