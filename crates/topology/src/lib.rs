//! nightshift-topology
