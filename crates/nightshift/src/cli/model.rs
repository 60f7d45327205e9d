//! `model`: names, options and help.

use super::DataArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the versions of the model.
    List {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show one version: what it changes, where it is from, how its trial stands, what was done.
    Show {
        /// Its number [default: the active one].
        #[arg(value_name = "VERSION")]
        number: Option<u32>,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Put a candidate on trial: it runs beside the active version on the same stream and alarms nobody.
    Shadow(ShadowArgs),
    /// Let the version on trial take over, if it is better on the labels that feedback gave.
    Promote {
        /// Take over although the rule says no; the journal tells.
        #[arg(long, requires = "why")]
        anyway: bool,
        /// Why, for the journal.
        #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
        why: String,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Go back to the version before.
    Rollback {
        /// To this version [default: the one that the active version replaced].
        #[arg(long, value_name = "N")]
        to: Option<u32>,
        /// Why, for the journal.
        #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
        why: String,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// How far the recent days are from what was learned, family by family.
    Drift {
        /// Compare with a file of baselines instead of one's own days before.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Write what was learned of families of series: no reading, no name of an entity, no label.
    Export(ExportArgs),
    /// Sum files of baselines: of halves comes what the whole would give.
    Merge {
        /// Files that `export` or `merge` wrote.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to write the sum [default: standard output].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take files of baselines in: new series of families that they know start with their scale and tails.
    Import {
        /// Files that `export` or `merge` wrote.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
}

/// `model shadow`.
#[derive(Debug, Args)]
pub struct ShadowArgs {
    /// A key of `detect.metrics` and its value, for example `zscore.sensitivity=high`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", required_unless_present = "stop")]
    pub set: Vec<String>,
    /// End the trial that is running.
    #[arg(long, conflicts_with = "set")]
    pub stop: bool,
    /// What it is for, for the journal.
    #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
    pub note: String,
    /// Files and folders.
    #[command(flatten)]
    pub data: DataArgs,
}

/// `model export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to write it [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave the names of tenant and cluster out.
    #[arg(long)]
    pub anonymous: bool,
    /// Leave families out that fewer than so many series-days were seen of.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub series_min: u64,
    /// Which tenant [default: the configured one].
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Files and folders.
    #[command(flatten)]
    pub data: DataArgs,
}
