//! nightshift
