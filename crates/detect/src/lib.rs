//! nightshift-detect
