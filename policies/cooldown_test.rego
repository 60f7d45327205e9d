package nightshift.cooldown_test

import data.nightshift.cooldown

plan(secs, busy) := {
	"incident": {"synthetic": false},
	"steps": [{"action": "restart_pods", "target": {"name": "shop", "cooldown_secs": secs, "busy": busy}}],
}

test_cool if {
	count(cooldown.monitor) == 0 with input as plan(0, false)
}

test_it_still_cools_down if {
	cooldown.monitor == {"shop cools down for 17 s more"} with input as plan(17, false)
}

test_another_plan_is_at_work if {
	cooldown.monitor == {"another plan is at work on shop"} with input as plan(0, true)
}
