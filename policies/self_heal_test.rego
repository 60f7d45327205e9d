package nightshift.self_heal_test

import data.nightshift.self_heal

plan(critical, opted_in, opted_out) := {
	"incident": {"synthetic": false},
	"steps": [{
		"action": "restart_pods",
		"target": {"name": "cart", "critical": critical, "opted_in": opted_in, "opted_out": opted_out},
	}],
}

test_critical_heals_by_itself if {
	count(self_heal.ask) == 0 with input as plan(true, false, false)
}

test_opted_in_heals_by_itself if {
	count(self_heal.ask) == 0 with input as plan(false, true, false)
}

test_others_ask if {
	self_heal.ask == {"cart is neither tagged critical nor opted in to healing by itself"} with input as plan(false, false, false)
}

test_opting_out_wins_over_being_critical if {
	self_heal.ask == {"cart is opted out of healing by itself"} with input as plan(true, false, true)
}

test_a_target_of_which_nothing_is_known_asks if {
	nothing := {"incident": {"synthetic": false}, "steps": [{"action": "restart_pods", "target": {"name": "cart"}}]}
	count(self_heal.ask) == 1 with input as nothing
}

test_a_manual_review_asks_nobody_twice if {
	review := {"incident": {"synthetic": false}, "steps": [{"action": "manual_review", "target": {"name": "cart", "critical": false}}]}
	count(self_heal.ask) == 0 with input as review
}

test_a_test_injection_asks_nobody if {
	injected := object.union(plan(false, false, false), {"incident": {"synthetic": true}})
	count(self_heal.ask) == 0 with input as injected
}
