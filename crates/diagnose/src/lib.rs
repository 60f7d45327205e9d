//! nightshift-diagnose
