package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Everything a test sets starts with this.
const prefix = "nightshift.test/"

// cluster is what node-api knows: a slim copy of all pods and nodes.
type cluster struct {
	client kubernetes.Interface
	pods   corelisters.PodLister
	nodes  corelisters.NodeLister
	logs   string // folder of log files
	now    func() time.Time
}

// nodeAPI stands in for what a cluster of kwok nodes lacks: metrics-server, the kubelets' logs and statistics, and the
// kubelets' look at config maps and secrets before a container starts (see refs.go).
func nodeAPI(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("node-api", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "of an admin")
	port := flags.Int("port", 0, "of the metrics API, on 127.0.0.1")
	socket := flags.String("socket", "", "of the way to the kubelets (see nodes.go)")
	logs := flags.String("logs", "", "folder with NAMESPACE/POD/CONTAINER.log and .previous.log")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit of our own
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	pods, nodes := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	c := &cluster{client: client, pods: pods.Lister(), nodes: nodes.Lister(), logs: *logs, now: time.Now}

	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           c.handler(),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	go server.ServeTLS(listener, "", "")
	if err := c.serveNodes(server, *socket); err != nil {
		return err
	}
	waiting := newWaitingPods(c)
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    waiting.see,
		UpdateFunc: func(_, object any) { waiting.see(object) },
		DeleteFunc: waiting.forget,
	}); err != nil {
		return err
	}

	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go waiting.run(ctx)
	fmt.Println("node-api: ready")
	<-ctx.Done()
	return server.Close()
}

// slim drops what nobody here asks for: ten thousand whole pods would take a hundred megabytes.
func slim(object any) (any, error) {
	switch object := object.(type) {
	case *corev1.Pod:
		object.ManagedFields = nil
		for key := range object.Annotations {
			if !strings.HasPrefix(key, prefix) {
				delete(object.Annotations, key)
			}
		}
		spec := corev1.PodSpec{NodeName: object.Spec.NodeName, Volumes: object.Spec.Volumes}
		if refs := references(&object.Spec); len(refs) == 0 {
			spec.Volumes = nil
		}
		strip := func(from []corev1.Container) (to []corev1.Container) {
			for _, c := range from {
				to = append(to, corev1.Container{Name: c.Name, Image: c.Image, Resources: c.Resources, Env: c.Env, EnvFrom: c.EnvFrom})
			}
			return to
		}
		spec.Containers, spec.InitContainers = strip(object.Spec.Containers), strip(object.Spec.InitContainers)
		object.Spec = spec
	case *corev1.Node:
		object.ManagedFields = nil
		object.Status.Images = nil
	}
	return object, nil
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "node-api"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// status is the answer to a request that cannot be served, as the API server words it.
func status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}
}
