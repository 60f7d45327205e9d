# At most a third of a workload's pods are gone at once (the share is guard.limits.pods_share_max), rounded down, but
# one may always be. A step that does not say how many is refused.
package nightshift.pods

allowed(of) := max([1, floor((of * input.limits.pods_share_max) + 0.000000001)])

deny contains msg if {
	some step in input.steps
	step.pods.at_once > allowed(step.pods.of)
	msg := sprintf("%d of %d pods of %s at once", [step.pods.at_once, step.pods.of, step.target.name])
}

deny contains msg if {
	some step in input.steps
	step.pods
	not step.pods.at_once
	not step.pods.share
	msg := sprintf("step %s does not say how many pods are gone at once", [step.name])
}

deny contains msg if {
	some step in input.steps
	step.pods.at_once > 1
	not step.pods.of
	msg := sprintf("%d pods of %s at once, and nobody knows of how many", [step.pods.at_once, step.target.name])
}

# A share within the limit is within it whatever the number.
deny contains msg if {
	some step in input.steps
	not step.pods.at_once
	step.pods.share > input.limits.pods_share_max
	msg := sprintf("too great a share of the pods of %s at once, and nobody knows how many it has", [step.target.name])
}
