//go:build tools

// Programs that are built as they are: their versions are pinned in the go.mod of the control plane.
package main

import (
	_ "helm.sh/helm/v4/cmd/helm"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
