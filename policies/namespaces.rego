# Changes only in namespaces on the allow-list (guard.limits.namespaces, less guard.limits.namespaces_denied).
package nightshift.namespaces

deny contains {"msg": msg, "overridable": false} if {
	some step in input.steps
	step.action != "manual_review"
	not step.target.namespace_allowed
	msg := sprintf("namespace of %s is not on the allow-list", [step.target.id])
}
