package nightshift.pods_test

import data.nightshift.pods

plan(p) := {
	"limits": {"pods_share_max": 1 / 3},
	"steps": [{"name": "restart", "pods": p, "target": {"name": "shop"}}],
}

test_a_third_is_rounded_down if {
	count(pods.deny) == 0 with input as plan({"at_once": 1, "of": 3})
	count(pods.deny) == 0 with input as plan({"at_once": 2, "of": 6})
	count(pods.deny) == 0 with input as plan({"at_once": 3, "of": 10})
	count(pods.deny) == 1 with input as plan({"at_once": 2, "of": 5})
	count(pods.deny) == 1 with input as plan({"at_once": 4, "of": 10})
}

test_one_pod_may_always_go if {
	count(pods.deny) == 0 with input as plan({"at_once": 1, "of": 1})
	count(pods.deny) == 0 with input as plan({"at_once": 1, "of": 2})
	count(pods.deny) == 0 with input as plan({"at_once": 1})
}

test_all_at_once_is_too_many if {
	pods.deny == {"3 of 3 pods of shop at once"} with input as plan({"at_once": 3, "of": 3})
}

test_a_step_that_does_not_say_how_many if {
	pods.deny == {"step restart does not say how many pods are gone at once"} with input as plan({"of": 3})
}

test_of_nobody_knows_how_many if {
	count(pods.deny) == 1 with input as plan({"at_once": 2})
}

test_a_step_that_takes_none_away if {
	other := {"limits": {"pods_share_max": 1 / 3}, "steps": [{"name": "flag", "target": {"name": "shop"}}]}
	count(pods.deny) == 0 with input as other
}

test_a_share_of_nobody_knows_how_many if {
	count(pods.deny) == 0 with input as plan({"share": 0.25})
	count(pods.deny) == 1 with input as plan({"share": 0.5})
}
