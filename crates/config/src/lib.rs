//! nightshift-config
