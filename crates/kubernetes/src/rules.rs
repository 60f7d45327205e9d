//! Which namespaces are watched, where several share a cluster.

use nightshift_collect::kubernetes::{NamespaceRules, ShardConfig};
use nightshift_model::hash::hash64;

/// Namespaces by allow and deny lists, and of those the share of one of several watchers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Share {
    rules: NamespaceRules,
    shard: ShardConfig,
}

/// Namespaces that are watched one by one at most, each kind with a stream of its own.
const ONE_BY_ONE_MAX: usize = 20;

impl Share {
    pub(crate) const fn new(rules: NamespaceRules, shard: ShardConfig) -> Self {
        Self { rules, shard }
    }

    /// Whether all namespaces are ours.
    pub(crate) fn is_all(&self) -> bool {
        self.rules.allow.is_empty() && self.rules.deny.is_empty() && self.shard.of <= 1
    }

    /// Whether a namespace is ours.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        self.rules.admits(namespace)
            && (self.shard.of <= 1
                || hash64(namespace.as_bytes()) % u64::from(self.shard.of) == u64::from(self.shard.index))
    }

    /// The namespaces, where they are a few that are named in full: then each is watched alone, which needs rights in
    /// those only.
    pub(crate) fn named(&self) -> Option<Vec<String>> {
        let allow = &self.rules.allow;
        let few = !allow.is_empty() && allow.len() <= ONE_BY_ONE_MAX && allow.iter().all(|n| crate::scan::is_name(n));
        few.then(|| allow.iter().filter(|n| self.admits(n)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_in_one_share() {
        let share = |index| Share::new(NamespaceRules::default(), ShardConfig { index, of: 3 });
        let mut sizes = [0; 3];
        for n in 0..300 {
            let name = format!("team-{n}");
            let owners: Vec<u32> = (0..3).filter(|i| share(*i).admits(&name)).collect();
            assert_eq!(owners.len(), 1, "{name}");
            sizes[owners[0] as usize] += 1;
        }
        assert!(sizes.iter().all(|n| *n > 50), "{sizes:?}");
        assert!(!share(0).is_all() && Share::default().is_all());
    }

    #[test]
    fn a_few_named_ones_are_watched_one_by_one() {
        let share = |allow: &[&str], deny: &[&str]| {
            let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
            Share::new(NamespaceRules { allow: own(allow), deny: own(deny) }, ShardConfig::default())
        };
        assert_eq!(share(&["shop", "bank"], &["bank"]).named(), Some(vec!["shop".to_owned()]));
        assert_eq!(share(&["shop-*"], &[]).named(), None);
        assert_eq!(share(&[], &["x"]).named(), None);
    }
}
