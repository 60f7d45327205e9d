use super::*;

fn resolver() -> Resolver {
    Resolver::new(ResolveConfig::default(), "Web1.example.com", &["10.0.0.7".parse().unwrap()])
}

#[track_caller]
fn check(r: &Resolver, origin: &Origin, names: &[(&str, &str)], want: &str) {
    let got = r.resolve(names, origin).map_or_else(|| "nothing".to_owned(), |f| f.meta.id.to_string());
    assert_eq!(got, want, "{names:?}");
}

/// The whole table, each row one record.
#[test]
fn records_resolve_to_one_entity() {
    const OWN: &str = "local/host/-/web1.example.com";
    let rows: &[(&[(&str, &str)], &str)] = &[
        // The same host by a node exporter, OTLP, our own source, its address and its short name.
        (&[("job", "node"), ("instance", "localhost:9100")], OWN),
        (&[("job", "node"), ("instance", "127.0.0.53:9100")], OWN),
        (&[("job", "x"), ("instance", "[::1]:9100")], OWN),
        (&[("instance", "10.0.0.7:9100")], OWN),
        (&[("instance", "WEB1:9100")], OWN),
        (&[("host.name", "web1.example.com")], OWN),
        (&[("host.name", "web1")], OWN),
        (&[("host_name", "web1."), ("host.id", "abc")], OWN),
        // Other hosts.
        (&[("instance", "db1:9100")], "local/host/-/db1"),
        (&[("instance", "[2001:db8::1]:9100")], "local/host/-/2001:db8::1"),
        (&[("instance", "2001:db8::1")], "local/host/-/2001:db8::1"),
        (&[("host.id", "i-0abc")], "local/host/-/i-0abc"),
        (&[("host.name", "db1"), ("cluster", "eu")], "eu/host/-/db1"),
        // Services.
        (&[("service.namespace", "shop"), ("service.name", "cart"), ("host.name", "db1")], "local/service/shop/cart"),
        (&[("instance", "10.1.1.1:80"), ("app", "cart"), ("job", "pods")], "local/service/-/cart"),
        (&[("instance", "10.1.1.1:80"), ("service", "cart"), ("namespace", "shop")], "local/service/shop/cart"),
        (&[("service.name", "unknown_service:java"), ("host.name", "db1")], "local/host/-/db1"),
        (&[("job", "shop/cart")], "local/service/shop/cart"),
        (&[("job", "api")], "local/service/-/api"),
        // Kubernetes owners come before services; the pod is a label.
        (
            &[("k8s.namespace.name", "shop"), ("k8s.deployment.name", "cart"), ("service.name", "cart-svc")],
            "local/deployment/shop/cart",
        ),
        (&[("namespace", "shop"), ("pod", "cart-5d4f8c7b9-x2x4z")], "local/deployment/shop/cart"),
        (&[("namespace", "shop"), ("pod", "cart-5d4f8c7b9-zz9lf"), ("service", "s")], "local/deployment/shop/cart"),
        (&[("namespace", "shop"), ("pod", "db-0")], "local/statefulset/shop/db"),
        (&[("namespace", "shop"), ("pod", "agent-x2x4z")], "local/pod/shop/agent-x2x4z"),
        (&[("namespace", "shop"), ("replicaset", "cart-5d4f8c7b9")], "local/deployment/shop/cart"),
        (&[("namespace", "shop"), ("statefulset", "db"), ("pod", "db-0")], "local/statefulset/shop/db"),
        (&[("namespace", "shop"), ("job_name", "backup-1"), ("job", "ksm")], "local/job/shop/backup-1"),
        // `pod` without a namespace is not Kubernetes' word.
        (&[("pod", "cart-5d4f8c7b9-x2x4z"), ("instance", "db1:1")], "local/host/-/db1"),
        // The exporter's own pod is not what its series are about.
        (
            &[("job", "node-exporter"), ("namespace", "mon"), ("pod", "node-exporter-x2x4z"), ("instance", "db1:9100")],
            "local/host/-/db1",
        ),
        (&[("k8s.node.name", "n1")], "local/node/-/n1"),
        (&[("nightshift.entity", "eu/ingress/shop/web"), ("k8s.node.name", "n1")], "eu/ingress/shop/web"),
        (&[("nightshift.entity", "no entity"), ("k8s.node.name", "n1")], "local/node/-/n1"),
        // A probe is about what it probes.
        (
            &[("instance", "https://a.example/health"), ("job", "blackbox")],
            "local/other/-/https:%2F%2Fa.example%2Fhealth",
        ),
        (&[("le", "0.5")], "nothing"),
        (&[("instance", "")], "nothing"),
    ];
    let r = resolver();
    for (names, want) in rows {
        check(&r, &Origin::OWN, names, want);
    }
}

