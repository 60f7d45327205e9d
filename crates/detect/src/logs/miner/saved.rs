//! A miner's state for a snapshot, and back.

use super::{Kind, MinerConfig, MinerStats, Template, TemplateId, TemplateMiner, Token, WILD_HASH, sum_of, tokenize};
use serde::{Deserialize, Serialize};

/// A template as a snapshot holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedTemplate {
    id: TemplateId,
    /// The form; parameters are U+0001.
    form: String,
    count: u64,
    last: u64,
    /// Places that refinement made parameters, though the form may show a prefix there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<u32>,
    #[serde(default)]
    refined: bool,
}

/// A miner's state as part of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedMiner {
    templates: Vec<SavedTemplate>,
    stats: MinerStats,
}

impl TemplateMiner {
    /// What a restart needs.
    pub fn save(&self) -> SavedMiner {
        let templates = self.templates.iter().filter(|t| t.alive).filter_map(|t| {
            Some(SavedTemplate {
                id: t.id,
                form: std::str::from_utf8(&t.form).ok()?.to_owned(),
                count: t.count,
                last: t.last,
                parameters: (0..).zip(&t.tokens).filter(|(_, t)| t.kind == Kind::Wild).map(|(i, _)| i).collect(),
                refined: t.refined,
            })
        });
        SavedMiner { templates: templates.collect(), stats: self.stats }
    }

    /// A miner that goes on where `saved` was made. More templates than the bound are cut.
    pub fn load(config: MinerConfig, saved: SavedMiner) -> Self {
        let mut miner = Self::new(config);
        let mut tokens = Vec::new();
        let kept = saved.templates.into_iter().take(miner.config.templates_max.max(64)).map(|s| {
            let form: Box<[u8]> = s.form.into_bytes().into();
            tokenize(&form, &mut tokens);
            for i in s.parameters {
                if let Some(token) = tokens.get_mut(i as usize) {
                    *token = Token { hash: WILD_HASH, kind: Kind::Wild };
                }
            }
            Template {
                id: s.id,
                sum: sum_of(&tokens),
                tokens: tokens.as_slice().into(),
                form,
                root: 0,
                count: s.count,
                last: s.last,
                alive: true,
                refined: s.refined,
            }
        });
        let kept = kept.collect();
        miner.rebuild(kept);
        miner.stats = saved.stats;
        miner
    }
}
