//! What each command does.

pub mod audit;
pub mod backtest;
pub mod bus;
pub mod check;
pub mod incidents;
pub mod init;
pub mod simple;
pub mod token;