#[test]
fn loopback_is_the_host_of_the_reporting_agent() {
    let r = resolver();
    let far = Origin::peer("10.9.9.9".parse().unwrap());
    check(&r, &far, &[("instance", "localhost:9100")], "local/host/-/10.9.9.9");
    check(&r, &far, &[("host.name", "localhost")], "local/host/-/10.9.9.9");
    check(&r, &far, &[("instance", "db1:9100")], "local/host/-/db1");
    // Its own address, and the address under which a peer is known.
    check(
        &r,
        &Origin::peer("10.0.0.7".parse().unwrap()),
        &[("instance", "localhost")],
        "local/host/-/web1.example.com",
    );
    assert!(r.learn("instance=10.9.9.9", &EntityId::new("local", "host", "", "db9")));
    check(&r, &far, &[("instance", "localhost:9100")], "local/host/-/db9");
    assert_eq!(Origin::peer("::ffff:127.0.0.1".parse().unwrap()), Origin::OWN);
    let told = [(REPORTER, "10.9.9.9")];
    assert_eq!(r.resolve_or_reporter(&told[..], &Origin::OWN).meta.id.name(), "db9");
    assert_eq!(r.resolve_or_reporter(&[][..], &Origin::OWN).meta.id, *r.own_host());
}

#[test]
fn aliases_join_names_and_change_the_generation() {
    let r = resolver();
    let db = EntityId::new("local", "host", "", "db1");
    let before = r.generation();
    assert!(r.learn("instance=10.1.1.1", &db));
    assert!(!r.learn("instance=10.1.1.1", &db), "known already");
    assert_eq!(r.generation(), before + 1);
    check(&r, &Origin::OWN, &[("instance", "10.1.1.1:9100")], "local/host/-/db1");
    r.learn("host.id=i-1", &db);
    check(&r, &Origin::OWN, &[("host.id", "i-1"), ("host.name", "ip-10-1-1-1")], "local/host/-/db1");
    r.learn("pod=shop/odd", &EntityId::new("local", "deployment", "shop", "cart"));
    check(&r, &Origin::OWN, &[("namespace", "shop"), ("pod", "odd")], "local/deployment/shop/cart");
    r.set_aliases([]);
    check(&r, &Origin::OWN, &[("instance", "10.1.1.1:9100")], "local/host/-/10.1.1.1");
}

#[test]
fn context_comes_from_the_record_the_defaults_and_the_overrides() {
    let settings = ResolveConfig {
        environment: "staging".into(),
        overrides: vec![Override {
            entity: "*/service/shop/*".into(),
            owner: "team-shop".into(),
            ..Override::default()
        }],
        ..ResolveConfig::default()
    };
    let r = Resolver::new(settings, "h", &[]);
    let record =
        [("service.name", "cart"), ("service.namespace", "shop"), ("service.version", "1.2"), ("host.name", "db1")];
    let got = r.resolve(&record[..], &Origin::OWN).unwrap();
    assert_eq!((got.meta.service.as_str(), got.meta.version.as_str()), ("cart", "1.2"));
    assert_eq!((got.meta.environment.as_str(), got.meta.owner.as_str()), ("staging", "team-shop"));
    assert_eq!(got.runs_on.unwrap().as_str(), "local/host/-/db1");
    let both = [("host.name", "db1"), ("host.id", "i-1"), ("service.version", "9")];
    let got = r.resolve(&both[..], &Origin::OWN).unwrap();
    assert_eq!(got.aliases, ["host.id=i-1"]);
    assert_eq!((got.meta.service.as_str(), got.meta.version.as_str()), ("", ""));
}

#[test]
fn the_order_is_configurable() {
    let settings = ResolveConfig { order: vec![Rule::Host, Rule::Service], ..ResolveConfig::default() };
    let r = Resolver::new(settings, "h", &[]);
    check(&r, &Origin::OWN, &[("service.name", "cart"), ("host.name", "db1")], "local/host/-/db1");
    check(&r, &Origin::OWN, &[("instance", "db1:1")], "nothing");
}

#[test]
fn globs_match_whole_ids() {
    for (pattern, text, want) in [
        ("*", "", true),
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("*b", "ab", true),
        ("a*c*e", "abcde", true),
        ("a*e*c", "abcde", false),
        ("", "a", false),
        ("*b*", "abc", true),
    ] {
        assert_eq!(matches_glob(pattern, text), want, "{pattern} {text}");
    }
}

proptest::proptest! {
    /// Whatever the labels say, the id is one that readers of a batch accept.
    #[test]
    fn every_id_can_be_read_again(name in ".{0,600}", namespace in ".{0,600}", cluster in ".{0,300}") {
        let r = resolver();
        for key in ["service.name", "host.name", "instance", "job", "k8s.deployment.name"] {
            let names = [(key, name.as_str()), ("cluster", cluster.as_str()), ("namespace", namespace.as_str())];
            if let Some(found) = r.resolve(&names[..], &Origin::OWN) {
                proptest::prop_assert!(EntityId::parse(found.meta.id.as_str()).is_ok(), "{}", found.meta.id);
                proptest::prop_assert!(found.meta.service.len() <= CONTEXT_BYTES_MAX);
            }
        }
    }
}
