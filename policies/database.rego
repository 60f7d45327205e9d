# Restarting or failing over a production database asks, whatever the confidence. So does draining the node that one
# runs on, when that is known. An environment that nobody declared counts as production.
package nightshift.database

disruptive := {"restart_pods", "failover_db", "drain_node"}

ask contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action in disruptive
	step.target.kind == "database"
	step.target.production
	msg := sprintf("%s of the production database %s", [step.action, step.target.name])
}

ask contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action == "failover_db"
	step.target.kind != "database"
	step.target.production
	msg := sprintf("failover of the database behind %s, in production", [step.target.name])
}
