//! Which lists we are allowed, by asking the API server about ourselves.

use crate::client::{ApiServer, KubeError};
use serde::Deserialize;

/// Largest answer, bytes.
const BYTES_MAX: usize = 4 << 20;

/// What we may do in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// Not everything is told: then trying is how to know.
    incomplete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Rules {
    /// Whether a list of the kind is worth asking for.
    pub(crate) fn may_list(&self, group: &str, plural: &str) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|v| v == wanted || v == "*");
        self.incomplete
            || self.rules.iter().any(|r| {
                r.resource_names.is_empty()
                    && has(&r.verbs, "list")
                    && has(&r.api_groups, group)
                    && has(&r.resources, plural)
            })
    }
}

/// What we may do in a namespace. Where the server does not tell, everything is worth a try.
pub(crate) async fn rules(server: &ApiServer, namespace: &str) -> Rules {
    ask(server, namespace).await.unwrap_or(Rules { rules: Vec::new(), incomplete: true })
}

async fn ask(server: &ApiServer, namespace: &str) -> Result<Rules, KubeError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Review {
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        resource_rules: Option<Vec<Rule>>,
        incomplete: bool,
    }
    let question = serde_json::json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": namespace },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let bytes = server.post(path, question.to_string().into_bytes(), BYTES_MAX).await?;
    let review: Review =
        serde_json::from_slice(&bytes).map_err(|_| KubeError::Unreadable("no review of rules".into()))?;
    Ok(Rules { rules: review.status.resource_rules.unwrap_or_default(), incomplete: review.status.incomplete })
}
