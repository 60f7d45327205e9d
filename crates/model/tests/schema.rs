//! Schemas only grow: every field that was published keeps its tag, name and type.

use std::collections::BTreeSet;
use std::path::Path;

/// `Message tag name type label` of every field of `proto/`.
fn fields(root: &Path) -> BTreeSet<String> {
    let set = protox::compile([root.join("nightshift/v1/bus.proto")], [root]).expect("the schema compiles");
    let mut all = BTreeSet::new();
    for message in set.file.iter().flat_map(|f| &f.message_type) {
        for field in &message.field {
            let kind =
                if field.type_name().is_empty() { format!("{:?}", field.r#type()) } else { field.type_name().into() };
            let (message, tag, name) = (message.name(), field.number(), field.name());
            all.insert(format!("{message} {tag} {name} {kind} {:?}", field.label()));
        }
    }
    all
}

#[test]
fn published_fields_never_change() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let published = std::fs::read_to_string(root.join("nightshift/v1/bus.fields")).expect("bus.fields is committed");
    let published: BTreeSet<String> = published.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
    let now = fields(&root);
    let gone: Vec<_> = published.difference(&now).collect();
    assert!(gone.is_empty(), "a published field was removed or changed; give the new one a new tag: {gone:#?}");
    let new: Vec<_> = now.difference(&published).collect();
    assert!(new.is_empty(), "add the new fields to proto/nightshift/v1/bus.fields, where they stay: {new:#?}");
    let mut tags = BTreeSet::new();
    for field in &now {
        let tag: Vec<_> = field.split(' ').take(2).map(str::to_owned).collect();
        assert!(tags.insert(tag), "a tag is used twice: {field}");
    }
}
