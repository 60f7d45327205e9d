//! The rules of the house that no compiler knows: `cargo run -p xtask -- tidy`.
//!
//! Each check lists every slip at once, with the file and what to do.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Licences that may be linked into the binary.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "CC0-1.0",
    "MIT-0",
    "BSL-1.0",
    "Unlicense",
    "0BSD",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "OpenSSL",
];

/// Longest source file that is not a table, lines. "About 500" is the hint of the house; this is where it must be split.
const LINES_MAX: usize = 900;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        _ => bail!("xtask knows `tidy`"),
    }
}

fn tidy() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&root)?;
    let mut slips = Vec::new();
    invariants(&root, &sources, &mut slips)?;
    rooms(&root, &mut slips)?;
    words(&sources, &mut slips);
    licences(&root, &mut slips)?;
    if slips.is_empty() {
        println!("tidy: {} files, nothing to mend", sources.len());
        return Ok(());
    }
    for slip in &slips {
        eprintln!("tidy: {slip}");
    }
    bail!("{} things to mend", slips.len())
}

/// Every Rust file under version control, with its text.
fn sources(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let out = Command::new("git").args(["ls-files", "-z", "*.rs"]).current_dir(root).output().context("run git")?;
    let mut files = Vec::new();
    for name in out.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let path = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
            files.push((path, text));
        }
    }
    Ok(files)
}

/// Every invariant of ARCHITECTURE.md is named by a test.
fn invariants(root: &Path, sources: &[(PathBuf, String)], slips: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("read ARCHITECTURE.md")?;
    let is_id = |w: &str| {
        w.split_once('-').is_some_and(|(a, n)| {
            a.len() >= 2
                && a.bytes().all(|b| b.is_ascii_uppercase())
                && !n.is_empty()
                && n.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let ids: BTreeSet<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("| ").and_then(|l| l.split(' ').next()))
        .filter(|w| is_id(w))
        .collect();
    if ids.is_empty() {
        slips.push("ARCHITECTURE.md: its table of invariants is gone".into());
    }
    for id in ids {
        let named =
            sources.iter().any(|(_, t)| (t.contains("#[test]") || t.contains("#[tokio::test")) && t.contains(id));
        if !named {
            slips.push(format!("ARCHITECTURE.md: invariant {id} is named by no test"));
        }
    }
    Ok(())
}

/// Every crate's top doc says what lives there and what must never, and pure rooms depend on nothing that does I/O.
fn rooms(root: &Path, slips: &mut Vec<String>) -> Result<()> {
    let pure = ["model", "detect", "topology", "diagnose"];
    for entry in std::fs::read_dir(root.join("crates")).context("list crates")? {
        let dir = entry.context("list crates")?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let top = std::fs::read_to_string(dir.join("src/lib.rs")).with_context(|| format!("read lib.rs of {name}"))?;
        let doc: String = top.lines().take_while(|l| l.starts_with("//!")).collect::<Vec<_>>().join("\n");
        if !(doc.contains("Lives here") && (doc.contains("Never here") || doc.contains("never"))) {
            slips.push(format!("crates/{name}/src/lib.rs: its top doc must say `Lives here` and `Never here`"));
        }
        if pure.contains(&name.as_str()) {
            let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).context("read Cargo.toml")?;
            let deps = manifest.split("[dev-dependencies]").next().unwrap_or_default();
            for bad in ["tokio", "reqwest", "sqlx", "axum", "rdkafka", "rand"] {
                if deps.lines().any(|l| l.starts_with(&format!("{bad}.")) || l.starts_with(&format!("{bad} "))) {
                    slips.push(format!("crates/{name}/Cargo.toml: a pure room must not depend on {bad}"));
                }
            }
        }
    }
    Ok(())
}

/// Words that mean unfinished work, and files that nobody can hold in their head.
fn words(sources: &[(PathBuf, String)], slips: &mut Vec<String>) {
    // Put together here so that this file does not find itself.
    let unfinished = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("unimple", "mented!("),
        concat!("to", "do!("),
    ];
    for (path, text) in sources {
        for (i, line) in text.lines().enumerate() {
            if unfinished.iter().any(|w| line.contains(w)) {
                slips.push(format!("{}:{}: unfinished work", path.display(), i + 1));
            }
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            slips.push(format!("{}: {lines} lines, at most {LINES_MAX}: split it by sense", path.display()));
        }
    }
}

/// Every dependency has a licence that may be linked.
fn licences(root: &Path, slips: &mut Vec<String>) -> Result<()> {
    let out = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let meta: serde_json::Value = serde_json::from_slice(&out.stdout).context("read cargo metadata")?;
    for package in meta["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or("none told").replace('/', " OR ");
        let allowed = licence
            .split(" OR ")
            .any(|choice| choice.split(" AND ").all(|l| LICENCES.contains(&l.trim().trim_matches(['(', ')']).trim())));
        if !allowed {
            slips.push(format!("dependency {name}: licence `{licence}` is not on the list in xtask"));
        }
    }
    Ok(())
}
