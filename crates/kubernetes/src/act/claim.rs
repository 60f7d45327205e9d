//! Volume claims: larger, where their class allows it. What has grown never shrinks again.

use super::Context;
use super::edit::{Aim, Deed, Subject};
use super::json::{Fields, get, quantity_at, text};
use super::place::{CLAIM, Place, STORAGE_CLASS};
use super::target::must;
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::{Value, json};

const SIZE: &str = "/spec/resources/requests/storage";
const GIB: f64 = 1_073_741_824.0;

/// The size of a claim.
pub(super) struct Expand;

async fn expandable(cx: &Context<'_>, claim: &Subject) -> Result<bool, ActError> {
    let class = text(&claim.object, "/spec/storageClassName");
    if class.is_empty() {
        return Ok(false);
    }
    let place = Place::new(&STORAGE_CLASS, "", class)?;
    match cx.door.get(&place).await {
        Ok(found) => Ok(found.is_some_and(|c| get(&c, "/allowVolumeExpansion") == Value::Bool(true))),
        // Without the right to read classes the dry-run says it.
        Err(e) if e.is_forbidden() => Ok(true),
        Err(e) => Err(e.read(&place.label())),
    }
}

#[async_trait]
impl Deed for Expand {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let place = Place::new(&CLAIM, &target.namespace(), &target.name())?;
        let object = must(cx, &place).await?;
        Ok(vec![Subject::new(place, object, &[SIZE])])
    }

    async fn facts(&self, cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let mut image = Image::new();
        let Some(claim) = subjects.first() else { return Ok(image) };
        if let Some(size) = quantity_at(&claim.object, SIZE) {
            let gib = (size / GIB * 1e3).round() / 1e3;
            image.insert("disk_gib".into(), if gib.fract() == 0.0 { json!(gib as i64) } else { json!(gib) });
        }
        image.insert("expandable".into(), expandable(cx, claim).await?.into());
        Ok(image)
    }

    async fn aim(
        &self,
        cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let Some(claim) = subjects.first() else { return Err(ActError::Refused("there is no claim".into())) };
        let what = claim.place.label();
        let refused = |why: String| Err(ActError::Refused(format!("expand {what}: {why}")));
        let wanted = action.params.get("disk_gib").and_then(Value::as_f64).filter(|n| n.is_finite() && *n > 0.0);
        let Some(gib) = wanted.filter(|_| action.params.len() == 1) else {
            return refused("give `disk_gib`, and nothing else".into());
        };
        let now = quantity_at(&claim.object, SIZE).unwrap_or(0.0);
        if gib * GIB <= now {
            return refused(format!(
                "{gib} GiB is not more than the {:.1} GiB that it has; a volume never shrinks",
                now / GIB
            ));
        }
        if !expandable(cx, claim).await? {
            return refused("its storage class does not allow it (allowVolumeExpansion)".into());
        }
        let size = if gib.fract() == 0.0 { format!("{}Gi", gib as u64) } else { super::json::mib(gib * 1024.0) };
        let fields = Fields::from([(SIZE.to_owned(), size.clone().into())]);
        Ok(Aim { which: 0, fields, said: format!("{what} to {size}") })
    }
}
