package nightshift.freeze_test

import data.nightshift.freeze

plan(windows) := {
	"incident": {"synthetic": false},
	"steps": [{"action": "restart_pods", "target": {"name": "shop", "windows": windows}}],
}

test_no_window if {
	count(freeze.deny) == 0 with input as plan([])
	count(freeze.monitor) == 0 with input as plan([])
}

test_a_freeze_denies if {
	w := [{"name": "year end", "kind": "freeze"}]
	freeze.deny == {"freeze window year end is on for shop"} with input as plan(w)
	count(freeze.monitor) == 0 with input as plan(w)
}

test_maintenance_waits if {
	w := [{"name": "disks", "kind": "maintenance"}]
	count(freeze.deny) == 0 with input as plan(w)
	freeze.monitor == {"maintenance window disks is on for shop"} with input as plan(w)
}

test_a_test_injection_is_let_through if {
	injected := object.union(plan([{"name": "year end", "kind": "freeze"}]), {"incident": {"synthetic": true}})
	count(freeze.deny) == 0 with input as injected
}
