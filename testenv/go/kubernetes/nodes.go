package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The API server passes no request on to a kubelet on a loopback address, and a kubelet is not told the name of its node
// by a request. So nodes have addresses that do not exist, and the API server is configured (egress selector) to go to
// its cluster through an HTTP proxy on a socket, which is here: a connection to the address of a node is served in place, with that
// address as its local end; one to a service or pod is refused, as no process is behind it; any other (webhooks by URL, the
// metrics API) is passed on.

// Addresses of services and pods, as testenv/kubernetes/lib.sh gives them out.
var (
	_, services, _ = net.ParseCIDR("10.96.0.0/16")
	_, pods, _     = net.ParseCIDR("10.240.0.0/12")
)

// nodeConnection has the address of a node as its local end.
type nodeConnection struct {
	net.Conn
	node net.Addr
}

func (c nodeConnection) LocalAddr() net.Addr { return c.node }

// nodeListener hands the proxy's connections to the server.
type nodeListener chan net.Conn

func (l nodeListener) Accept() (net.Conn, error) {
	connection, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return connection, nil
}
func (l nodeListener) Close() error   { return nil }
func (l nodeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (c *cluster) serveNodes(server *http.Server, socket string) error {
	_ = os.Remove(socket) // of one that was killed
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	connections := make(nodeListener)
	go server.ServeTLS(connections, "", "")
	proxy := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if target, _, err2 := net.SplitHostPort(r.URL.Host); err2 == nil {
			host, err = target, nil
		}
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "CONNECT host:port is all this can do", http.StatusMethodNotAllowed)
			return
		}
		if ip := net.ParseIP(host); ip != nil && (services.Contains(ip) || pods.Contains(ip)) {
			// nobody is there, and to find that out by a timeout would hold up what waits for a webhook
			http.Error(w, "connect: connection refused", http.StatusBadGateway)
			return
		}
		var upstream net.Conn
		if c.nodeAt(host) == nil {
			dialer := net.Dialer{Timeout: 10 * time.Second}
			if upstream, err = dialer.DialContext(context.Background(), "tcp", r.URL.Host); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		hijacker, ok := w.(http.Hijacker)
		if !ok {
			return
		}
		connection, _, err := hijacker.Hijack()
		if err != nil {
			return
		}
		_ = connection.SetDeadline(time.Time{})
		if _, err := connection.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
			_ = connection.Close()
			return
		}
		if upstream == nil {
			connections <- nodeConnection{connection, &net.TCPAddr{IP: net.ParseIP(host)}}
			return
		}
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_ = to.Close()
			_ = from.Close()
		}
		go pass(upstream, connection)
		go pass(connection, upstream)
	})}
	go proxy.Serve(listener)
	return nil
}

// nodeAt is the node that has this address.
func (c *cluster) nodeAt(address string) *corev1.Node {
	nodes, _ := c.nodes.List(labels.Everything())
	i := slices.IndexFunc(nodes, func(node *corev1.Node) bool {
		return slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == address })
	})
	if i < 0 {
		return nil
	}
	return nodes[i]
}

func localHost(r *http.Request) string {
	address := fmt.Sprint(r.Context().Value(http.LocalAddrContextKey))
	return strings.Trim(address[:max(0, strings.LastIndexByte(address, ':'))], "[]")
}
