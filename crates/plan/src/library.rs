//! The playbooks at hand: those that ship and the user's own.

use crate::Problem;
use crate::playbook::Playbook;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Playbooks at most; what more a folder holds is refused, and said.
pub const PLAYBOOKS_MAX: usize = 1_000;

/// What is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// Name of the file, as given.
    pub file: String,
    /// What, where, and what to do.
    pub problem: Problem,
}

impl std::fmt::Display for FileProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

/// Playbooks by name. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Playbooks(Arc<BTreeMap<String, Playbook>>);

/// The shape of a playbook file, as JSON Schema.
pub fn playbook_schema() -> serde_json::Value {
    schemars::schema_for!(crate::schema::PlaybookFile).to_value()
}

macro_rules! shipped {
    ($($name:literal)*) => {
        /// The files of `playbooks/`, with their texts.
        const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../playbooks/", $name)))),*];
    };
}

shipped! {
    "calm_retry_storm.yaml"
    "clean_disk.yaml"
    "drain_dead_node.yaml"
    "except_policy.yaml"
    "expand_disk.yaml"
    "failover_database.yaml"
    "kubernetes_cordon_node.yaml"
    "kubernetes_delete_stuck_pod.yaml"
    "kubernetes_drain_node.yaml"
    "kubernetes_expand_claim.yaml"
    "kubernetes_gitops_rollback.yaml"
    "kubernetes_helm_rollback.yaml"
    "kubernetes_image_back.yaml"
    "kubernetes_labels_back.yaml"
    "kubernetes_pause_rollout.yaml"
    "kubernetes_raise_autoscaler.yaml"
    "kubernetes_resume_rollout.yaml"
    "kubernetes_uncordon_node.yaml"
    "last_good_image.yaml"
    "leave_noisy_node.yaml"
    "manual_review.yaml"
    "raise_memory.yaml"
    "raise_memory_jvm.yaml"
    "recycle_pool.yaml"
    "recycle_pool_and_limit.yaml"
    "release_locks.yaml"
    "renew_certificate.yaml"
    "replace_failing_replicas.yaml"
    "restart_hung.yaml"
    "restart_leaking.yaml"
    "restart_resolver.yaml"
    "restore_routes.yaml"
    "rollback_deploy.yaml"
    "scale_consumers.yaml"
    "scale_out.yaml"
    "scale_to_budget.yaml"
    "shed_load.yaml"
    "sync_from_git.yaml"
    "toggle_flag_back.yaml"
    "warm_cache.yaml"
}

impl Playbooks {
    /// Reads one file. The playbook's name is in the text; that of the file is for the caller's messages.
    ///
    /// # Errors
    /// Every problem, by line, at most [`crate::PROBLEMS_MAX`].
    pub fn parse(text: &str) -> Result<Playbook, Vec<Problem>> {
        crate::read::parse(text)
    }

    /// Those that ship. They are part of the program, so nothing has to be installed beside it.
    pub fn shipped() -> Self {
        static ALL: LazyLock<Playbooks> = LazyLock::new(|| {
            let (all, _) = Playbooks::default().load(SHIPPED.iter().copied());
            all
        });
        ALL.clone()
    }

    /// The files that ship, (name, text) each: for `nightshift check`, which reads them like any other.
    pub const fn shipped_files() -> &'static [(&'static str, &'static str)] {
        SHIPPED
    }

    /// These and others; one of the same name is replaced.
    #[must_use]
    pub fn with(&self, others: impl IntoIterator<Item = Playbook>) -> Self {
        let mut all = (*self.0).clone();
        all.extend(others.into_iter().map(|p| (p.name.clone(), p)));
        Self(Arc::new(all))
    }

    /// Without those of these names.
    #[must_use]
    pub fn without(&self, names: &[String]) -> Self {
        let keep = self.0.iter().filter(|(name, _)| !names.contains(name));
        Self(Arc::new(keep.map(|(name, p)| (name.clone(), p.clone())).collect()))
    }

    /// Reads files, (name, text) each, and adds what was read; what was not is told. Pure: the caller reads the folder.
    pub fn load<'a>(&self, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<FileProblem>) {
        let mut all = (*self.0).clone();
        let mut problems = Vec::new();
        // Where each name of this lot was read: two of one lot are a mistake, one of an older lot is replaced.
        let mut from: BTreeMap<String, &str> = BTreeMap::new();
        for (file, text) in files {
            let problem = |problem| FileProblem { file: file.to_owned(), problem };
            match Self::parse(text) {
                Err(found) => problems.extend(found.into_iter().map(problem)),
                Ok(playbook) => {
                    if let Some(first) = from.insert(playbook.name.clone(), file) {
                        let message = format!("`{}` is the name of the playbook in {first} too", playbook.name);
                        let hint = "names are unique: rename one".to_owned();
                        problems.push(problem(Problem { line: 1, message, hint }));
                    } else if all.len() >= PLAYBOOKS_MAX && !all.contains_key(&playbook.name) {
                        let message = format!("more than {PLAYBOOKS_MAX} playbooks");
                        problems.push(problem(Problem { line: 0, message, hint: "remove some".into() }));
                    } else {
                        all.insert(playbook.name.clone(), playbook);
                    }
                }
            }
        }
        (Self(Arc::new(all)), problems)
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&Playbook> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Playbook> {
        self.0.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
