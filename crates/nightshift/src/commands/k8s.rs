//! `k8s scan`: one look at a cluster, and what is wrong with it.

use crate::cli::K8sCommand;
use crate::exit::CommandResult;
use nightshift_model::Clock;

/// `nightshift k8s …`.
///
/// # Errors
/// When there is no cluster to ask, it refuses everything, or something was found (exit code 3).
#[cfg(feature = "kubernetes")]
pub async fn run(command: &K8sCommand, json: bool, clock: &dyn Clock) -> CommandResult {
    let K8sCommand::Scan(args) = command;
    scan::run(args, json, clock).await
}

/// `nightshift k8s …`.
///
/// # Errors
/// Always: this program was built without it.
#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
pub async fn run(_: &K8sCommand, _: bool, _: &dyn Clock) -> CommandResult {
    Err(anyhow::anyhow!("this program was built without Kubernetes; build it with `--features kubernetes`").into())
}

#[cfg(feature = "kubernetes")]
mod scan {
    use crate::cli::ScanArgs;
    use crate::commands::incidents::print_line;
    use crate::exit::{CommandResult, Failure, bad_input};
    use nightshift_cluster::{Finding, Options, concerns};
    use nightshift_kubernetes::scan::{self, LookOptions, Sight};
    use nightshift_kubernetes::{Access, ApiServer, KubeError};
    use nightshift_model::Clock;
    use std::io::IsTerminal as _;

    pub(super) async fn run(args: &ScanArgs, json: bool, clock: &dyn Clock) -> CommandResult {
        if let Some(name) = args.namespace.as_deref().filter(|n| !scan::is_name(n)) {
            return Err(bad_input(format!("`{name}` is no name of a namespace: letters, digits and dashes")));
        }
        let access = Access { kubeconfig: args.kubeconfig.clone(), context: args.context.clone(), in_cluster: false };
        let server = ApiServer::find(&access).await.map_err(failure)?;
        let options = LookOptions { namespace: args.namespace.clone(), ..LookOptions::default() };
        let sight = scan::look(&server, &options).await.map_err(failure)?;
        for line in scan::not_seen(&sight.unseen) {
            eprintln!("nightshift: {line}");
        }
        let options = Options { advice: args.advice, ..Options::default() };
        let mut findings = nightshift_cluster::scan(&sight.world, &options, clock.now());
        if let Some(namespace) = &args.namespace {
            findings.retain(|f| concerns(&sight.world, f, namespace));
            if findings.is_empty() && sight.world.namespaces.look("", namespace).is_missing() {
                return Err(bad_input(format!("there is no namespace `{namespace}` in this cluster")));
            }
        }
        print(&findings, &sight, args.namespace.as_deref(), json)?;
        if findings.iter().any(|f| f.severity.is_fault()) { Err(Failure::Found) } else { Ok(()) }
    }

    fn print(findings: &[Finding], sight: &Sight, namespace: Option<&str>, json: bool) -> CommandResult {
        if !json {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print_line(scan::text(findings, sight, namespace, colour).trim_end())?;
            return Ok(());
        }
        for finding in findings {
            print_line(&scan::json(finding)?)?;
        }
        Ok(())
    }

    fn failure(error: KubeError) -> Failure {
        if error.is_bad_input() { Failure::BadInput(error.into()) } else { Failure::Failed(error.into()) }
    }
}
