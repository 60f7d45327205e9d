package nightshift.namespaces_test

import data.nightshift.namespaces

plan(action, allowed) := {"steps": [{"action": action, "target": {"id": "prod/service/kube-system/dns", "namespace_allowed": allowed}}]}

test_allowed if {
	count(namespaces.deny) == 0 with input as plan("restart_pods", true)
}

test_not_allowed_and_not_to_be_overridden if {
	some said in namespaces.deny with input as plan("restart_pods", false)
	said.overridable == false
	contains(said.msg, "kube-system")
}

test_a_person_may_look_anywhere if {
	count(namespaces.deny) == 0 with input as plan("manual_review", false)
}
