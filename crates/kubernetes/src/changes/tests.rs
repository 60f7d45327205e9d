use super::*;

fn world(resource: Resource, json: serde_json::Value) -> World {
    let mut world = World::default();
    world.put_json(resource, json.to_string().as_bytes()).unwrap();
    world
}

fn diff(resource: Resource, old: serde_json::Value, new: serde_json::Value) -> Vec<Noted> {
    let mut versions = [old, new];
    for (i, object) in versions.iter_mut().enumerate() {
        object["metadata"]["namespace"] = "shop".into();
        object["metadata"]["name"] = "web".into();
        object["metadata"]["uid"] = "u".into();
        object["metadata"]["resourceVersion"] = i.to_string().into();
        object["metadata"]["managedFields"] = serde_json::json!([{"manager": "helm", "operation": "Update"}]);
    }
    let [old, new] = versions;
    let now = Timestamp::from_secs(1_000);
    of_one(Kind::Known(resource), &world(resource, old), &world(resource, new), now)
}

fn told(noted: &[Noted]) -> (ChangeType, &str, &str, &str) {
    assert_eq!(noted.len(), 1, "{noted:?}");
    let told = noted[0].change.as_ref().unwrap();
    (told.sort, &told.what, &told.who, &told.version)
}

#[test]
fn a_rollout_names_its_images_version_and_author() {
    let of = |image: &str, replicas: i64| {
        serde_json::json!({"metadata": {}, "spec": {"replicas": replicas,
            "template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
    };
    let noted = diff(Resource::Deployments, of("r:5000/web:1", 2), of("r:5000/web:2", 3));
    let what = "image of app from r:5000/web:1 to r:5000/web:2, replicas from 2 to 3";
    assert_eq!(told(&noted), (ChangeType::Deployment, what, "helm", "2"));
    assert_eq!(noted[0].records, [Record::Changed { what: what.into(), who: "helm".into() }]);
    let noted = diff(Resource::Deployments, of("web:1", 2), of("web:1", 5));
    assert_eq!(told(&noted), (ChangeType::Scaling, "replicas from 2 to 5", "helm", ""));
    assert_eq!(diff(Resource::Deployments, of("web:1", 2), of("web:1", 2)), []);
}

#[test]
fn labels_of_pods_and_selectors_are_records() {
    let of =
        |app: &str| serde_json::json!({"metadata": {}, "spec": {"template": {"metadata": {"labels": {"app": app}}}}});
    let noted = diff(Resource::Deployments, of("web"), of("shop"));
    assert!(noted[0].records.contains(&Record::Labels { from: "app=web".into(), to: "app=shop".into() }));
    let of = |app: &str| serde_json::json!({"metadata": {}, "spec": {"selector": {"app": app}}});
    let noted = diff(Resource::Services, of("web"), of("shop"));
    assert_eq!(told(&noted).1, "selector from app=web to app=shop");
}

#[test]
fn values_of_secrets_and_config_maps_are_never_told() {
    let noted = diff(
        Resource::Secrets,
        serde_json::json!({"metadata": {}, "data": {"password": "aHVudGVyMg==", "old": "eA=="}}),
        serde_json::json!({"metadata": {}, "data": {"password": "aHVudGVyMw==", "new": "eQ=="}}),
    );
    assert_eq!(told(&noted).1, "key new is new, value of password, key old is gone");
    assert!(!format!("{noted:?}").contains("hunter"));
    let flags = diff(
        Resource::ConfigMaps,
        serde_json::json!({"metadata": {}, "data": {"flags.json": "{}"}}),
        serde_json::json!({"metadata": {}, "data": {"flags.json": "{\"x\":1}"}}),
    );
    assert_eq!((told(&flags).0, told(&flags).1), (ChangeType::FeatureFlag, "value of flags.json"));
}

#[test]
fn restarts_and_leaders_are_remembered_and_told_to_nobody() {
    let of = |n: i64| serde_json::json!({"metadata": {}, "status": {"containerStatuses": [{"name": "a", "restartCount": n}]}});
    let noted = diff(Resource::Pods, of(1), of(3));
    assert_eq!((noted[0].records.as_slice(), &noted[0].change), (&[Record::Restarts(3)][..], &None));
    assert_eq!(diff(Resource::Pods, of(3), of(3)), []);
    let of = |who: &str| serde_json::json!({"metadata": {}, "spec": {"holderIdentity": who}});
    assert_eq!(diff(Resource::Leases, of("a"), of("b"))[0].records, [Record::Leader("b".into())]);
}

#[test]
fn warnings_are_told_and_repetitions_are_not_each_a_new_thing() {
    let of = |n: i64, kind: &str| {
        serde_json::json!({"metadata": {}, "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "p"},
            "reason": "FailedMount", "message": "no volume", "type": kind, "count": n})
    };
    let noted = diff(Resource::Events, of(1, "Warning"), of(2, "Warning"));
    assert_eq!(told(&noted).1, "FailedMount of Pod shop/p: no volume (2 times)");
    let key = |n: &[Noted]| n[0].change.as_ref().unwrap().key.clone();
    assert_eq!(key(&noted), key(&diff(Resource::Events, of(2, "Warning"), of(3, "Warning"))));
    assert_eq!(diff(Resource::Events, of(1, "Normal"), of(2, "Normal")), []);
}

#[test]
fn what_a_new_list_no_longer_has_was_deleted() {
    let of = |name: &str| serde_json::json!({"metadata": {"namespace": "shop", "name": name, "uid": name}});
    let (old, new) = (world(Resource::ConfigMaps, of("a")), world(Resource::ConfigMaps, of("b")));
    let now = Timestamp::from_secs(5);
    let noted = between(Kind::Known(Resource::ConfigMaps), None, &old, &new, now);
    let gone = ObjectRef::new("ConfigMap", "shop", "a");
    assert!(noted.contains(&Noted { object: gone, at: now, records: vec![Record::Deleted], change: None }));
    assert!(between(Kind::Known(Resource::ConfigMaps), Some("bank"), &old, &new, now).is_empty());
}
