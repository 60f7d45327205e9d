//! A real control plane: `kubectl` of the test environment, namespaces that go away again.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its own part of this, which may panic")]

use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The cluster that the test environment started, or that the user named.
#[derive(Clone)]
pub(crate) struct Kube {
    program: PathBuf,
    /// Of an administrator.
    pub(crate) kubeconfig: PathBuf,
}

impl Kube {
    /// The cluster with controllers; `None` (said aloud) where there is none.
    pub(crate) fn full() -> Option<Self> {
        Self::of("NIGHTSHIFT_TEST_KUBECONFIG")
    }

    fn of(variable: &str) -> Option<Self> {
        let program = crate::support::program("NIGHTSHIFT_TEST_KUBE", "the Kubernetes control plane")?;
        let kubeconfig = crate::support::program(variable, "a Kubernetes cluster")?;
        Some(Self { program, kubeconfig })
    }

    /// Runs `kubectl` and gives what it prints, or what it complains of.
    pub(crate) fn try_run(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(&self.program)
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(format!("kubectl {args:?}: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// Runs `kubectl`.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.try_run(args, "").unwrap_or_else(|e| panic!("{e}"))
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, yaml: &str) {
        self.try_run(&["apply", "-f", "-"], yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    }

    /// An object as JSON; `Null` when it is not there.
    pub(crate) fn get(&self, args: &[&str]) -> Value {
        let all = [&["get", "-o", "json"], args].concat();
        self.try_run(&all, "").map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    }

    /// A namespace of this test alone; gone when it is dropped.
    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        let name = format!("{name}-{}", std::process::id());
        self.run(&["create", "namespace", &name]);
        Namespace { kube: self.clone(), name, others: Vec::new() }
    }
}

/// A namespace of one test, and what it made beside it.
pub(crate) struct Namespace {
    kube: Kube,
    /// Its name.
    pub(crate) name: String,
    /// `kind/name` of objects of the whole cluster.
    pub(crate) others: Vec<String>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for other in &self.others {
            drop(self.kube.try_run(&["delete", other, "--ignore-not-found", "--wait=false"], ""));
        }
        drop(self.kube.try_run(&["delete", "namespace", &self.name, "--wait=false"], ""));
    }
}
