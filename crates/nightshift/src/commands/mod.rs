//! What each command does.

pub mod audit;
pub mod backtest;
pub mod bus;
pub mod check;
pub mod decide;
pub mod describe;
pub mod incidents;
pub mod init;
pub mod k8s;
pub mod kill_switch;
pub mod model;
pub mod playbooks;
pub mod record;
pub mod simple;
pub mod token;
