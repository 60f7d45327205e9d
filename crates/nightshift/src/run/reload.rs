//! Playbooks and policies that people change while the service runs.
//!
//! The folders are looked at every few seconds. A change is taken up once the files have been at rest for one look, and
//! only as a whole: when anything in it is wrong, or a test of a policy fails, what was in use stays in use and the
//! health of `library` says why.

use crate::agents::{Library, Shelf};
use crate::api::CatalogueBoard;
use crate::library::{self, Stamp};
use crate::settings::Settings;
use nightshift_config::Problems;
use nightshift_health::Reporter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Problems of one attempt that are logged.
const TOLD_MAX: usize = 20;

pub(super) struct Reload {
    pub(super) settings: Arc<Settings>,
    pub(super) base: PathBuf,
    pub(super) shelf: Arc<Shelf>,
    pub(super) catalogue: Arc<CatalogueBoard>,
    pub(super) health: Reporter,
    pub(super) stop: CancellationToken,
}

impl Reload {
    /// Whether there is a folder to look at.
    pub(super) fn is_needed(settings: &Settings) -> bool {
        !settings.plan.folder.is_empty() || !settings.guard.policies.folder.is_empty()
    }

    pub(super) async fn run(self) {
        self.say_what_is_used();
        let mut used = self.stamp().await;
        let mut seen = used.clone();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now = self.stamp().await;
            let at_rest = now == seen;
            seen = now;
            if at_rest && seen != used {
                used = seen.clone();
                self.load().await;
            }
        }
    }

    async fn stamp(&self) -> Stamp {
        let (settings, base) = (self.settings.clone(), self.base.clone());
        // A look that could not be taken sees what an empty folder shows, and loading then says what is wrong.
        tokio::task::spawn_blocking(move || library::stamp(&settings, &base)).await.unwrap_or_default()
    }

    async fn load(&self) {
        let (settings, base) = (self.settings.clone(), self.base.clone());
        let loaded = tokio::task::spawn_blocking(move || read(&settings, &base)).await;
        match loaded.unwrap_or_else(|e| Err(vec![e.to_string()])) {
            Ok(library) => {
                self.catalogue.set_playbooks(crate::api::playbook_rows(&library.playbooks));
                self.catalogue.set_policies(crate::api::policy_rows(&library.policies));
                tracing::info!(
                    playbooks = library.playbooks.len(),
                    policies = library.policies.files().len(),
                    "the folders of playbooks and policies changed: taken up"
                );
                self.shelf.put(library);
                self.say_what_is_used();
            }
            Err(wrong) => {
                for line in wrong.iter().take(TOLD_MAX) {
                    tracing::warn!("not taken up: {line}");
                }
                let more = wrong.len().saturating_sub(1);
                let more = if more > 0 { format!(" (and {more} more, see the log)") } else { String::new() };
                let first = wrong.first().map_or("", String::as_str);
                self.health.degraded(format!(
                    "what changed is not taken up, the playbooks and policies before it are in use: {first}{more}"
                ));
            }
        }
    }

    fn say_what_is_used(&self) {
        let library = self.shelf.library();
        let (playbooks, files) = (library.playbooks.len(), library.policies.files().len());
        self.health.healthy(format!("{playbooks} playbooks and {files} files of policies in use"));
    }
}

/// The whole set from the folders, or everything that is wrong with it.
fn read(settings: &Settings, base: &std::path::Path) -> Result<Library, Vec<String>> {
    let mut problems = Problems::default();
    let read = library::read(settings, base, &mut problems);
    if problems.has_errors() {
        return Err(problems.sorted().iter().map(ToString::to_string).collect());
    }
    let (_, failed) = crate::check::policy_tests(&read.policies);
    if failed.is_empty() { Ok(read) } else { Err(failed) }
}
