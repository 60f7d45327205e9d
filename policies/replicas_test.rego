package nightshift.replicas_test

import data.nightshift.replicas

plan(r) := {
	"limits": {"replicas_max": 50},
	"steps": [{"name": "scale", "replicas": r, "target": {"name": "shop"}}],
}

test_within_its_bounds if {
	count(replicas.deny) == 0 with input as plan({"from": 3, "to": 6, "min": 2, "max": 10})
	count(replicas.deny) == 0 with input as plan({"from": 3, "to": 10, "min": 2, "max": 10})
	count(replicas.deny) == 0 with input as plan({"from": 3, "to": 2, "min": 2, "max": 10})
}

test_above_its_bounds if {
	replicas.deny == {"11 replicas of shop are more than its 10"} with input as plan({"from": 3, "to": 11, "min": 2, "max": 10})
}

test_below_its_bounds if {
	replicas.deny == {"1 replicas of shop are fewer than its 2"} with input as plan({"from": 3, "to": 1, "min": 2, "max": 10})
}

test_above_the_most_of_anything if {
	count(replicas.deny) == 1 with input as plan({"from": 3, "to": 51, "min": 2, "max": 100})
	count(replicas.deny) == 1 with input as plan({"to": 51})
}

test_bounds_that_nobody_knows_do_not_speak if {
	count(replicas.deny) == 0 with input as plan({"from": 3, "to": 6})
}

test_to_nothing_only_where_the_bounds_allow_it if {
	count(replicas.deny) == 1 with input as plan({"from": 3, "to": 0})
	count(replicas.deny) == 0 with input as plan({"from": 3, "to": 0, "min": 0, "max": 10})
}

test_a_step_that_does_not_say_how_many if {
	replicas.deny == {"step scale does not say how many replicas"} with input as plan({"from": 3, "min": 2, "max": 10})
}

test_a_step_that_is_not_about_replicas if {
	other := {"limits": {"replicas_max": 50}, "steps": [{"name": "restart", "target": {"name": "shop"}}]}
	count(replicas.deny) == 0 with input as other
}
