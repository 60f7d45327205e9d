package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

const metricsVersion = "metrics.k8s.io/v1beta1"

func (c *cluster) handler() http.Handler {
	mux := http.NewServeMux()
	reply := func(pattern string, answer func(*http.Request) any) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			body := answer(r)
			w.Header().Set("Content-Type", "application/json")
			if failed, ok := body.(*metav1.Status); ok {
				w.WriteHeader(int(failed.Code))
			}
			_ = json.NewEncoder(w).Encode(body)
		})
	}
	group := metav1.APIGroup{
		TypeMeta:         metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
		Name:             metrics.GroupName,
		Versions:         []metav1.GroupVersionForDiscovery{{GroupVersion: metricsVersion, Version: "v1beta1"}},
		PreferredVersion: metav1.GroupVersionForDiscovery{GroupVersion: metricsVersion, Version: "v1beta1"},
	}
	reply("/apis", func(*http.Request) any {
		return metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{group}}
	})
	reply("/apis/metrics.k8s.io", func(*http.Request) any { return group })
	base := "/apis/" + metricsVersion
	reply(base, func(*http.Request) any {
		verbs := metav1.Verbs{"get", "list"}
		return metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: metricsVersion,
			APIResources: []metav1.APIResource{
				{Name: "nodes", Kind: "NodeMetrics", Verbs: verbs},
				{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: verbs},
			},
		}
	})
	reply(base+"/nodes", c.nodeMetricsList)
	reply(base+"/nodes/{name}", func(r *http.Request) any {
		node, err := c.nodes.Get(r.PathValue("name"))
		if err != nil {
			return status(404, metav1.StatusReasonNotFound, err.Error())
		}
		if item := c.nodeMetrics(node); item != nil {
			return item
		}
		return status(404, metav1.StatusReasonNotFound, "no metrics of this node")
	})
	reply(base+"/pods", c.podMetricsList)
	reply(base+"/namespaces/{namespace}/pods", c.podMetricsList)
	reply(base+"/namespaces/{namespace}/pods/{name}", func(r *http.Request) any {
		pod, err := c.pods.Pods(r.PathValue("namespace")).Get(r.PathValue("name"))
		if err != nil {
			return status(404, metav1.StatusReasonNotFound, err.Error())
		}
		if item := c.podMetrics(pod); item != nil {
			return item
		}
		return status(404, metav1.StatusReasonNotFound, "no metrics of this pod")
	})
	reply("/stats/summary", c.summary)
	reply("/healthz", func(*http.Request) any { return "ok" })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", c.serveLog)
	return mux
}

func (c *cluster) stamp() metav1.Time { return metav1.NewTime(c.now().Truncate(time.Second)) }

var window = metav1.Duration{Duration: 15 * time.Second}

// quantity of the first annotation that is there and can be read.
func quantity(annotations map[string]string, keys ...string) (resource.Quantity, bool) {
	for _, key := range keys {
		if text, ok := annotations[prefix+key]; ok {
			if q, err := resource.ParseQuantity(text); err == nil {
				return q, true
			}
		}
	}
	return resource.Quantity{}, false
}

// usage of one container: `nightshift.test/cpu.CONTAINER`, else `nightshift.test/cpu`, else the container's share of
// `nightshift.test/cpu-shared` (a load that all running pods of one owner divide among them), else a tenth of what it
// requests, and next to nothing where it requests nothing. Memory in the same way.
func (c *cluster) usage(pod *corev1.Pod, container *corev1.Container, what corev1.ResourceName) resource.Quantity {
	key := string(what)
	if q, ok := quantity(pod.Annotations, key+"."+container.Name, key); ok {
		return q
	}
	if q, ok := quantity(pod.Annotations, key+"-shared"); ok {
		share := int64(len(pod.Spec.Containers) * max(1, c.siblings(pod)))
		if what == corev1.ResourceCPU {
			return *resource.NewMilliQuantity(q.MilliValue()/share, resource.DecimalSI)
		}
		return *resource.NewQuantity(q.Value()/share, resource.BinarySI)
	}
	requested := container.Resources.Requests[what]
	if what == corev1.ResourceCPU {
		return *resource.NewMilliQuantity(max(1, requested.MilliValue()/10), resource.DecimalSI)
	}
	return *resource.NewQuantity(max(4<<20, requested.Value()/10), resource.BinarySI)
}

func (c *cluster) siblings(pod *corev1.Pod) (count int) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return 1
	}
	all, _ := c.pods.Pods(pod.Namespace).List(labels.Everything())
	for _, other := range all {
		if o := metav1.GetControllerOf(other); o != nil && o.UID == owner.UID && other.Status.Phase == corev1.PodRunning && other.DeletionTimestamp == nil {
			count++
		}
	}
	return count
}

func (c *cluster) podMetrics(pod *corev1.Pod) *metrics.PodMetrics {
	if _, hidden := pod.Annotations[prefix+"no-metrics"]; hidden || pod.Status.Phase != corev1.PodRunning {
		return nil
	}
	item := &metrics.PodMetrics{
		TypeMeta:   metav1.TypeMeta{Kind: "PodMetrics", APIVersion: metricsVersion},
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, CreationTimestamp: c.stamp()},
		Timestamp:  c.stamp(),
		Window:     window,
	}
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		// metrics-server has no figures of a container that does not run
		runs := slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
			return s.Name == container.Name && s.State.Running != nil
		})
		if !runs {
			return nil
		}
		item.Containers = append(item.Containers, metrics.ContainerMetrics{
			Name: container.Name,
			Usage: corev1.ResourceList{
				corev1.ResourceCPU:    c.usage(pod, container, corev1.ResourceCPU),
				corev1.ResourceMemory: c.usage(pod, container, corev1.ResourceMemory),
			},
		})
	}
	return item
}

