//! The documents agree with the estate that they are about, with the playbooks that ship, and with each other.

use super::DOCUMENTS;
use crate::spec::{EstateSpec, Part, ServiceSpec};
use nightshift_knowledge::{Known, Library};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn library() -> Library {
    let (library, problems) = Library::read(DOCUMENTS.iter().copied());
    assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
    library
}

/// Playbooks that ship, by name, with what each says it heals.
fn playbooks() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let yaml = files.filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    yaml.map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let name = text.lines().find_map(|l| l.strip_prefix("name: ")).unwrap().trim().to_owned();
        (name, text)
    })
    .collect()
}

fn names(spec: &EstateSpec) -> BTreeSet<String> {
    spec.parts().into_iter().map(|p| spec.id(p).name()).collect()
}

#[test]
fn every_file_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("knowledge");
    let mut on_disk = BTreeSet::new();
    for kind in std::fs::read_dir(&folder).unwrap() {
        for file in std::fs::read_dir(kind.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            on_disk.insert(path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned());
        }
    }
    let embedded: Vec<String> = DOCUMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(embedded, on_disk.into_iter().collect::<Vec<_>>());
}

#[test]
fn there_is_what_a_team_of_a_year_would_have() {
    let library = library();
    let counts = (library.incidents().count(), library.runbooks().count(), library.services().count());
    assert!(counts.0 >= 20 && counts.1 >= 7 && counts.2 == 6, "{counts:?}");
    for d in library.incidents() {
        let titles: Vec<&str> = d.sections.iter().map(|s| s.title.as_str()).collect();
        assert_eq!(titles, ["Summary", "Root cause", "Resolution", "Contributing factors"], "{}", d.id);
    }
    for (name, document) in library.iter() {
        for section in document.sections() {
            assert!(section.text.chars().count() >= 30, "{name}: {} says too little", section.title);
        }
    }
}

#[test]
fn names_playbooks_and_dependencies_are_those_that_exist() {
    let spec = EstateSpec::six();
    let known = Known { entities: names(&spec), playbooks: playbooks().into_keys().collect() };
    let problems = library().check(&known);
    assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
}

#[test]
fn service_documents_say_what_the_estate_is() {
    let (spec, library) = (EstateSpec::six(), library());
    assert_eq!(library.services().count(), spec.services.len());
    for (i, s) in spec.services.iter().enumerate() {
        let d = library.service(&s.name).unwrap_or_else(|| panic!("{} has no document", s.name));
        let told = (d.team.as_str(), d.on_call.as_str(), d.criticality.as_str(), d.language.as_str());
        assert_eq!(
            told,
            (s.owner.as_str(), s.on_call.as_str(), s.criticality.as_str(), s.language.as_str()),
            "{}",
            s.name
        );
        assert_eq!(d.sla_percent.parse::<f64>().unwrap(), s.sla_percent, "{}", s.name);
        let name = |part: Part| spec.id(part).name();
        let mut needs: BTreeSet<String> = s.calls.iter().map(|c| name(Part::Service(c.to))).collect();
        needs.extend(s.database.map(|db| name(Part::Database(db))));
        needs.extend(s.consumer.as_ref().map(|c| name(Part::Topic(c.topic))));
        assert_eq!(d.depends_on.iter().cloned().collect::<BTreeSet<_>>(), needs, "{}", s.name);
        let calls_it = |c: &&ServiceSpec| c.calls.iter().any(|call| call.to == i);
        let callers: BTreeSet<String> = spec.services.iter().filter(calls_it).map(|c| c.name.clone()).collect();
        assert_eq!(d.needed_by.iter().cloned().collect::<BTreeSet<_>>(), callers, "{}", s.name);
        assert!(!d.failure_modes.is_empty() && !d.runbooks.is_empty(), "{}", s.name);
        // Each way to fail has a runbook that the document names.
        for fault in &d.failure_modes {
            let covered = library.runbooks().any(|r| d.runbooks.contains(&r.name) && r.faults.contains(fault));
            assert!(covered, "{}: no runbook of its document is for {fault}", s.name);
        }
        // Figures at rest that the text quotes are the estate's.
        let text: String = d.sections.iter().map(|s| s.text.replace('\n', " ") + " ").collect();
        assert!(text.contains(&format!("{:.0} requests a second", s.rest_rps)), "{}", s.name);
        assert!(text.contains(&format!("p99 of {:.0} ms", s.p99_ms)), "{}", s.name);
        if let Some((_, money)) = s.business_impact.split_once("about ") {
            assert!(text.contains(money), "{}: {money}", s.name);
        }
    }
}

#[test]
fn owners_of_runbooks_are_teams_of_the_estate() {
    let spec = EstateSpec::six();
    let teams: BTreeSet<&str> = spec.services.iter().map(|s| s.owner.as_str()).collect();
    for book in library().runbooks() {
        assert!(teams.contains(book.owner.as_str()), "{}: {}", book.name, book.owner);
    }
}

/// A playbook that an incident says helped is one that heals this class; one that did not help may be any.
#[test]
fn playbooks_fit_the_faults_that_they_helped_against() {
    let (library, playbooks) = (library(), playbooks());
    let heals = |playbook: &str, fault: FaultClass| {
        let text = &playbooks[playbook];
        text.contains(&format!("fault: {fault},")) || text.contains(&format!("fault: {fault} "))
    };
    for d in library.incidents().filter(|d| d.helped) {
        assert!(heals(&d.playbook, d.fault), "{}: {} does not heal {}", d.id, d.playbook, d.fault);
    }
    for book in library.runbooks() {
        for playbook in &book.playbooks {
            assert!(book.faults.iter().any(|f| heals(playbook, *f)), "{}: {playbook}", book.name);
        }
    }
}

/// What a past incident says was hit is what its cause can hit: itself, and those that need it.
#[test]
fn past_incidents_spread_along_the_estates_edges() {
    let (spec, library) = (EstateSpec::six(), library());
    let start = spec.start;
    for d in library.incidents() {
        assert!(d.began < start, "{} lies in the future of the estate", d.id);
        let part = spec.parts().into_iter().find(|p| spec.id(*p).name() == d.service).unwrap();
        let Part::Service(i) = part else { continue };
        // Callers, callers of callers, the database they share, and what is called by those that flood it.
        let mut reach = BTreeSet::from([i]);
        for _ in 0..3 {
            for (caller, s) in spec.services.iter().enumerate() {
                if s.calls.iter().any(|c| reach.contains(&c.to)) {
                    reach.insert(caller);
                }
            }
        }
        let direct: Vec<usize> = spec.services[i].calls.iter().map(|c| c.to).collect();
        for name in &d.affected {
            let part = spec.parts().into_iter().find(|p| spec.id(*p).name() == *name).unwrap();
            let fits = match part {
                Part::Service(j) => reach.contains(&j) || direct.contains(&j),
                Part::Database(j) => spec.services[i].database == Some(j),
                _ => false,
            };
            assert!(fits, "{}: how would {} hit {name}?", d.id, d.service);
        }
    }
}
