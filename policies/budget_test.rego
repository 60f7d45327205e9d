package nightshift.budget_test

import data.nightshift.budget

plan(b) := {
	"incident": {"synthetic": false},
	"steps": [{"target": {"name": "shop", "budget": b}}],
}

test_enough_is_left if {
	count(budget.deny) == 0 with input as plan({"left": 0.4, "spend": 0.1})
	count(budget.ask) == 0 with input as plan({"left": 0.4, "spend": 0.1})
}

test_it_would_spend_all_that_is_left if {
	count(budget.deny) == 1 with input as plan({"left": 0.1, "spend": 0.1})
	count(budget.deny) == 1 with input as plan({"left": -0.5, "spend": 0.001})
}

test_what_costs_nothing_is_free_also_when_nothing_is_left if {
	count(budget.deny) == 0 with input as plan({"left": -0.5, "spend": 0})
}

test_an_unknown_budget_asks if {
	count(budget.ask) == 1 with input as plan({"spend": 0.1})
	count(budget.deny) == 0 with input as plan({"spend": 0.1})
	count(budget.ask) == 0 with input as plan({"spend": 0})
}

test_no_objective_is_declared if {
	none := {"incident": {"synthetic": false}, "steps": [{"target": {"name": "shop"}}]}
	count(budget.deny) == 0 with input as none
	count(budget.ask) == 0 with input as none
}
