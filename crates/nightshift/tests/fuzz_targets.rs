//! Every parser of outside bytes has a fuzz target, a corpus, and an ordinary test that replays the corpus. The targets
//! are compiled by `cargo check` in `fuzz/`; that none is missing is found out here.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every Rust file below a folder, with its text.
fn rust_files(folder: &Path, out: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            out.push((path, text));
        }
    }
}

/// The name after each `before` in a text.
fn names<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(before)
        .skip(1)
        .map(|rest| rest.split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap_or(""))
}

#[test]
fn every_fuzz_entry_has_a_target_and_a_corpus_that_is_replayed() {
    let root = root();
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        rust_files(&entry.unwrap().path(), &mut sources);
    }
    let own = Path::new(file!()).file_name().unwrap();
    sources.retain(|(path, _)| path.file_name() != Some(own));
    // (crate, function) of every entry.
    let mut entries = BTreeSet::new();
    for (path, text) in &sources {
        let room =
            path.strip_prefix(root.join("crates")).unwrap().iter().next().unwrap().to_string_lossy().into_owned();
        entries.extend(names(text, "pub fn fuzz_").map(|name| (room.clone(), name.to_owned())));
    }
    assert!(entries.len() >= 20, "only {} entries were found: was the form changed?", entries.len());
    let mut targets = Vec::new();
    rust_files(&root.join("fuzz/fuzz_targets"), &mut targets);
    let mut of: BTreeMap<(String, String), String> = BTreeMap::new();
    for (path, text) in &targets {
        let target = path.file_stem().unwrap().to_string_lossy().into_owned();
        let room = names(text, "nightshift_").next().unwrap_or_default().to_owned();
        let function = names(text, "::fuzz_").find(|n| *n != "target").unwrap_or_default().to_owned();
        let fine = target == function || target == format!("{room}_{function}");
        assert!(fine, "target {target} calls fuzz_{function} of {room}: name it after that");
        assert!(of.insert((room, function), target).is_none(), "{} is the second target of its entry", path.display());
    }
    let with: BTreeSet<_> = of.keys().cloned().collect();
    assert_eq!(entries, with, "left: fuzz entries in the crates, right: those with a target in fuzz/fuzz_targets");
    let manifest: toml::Value =
        toml::from_str(&std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap()).unwrap();
    let bins: BTreeSet<(&str, &str)> = manifest["bin"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["name"].as_str().unwrap(), b["path"].as_str().unwrap()))
        .collect();
    for target in of.values() {
        let path = format!("fuzz_targets/{target}.rs");
        assert!(bins.contains(&(target.as_str(), path.as_str())), "{target} is no [[bin]] of fuzz/Cargo.toml");
        let seeds = std::fs::read_dir(root.join("fuzz/corpus").join(target));
        let seeds = seeds.unwrap_or_else(|e| panic!("fuzz/corpus/{target}: {e}")).count();
        assert!(seeds >= 1, "fuzz/corpus/{target} is empty");
        let replayed = sources.iter().any(|(_, text)| {
            text.contains(&format!("corpus/{target}\""))
                || (text.contains("replay(") || text.contains("corpus")) && text.contains(&format!("(\"{target}\""))
        });
        assert!(replayed, "no test replays fuzz/corpus/{target}");
    }
    assert_eq!(bins.len(), of.len(), "every [[bin]] of fuzz/Cargo.toml has its file");
    let folders = std::fs::read_dir(root.join("fuzz/corpus")).unwrap();
    let folders: BTreeSet<String> = folders.map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(folders, of.values().cloned().collect(), "left: folders of fuzz/corpus, right: targets");
}
