# Replicas stay within the bounds of the entity, and a workload is never scaled to nothing unless its own bounds allow
# it. A step that does not say how many is refused: what is not known is not within bounds.
package nightshift.replicas

deny contains msg if {
	some step in input.steps
	step.replicas
	not step.replicas.to
	msg := sprintf("step %s does not say how many replicas", [step.name])
}

deny contains msg if {
	some step in input.steps
	step.replicas.to > step.replicas.max
	msg := sprintf("%d replicas of %s are more than its %d", [step.replicas.to, step.target.name, step.replicas.max])
}

deny contains msg if {
	some step in input.steps
	step.replicas.to < step.replicas.min
	msg := sprintf("%d replicas of %s are fewer than its %d", [step.replicas.to, step.target.name, step.replicas.min])
}

deny contains msg if {
	some step in input.steps
	step.replicas.to > input.limits.replicas_max
	msg := sprintf("%d replicas of %s are more than %d, the most of anything", [step.replicas.to, step.target.name, input.limits.replicas_max])
}

deny contains msg if {
	some step in input.steps
	step.replicas.to == 0
	not step.replicas.min == 0
	msg := sprintf("%s would be scaled to nothing", [step.target.name])
}
