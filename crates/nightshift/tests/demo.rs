//! The demo as its user starts it: a fault is noticed, explained, fixed, verified, and its postmortem can be read.

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

#[test]
fn it_breaks_and_is_healed() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("demo");
    let mut child = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(["demo", "--headless", "--json", "--for", "120s", "--data"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut tones = Vec::new();
    let mut told = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let value: Value = serde_json::from_str(&line).unwrap();
        if let Some(tone) = value["tone"].as_str()
            && tones.last().map(String::as_str) != Some(tone)
        {
            tones.push(tone.to_owned());
        }
        told.push(line);
        if told.last().is_some_and(|l| l.contains("postmortem: ")) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let told = told.join("\n");
    let mut rest = tones.iter();
    for tone in ["world", "alarm", "cause", "plan", "guard", "act", "good"] {
        assert!(rest.any(|t| t == tone), "no `{tone}` in its place among {tones:?}:\n{told}");
    }
    assert!(told.contains("resolved ") && told.contains("postmortem: nightshift postmortem INC-0001"), "{told}");
}

#[test]
fn it_empties_no_folder_of_somebody_else() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("mine.txt"), "keep").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(["demo", "--headless", "--for", "1s", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("not a demo's"), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(data.path().join("mine.txt").exists());
}
