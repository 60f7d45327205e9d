// The parts of a Kubernetes control plane in one program, chosen by the first argument:
//
//	etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl   as they are
//	node-api, make-key                                                      our own: see nodeapi.go, and makeKey
//
// One program shares packages and one link step: it takes a third of the time and of the space of five.
// kwok and helm stay their own programs; kwok's `--version` flag clashes with the one of Kubernetes.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	_ "time/tzdata" // time zones of CronJobs

	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = "usage: kube etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl|node-api|make-key [FLAG]…"

func main() {
	part := filepath.Base(os.Args[0])
	if part != "kubectl" { // a link named kubectl is kubectl
		if len(os.Args) < 2 {
			fmt.Fprintln(os.Stderr, usage)
			os.Exit(2)
		}
		part = os.Args[1]
		// Each part reads os.Args by itself.
		os.Args = append([]string{part}, os.Args[2:]...)
	}
	switch part {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	case "node-api":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := nodeAPI(ctx, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "node-api:", err)
			os.Exit(1)
		}
	case "make-key":
		if err := makeKey(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "make-key:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
}

// makeKey writes the RSA key that signs the tokens of service accounts.
func makeKey(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: kube make-key FILE")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(args[0], pem.EncodeToMemory(block), 0o600)
}
