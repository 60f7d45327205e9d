package nightshift.database_test

import data.nightshift.database

plan(action, kind, production) := {
	"incident": {"synthetic": false},
	"steps": [{"action": action, "target": {"kind": kind, "name": "orders", "production": production}}],
}

test_restart_of_a_production_database_asks if {
	database.ask == {"restart_pods of the production database orders"} with input as plan("restart_pods", "database", true)
}

test_failover_of_a_production_database_asks if {
	count(database.ask) == 1 with input as plan("failover_db", "database", true)
}

test_failover_asks_also_when_the_target_is_the_service_in_front_of_it if {
	count(database.ask) == 1 with input as plan("failover_db", "service", true)
}

test_staging_is_free if {
	count(database.ask) == 0 with input as plan("restart_pods", "database", false)
	count(database.ask) == 0 with input as plan("failover_db", "service", false)
}

test_a_service_is_no_database if {
	count(database.ask) == 0 with input as plan("restart_pods", "service", true)
}

test_what_does_not_disturb_it_is_free if {
	count(database.ask) == 0 with input as plan("recycle_connections", "database", true)
}

test_each_step_is_looked_at if {
	two := {
		"incident": {"synthetic": false},
		"steps": [
			{"action": "toggle_feature", "target": {"kind": "service", "name": "shop", "production": true}},
			{"action": "restart_pods", "target": {"kind": "database", "name": "orders", "production": true}},
		],
	}
	count(database.ask) == 1 with input as two
}
