//! nightshift-api
