# Nothing is changed while a freeze window is on; during maintenance a plan waits.
package nightshift.freeze

deny contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	some window in step.target.windows
	window.kind == "freeze"
	msg := sprintf("freeze window %s is on for %s", [window.name, step.target.name])
}

monitor contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	some window in step.target.windows
	window.kind == "maintenance"
	msg := sprintf("maintenance window %s is on for %s", [window.name, step.target.name])
}