func (c *cluster) podMetricsList(r *http.Request) any {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return status(400, metav1.StatusReasonBadRequest, err.Error())
	}
	pods, err := c.pods.List(selector)
	if namespace := r.PathValue("namespace"); namespace != "" {
		pods, err = c.pods.Pods(namespace).List(selector)
	}
	if err != nil {
		return status(500, metav1.StatusReasonInternalError, err.Error())
	}
	list := metrics.PodMetricsList{TypeMeta: metav1.TypeMeta{Kind: "PodMetricsList", APIVersion: metricsVersion}, Items: []metrics.PodMetrics{}}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	for _, pod := range pods {
		if item := c.podMetrics(pod); item != nil {
			list.Items = append(list.Items, *item)
		}
	}
	return list
}

// nodeMetrics: the node's annotations, else the sum of its pods.
func (c *cluster) nodeMetrics(node *corev1.Node) *metrics.NodeMetrics {
	if _, hidden := node.Annotations[prefix+"no-metrics"]; hidden {
		return nil
	}
	var cpu, memory resource.Quantity
	all, _ := c.pods.List(labels.Everything())
	for _, pod := range all {
		if pod.Spec.NodeName != node.Name {
			continue
		}
		if item := c.podMetrics(pod); item != nil {
			for _, container := range item.Containers {
				cpu.Add(container.Usage[corev1.ResourceCPU])
				memory.Add(container.Usage[corev1.ResourceMemory])
			}
		}
	}
	if q, ok := quantity(node.Annotations, "cpu"); ok {
		cpu = q
	}
	if q, ok := quantity(node.Annotations, "memory"); ok {
		memory = q
	}
	return &metrics.NodeMetrics{
		TypeMeta:   metav1.TypeMeta{Kind: "NodeMetrics", APIVersion: metricsVersion},
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: c.stamp()},
		Timestamp:  c.stamp(),
		Window:     window,
		Usage:      corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory},
	}
}

func (c *cluster) nodeMetricsList(r *http.Request) any {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return status(400, metav1.StatusReasonBadRequest, err.Error())
	}
	nodes, err := c.nodes.List(selector)
	if err != nil {
		return status(500, metav1.StatusReasonInternalError, err.Error())
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	list := metrics.NodeMetricsList{TypeMeta: metav1.TypeMeta{Kind: "NodeMetricsList", APIVersion: metricsVersion}, Items: []metrics.NodeMetrics{}}
	for _, node := range nodes {
		if item := c.nodeMetrics(node); item != nil {
			list.Items = append(list.Items, *item)
		}
	}
	return list
}

// disk reads "used/capacity", as in `nightshift.test/volume.data: 930Mi/1Gi`.
func disk(text string) map[string]any {
	used, capacity, ok := strings.Cut(text, "/")
	u, err := resource.ParseQuantity(used)
	t, err2 := resource.ParseQuantity(capacity)
	if !ok || err != nil || err2 != nil {
		return nil
	}
	return map[string]any{"usedBytes": u.Value(), "capacityBytes": t.Value(), "availableBytes": max(0, t.Value()-u.Value())}
}

// summary is the kubelet's /stats/summary of the node whose address was asked.
func (c *cluster) summary(r *http.Request) any {
	node := c.nodeAt(localHost(r))
	if node == nil {
		return status(404, metav1.StatusReasonNotFound, "no node has the address "+localHost(r))
	}
	figures := func(list corev1.ResourceList) (any, any) {
		cpu, memory := list[corev1.ResourceCPU], list[corev1.ResourceMemory]
		return map[string]any{"time": c.stamp(), "usageNanoCores": cpu.MilliValue() * 1_000_000},
			map[string]any{"time": c.stamp(), "workingSetBytes": memory.Value(), "usageBytes": memory.Value()}
	}
	body := map[string]any{"nodeName": node.Name}
	if item := c.nodeMetrics(node); item != nil {
		body["cpu"], body["memory"] = figures(item.Usage)
	}
	if fs := disk(node.Annotations[prefix+"fs"]); fs != nil {
		body["fs"] = fs
	}
	pods := []any{}
	all, _ := c.pods.List(labels.Everything())
	for _, pod := range all {
		item := c.podMetrics(pod)
		if pod.Spec.NodeName != node.Name || item == nil {
			continue
		}
		containers, volumes := []any{}, []any{}
		for _, container := range item.Containers {
			cpu, memory := figures(container.Usage)
			containers = append(containers, map[string]any{"name": container.Name, "cpu": cpu, "memory": memory})
		}
		for key, text := range pod.Annotations {
			name, ok := strings.CutPrefix(key, prefix+"volume.")
			volume := disk(text)
			if !ok || volume == nil {
				continue
			}
			volume["name"] = name
			if claim, ok := pod.Annotations[prefix+"claim."+name]; ok {
				volume["pvcRef"] = map[string]string{"name": claim, "namespace": pod.Namespace}
			}
			volumes = append(volumes, volume)
		}
		pods = append(pods, map[string]any{
			"podRef":     map[string]string{"name": pod.Name, "namespace": pod.Namespace, "uid": string(pod.UID)},
			"containers": containers, "volume": volumes,
		})
	}
	return map[string]any{"node": body, "pods": pods}
}
