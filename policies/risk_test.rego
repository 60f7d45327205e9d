package nightshift.risk_test

import data.nightshift.risk

plan(r) := {"incident": {"synthetic": false}, "plan": {"risk": r}}

test_low_and_medium_may_run if {
	count(risk.ask) == 0 with input as plan("low")
	count(risk.ask) == 0 with input as plan("medium")
}

test_high_and_critical_ask if {
	risk.ask == {"high risk"} with input as plan("high")
	risk.ask == {"critical risk"} with input as plan("critical")
}
