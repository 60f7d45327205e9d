# One plan per target at a time, and none until the last one's target has cooled down.
package nightshift.cooldown

monitor contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	step.target.cooldown_secs > 0
	msg := sprintf("%s cools down for %d s more", [step.target.name, step.target.cooldown_secs])
}

monitor contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	step.target.busy
	msg := sprintf("another plan is at work on %s", [step.target.name])
}
