//! `k8s`: names, options and help.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `k8s`.
#[derive(Debug, Subcommand)]
pub enum K8sCommand {
    /// Look at a cluster once, read only, and say what is wrong, why, and what to do. Needs no server.
    #[command(after_help = "Exit codes: 0 nothing found, 3 something found, 1 failed, 2 bad input.")]
    Scan(ScanArgs),
}

/// `k8s scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Only what concerns this namespace: objects and causes in it, and what it uses of the whole cluster.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Advice too: what is no fault but could be better.
    #[arg(long)]
    pub advice: bool,
    /// Context of the kubeconfig [default: the current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig file [default: KUBECONFIG, then `~/.kube/config`, then the account of the pod that this runs in].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
