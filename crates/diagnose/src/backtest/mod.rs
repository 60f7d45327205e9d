//! Ranking of recorded cases.
