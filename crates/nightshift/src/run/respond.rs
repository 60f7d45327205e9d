//! What the second half of the corridor is built from, and who is told.

use super::Service;
use crate::agents::{Feed, Response, Shelf};
use crate::opa::OpaClient;
use crate::switch::SwitchBoard;
use anyhow::{Context as _, Result, anyhow};
use nightshift_act::{ActuatorConfig, Executor};
use nightshift_tell::{People, Responsible};
use nightshift_topology::{ServiceSpec, TopologyFile};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest pause of the teller when nothing is due.
const TELL_EVERY: Duration = Duration::from_millis(250);

impl Service {
    /// Everything that the workflow is given.
    ///
    /// # Errors
    /// When an actuator or the policy engine's client cannot be built.
    pub(super) async fn response(
        &self,
        shelf: Arc<Shelf>,
        feed: Arc<Feed>,
        switch: Arc<SwitchBoard>,
    ) -> Result<Response> {
        let mut actuators = BTreeMap::new();
        for (name, config) in &self.settings.actuators {
            let built = match config {
                ActuatorConfig::Kubernetes(config) => crate::kubernetes::actuator(config, self.clock.clone()).await,
                config => config.build(self.clock.clone()),
            };
            let built = built.map_err(|e| anyhow!("actuators.{name}: {e}"))?;
            actuators.insert(name.clone(), built);
        }
        actuators.extend(self.extras.actuators.clone());
        let opa = match &self.settings.guard.opa {
            Some(config) => Some(Arc::new(OpaClient::new(config).context("guard.opa")?)),
            None => None,
        };
        let executor = Executor::new(actuators, self.clock.clone());
        let worker = format!("{:016x}", rand::rng().random::<u64>());
        Ok(Response {
            workflow: self.settings.workflow.clone(),
            plan: self.plan_config(),
            guard: self.settings.guard.clone(),
            policies: shelf.library().policies.clone(),
            playbooks: shelf.library().playbooks.clone(),
            shelf: Some(shelf),
            learn: self.settings.learn.clone(),
            past: Arc::new(self.extras.past.clone()),
            actuators: Arc::new(executor.declares()),
            executor: Arc::new(executor),
            opa,
            what_if: self.extras.what_if.clone(),
            feed,
            switch,
            worker,
        })
    }

    /// How plans are made. Where one actuator is configured and the one that steps fall to is not, it is the one.
    pub(super) fn plan_config(&self) -> nightshift_plan::PlanConfig {
        let mut plan = self.settings.plan.clone();
        let mut names = self.settings.actuators.keys().chain(self.extras.actuators.keys());
        if let (Some(only), None) = (names.next(), names.next())
            && *only != plan.actuator
        {
            plan.actuator.clone_from(only);
        }
        plan
    }

    /// Tells people what the journal says, where somebody wants to be told.
    ///
    /// # Errors
    /// When a notifier cannot be built.
    pub(super) fn start_teller(&self) -> Result<Option<JoinHandle<()>>> {
        let config = self.settings.tell.clone();
        if config.notifiers.is_empty() {
            return Ok(None);
        }
        let receivers = nightshift_tell::receivers(&config).map_err(|wrong| {
            let all: Vec<String> =
                wrong.into_iter().map(|(name, why)| format!("tell.notifiers.{name}: {why}")).collect();
            anyhow!("{}", all.join("; "))
        })?;
        let rng = SmallRng::from_rng(&mut rand::rng());
        let mut teller = nightshift_tell::Teller::new(self.store.clone(), self.clock.clone(), receivers, config, rng);
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("teller"));
        Ok(Some(tokio::spawn(async move {
            let mut sent = 0;
            while !stop.is_cancelled() {
                match teller.turn().await {
                    Ok(told) => {
                        sent += told.sent;
                        match told.failed {
                            0 => health.healthy(format!("{sent} letters told")),
                            n => health.degraded(format!("{sent} letters told, {n} could not be just now")),
                        }
                        if told.progressed() {
                            continue;
                        }
                    }
                    Err(e) => health.unhealthy(e.to_string()),
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(TELL_EVERY) => {}
                }
            }
        })))
    }
}

/// Who answers for what, as the file declares it.
pub(super) fn people_of(file: &TopologyFile) -> People {
    let responsible = |s: &ServiceSpec| Responsible { owner: s.owner.clone(), on_call: s.on_call.clone() };
    file.services.iter().map(|s| (s.id.clone(), responsible(s))).collect()
}
