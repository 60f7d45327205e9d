# Only services that are tagged critical or opted in heal by themselves; for anything else a person is asked. Opting
# out (self_heal = false) wins over being critical.
package nightshift.self_heal

ask contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	not step.target.critical
	not step.target.opted_in
	not step.target.opted_out
	msg := sprintf("%s is neither tagged critical nor opted in to healing by itself", [step.target.name])
}

ask contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.action != "manual_review"
	step.target.opted_out
	msg := sprintf("%s is opted out of healing by itself", [step.target.name])
}
