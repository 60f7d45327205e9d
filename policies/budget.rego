# No action that would spend the error budget that is left. One that could cost nothing is free to go, also when nothing
# is left; one that could cost something asks when nobody counted what is left.
package nightshift.budget

deny contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.target.budget.spend > 0
	step.target.budget.spend >= step.target.budget.left
	msg := sprintf("it could spend the error budget that %s has left", [step.target.name])
}

ask contains msg if {
	not input.incident.synthetic
	some step in input.steps
	step.target.budget.spend > 0
	not step.target.budget.left
	msg := sprintf("nobody counted what is left of the error budget of %s", [step.target.name])
}
