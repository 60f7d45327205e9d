# High and critical risk always ask.
package nightshift.risk

ask contains msg if {
	not input.incident.synthetic
	input.plan.risk in {"high", "critical"}
	msg := sprintf("%s risk", [input.plan.risk])
}
