package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// A pod that names config maps or secrets starts when all of them are there. A kwok stage cannot look at other objects;
// so such pods wait for the condition PodReadyToStartContainers, and this sets it, or says what is missing in the way a
// kubelet does. Deployments with a config map that does not exist then fail, and heal, for the real reason.

// reference to a config map or secret that must exist.
type reference struct {
	secret    bool
	name      string
	key       string // "" for the whole object
	volume    string // "" when it is for the environment of `container`
	container string
}

func (r reference) kind() string {
	if r.secret {
		return "secret"
	}
	return "configmap"
}

// references that are not optional. The volume with the service account's token is left out: every pod has it.
func references(spec *corev1.PodSpec) (refs []reference) {
	must := func(optional *bool) bool { return optional == nil || !*optional }
	items := func(ref reference, items []corev1.KeyToPath) {
		if len(items) == 0 {
			refs = append(refs, ref)
		}
		for _, item := range items {
			ref.key = item.Key
			refs = append(refs, ref)
		}
	}
	for _, volume := range spec.Volumes {
		if strings.HasPrefix(volume.Name, "kube-api-access-") {
			continue
		}
		ref := reference{volume: volume.Name}
		if v := volume.ConfigMap; v != nil && must(v.Optional) {
			ref.name = v.Name
			items(ref, v.Items)
		}
		if v := volume.Secret; v != nil && must(v.Optional) {
			ref.secret, ref.name = true, v.SecretName
			items(ref, v.Items)
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if v := source.ConfigMap; v != nil && must(v.Optional) {
				items(reference{volume: volume.Name, name: v.Name}, v.Items)
			}
			if v := source.Secret; v != nil && must(v.Optional) {
				items(reference{volume: volume.Name, secret: true, name: v.Name}, v.Items)
			}
		}
	}
	for _, container := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, from := range container.EnvFrom {
			if v := from.ConfigMapRef; v != nil && must(v.Optional) {
				refs = append(refs, reference{name: v.Name, container: container.Name})
			}
			if v := from.SecretRef; v != nil && must(v.Optional) {
				refs = append(refs, reference{secret: true, name: v.Name, container: container.Name})
			}
		}
		for _, env := range container.Env {
			if env.ValueFrom == nil {
				continue
			}
			if v := env.ValueFrom.ConfigMapKeyRef; v != nil && must(v.Optional) {
				refs = append(refs, reference{name: v.Name, key: v.Key, container: container.Name})
			}
			if v := env.ValueFrom.SecretKeyRef; v != nil && must(v.Optional) {
				refs = append(refs, reference{secret: true, name: v.Name, key: v.Key, container: container.Name})
			}
		}
	}
	return refs
}

type waitingPods struct {
	cluster *cluster
	mutex   sync.Mutex
	pods    map[types.NamespacedName]*corev1.Pod
	said    map[types.NamespacedName]*complaint
}

type complaint struct {
	text  string
	first time.Time
	last  time.Time
	count int32
}

func newWaitingPods(c *cluster) *waitingPods {
	return &waitingPods{cluster: c, pods: map[types.NamespacedName]*corev1.Pod{}, said: map[types.NamespacedName]*complaint{}}
}

func nameOf(pod *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
}

func (w *waitingPods) see(object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	name := nameOf(pod)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodPending || released(pod) || len(references(&pod.Spec)) == 0 {
		delete(w.pods, name)
		delete(w.said, name)
		return
	}
	w.pods[name] = pod
}

func (w *waitingPods) forget(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if pod, ok := object.(*corev1.Pod); ok {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		delete(w.pods, nameOf(pod))
		delete(w.said, nameOf(pod))
	}
}

// released: nothing is missing any more. A container that lacks its environment waits although its sandbox is there.
func released(pod *corev1.Pod) bool {
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue
	})
	return ready && !slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses), lacksConfig)
}

func lacksConfig(s corev1.ContainerStatus) bool {
	return s.State.Waiting != nil && s.State.Waiting.Reason == "CreateContainerConfigError"
}

func (w *waitingPods) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.mutex.Lock()
		pods := make([]*corev1.Pod, 0, len(w.pods))
		for _, pod := range w.pods {
			pods = append(pods, pod)
		}
		w.mutex.Unlock()
		known := map[reference]string{} // one look a round at each object
		for _, pod := range pods {
			if err := w.check(ctx, pod, known); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				fmt.Println("node-api: references of", nameOf(pod), ":", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// missing says what is wrong with a reference, in the kubelet's words; "" when nothing is.
func (w *waitingPods) missing(ctx context.Context, namespace string, ref reference, known map[reference]string) (string, error) {
	at := reference{secret: ref.secret, name: namespace + "/" + ref.name, key: ref.key}
	if text, ok := known[at]; ok {
		return text, nil
	}
	keys := map[string]bool{}
	var err error
	if ref.secret {
		var secret *corev1.Secret
		if secret, err = w.cluster.client.CoreV1().Secrets(namespace).Get(ctx, ref.name, metav1.GetOptions{}); err == nil {
			for key := range secret.Data {
				keys[key] = true
			}
		}
	} else {
		var config *corev1.ConfigMap
		if config, err = w.cluster.client.CoreV1().ConfigMaps(namespace).Get(ctx, ref.name, metav1.GetOptions{}); err == nil {
			for key := range config.Data {
				keys[key] = true
			}
			for key := range config.BinaryData {
				keys[key] = true
			}
		}
	}
	text := ""
	switch {
	case apierrors.IsNotFound(err):
		text = fmt.Sprintf("%s %q not found", ref.kind(), ref.name)
	case err != nil:
		return "", err
	case ref.key != "" && !keys[ref.key] && ref.volume != "":
		text = fmt.Sprintf("references non-existent %s key: %s", map[bool]string{true: "secret", false: "config"}[ref.secret], ref.key)
	case ref.key != "" && !keys[ref.key]:
		text = fmt.Sprintf("couldn't find key %s in %s %s/%s", ref.key, map[bool]string{true: "Secret", false: "ConfigMap"}[ref.secret], namespace, ref.name)
	}
	known[at] = text
	return text, nil
}

func (w *waitingPods) check(ctx context.Context, pod *corev1.Pod, known map[reference]string) error {
	var wrong *reference
	var text string
	for _, ref := range references(&pod.Spec) {
		found, err := w.missing(ctx, pod.Namespace, ref, known)
		if err != nil {
			return err
		}
		if found != "" {
			wrong, text = &ref, found
			break
		}
	}
	now := metav1.NewTime(w.cluster.now().Truncate(time.Second))
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) map[string]any {
		return map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
	}
	waiting := func(containers []corev1.Container, init bool) []any {
		list := []any{}
		for _, container := range containers {
			reason, message := "ContainerCreating", ""
			if !init && len(pod.Spec.InitContainers) > 0 {
				reason = "PodInitializing"
			}
			if wrong != nil && wrong.container == container.Name {
				reason, message = "CreateContainerConfigError", text
			}
			list = append(list, map[string]any{
				"name": container.Name, "image": container.Image, "imageID": "", "ready": false, "started": false, "restartCount": 0,
				"state": map[string]any{"waiting": map[string]any{"reason": reason, "message": message}},
			})
		}
		return list
	}
	sandbox := corev1.ConditionTrue
	if wrong != nil && wrong.volume != "" {
		sandbox = corev1.ConditionFalse // volumes come before the sandbox, the environment after it
	}
	w.mutex.Lock()
	before := w.said[nameOf(pod)]
	w.mutex.Unlock()
	if wrong == nil || before == nil || before.text != text {
		patch := map[string]any{"status": map[string]any{
			"phase":                 "Pending",
			"startTime":             pod.CreationTimestamp,
			"containerStatuses":     waiting(pod.Spec.Containers, false),
			"initContainerStatuses": waiting(pod.Spec.InitContainers, true),
			"conditions": []any{
				condition(corev1.PodReadyToStartContainers, sandbox, "", ""),
				condition(corev1.PodReady, corev1.ConditionFalse, "ContainersNotReady", "containers with unready status"),
				condition(corev1.ContainersReady, corev1.ConditionFalse, "ContainersNotReady", "containers with unready status"),
			},
		}}
		body, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		if _, err := w.cluster.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
	}
	if wrong == nil {
		return nil
	}
	if before == nil || before.text != text {
		before = &complaint{text: text, first: now.Time}
	} else if now.Sub(before.last) < 5*time.Second {
		return nil
	}
	before.last, before.count = now.Time, before.count+1
	w.mutex.Lock()
	w.said[nameOf(pod)] = before
	w.mutex.Unlock()
	return w.event(ctx, pod, wrong, before)
}

func (w *waitingPods) event(ctx context.Context, pod *corev1.Pod, wrong *reference, said *complaint) error {
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name + ".references", Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		},
		Source:         corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
		Type:           corev1.EventTypeWarning,
		Reason:         "Failed",
		Message:        "Error: " + said.text,
		FirstTimestamp: metav1.NewTime(said.first),
		LastTimestamp:  metav1.NewTime(said.last),
		Count:          said.count,
	}
	if wrong.volume != "" {
		event.Reason = "FailedMount"
		event.Message = fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s", wrong.volume, said.text)
	} else {
		event.InvolvedObject.FieldPath = fmt.Sprintf("spec.containers{%s}", wrong.container)
	}
	events := w.cluster.client.CoreV1().Events(pod.Namespace)
	_, err := events.Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = events.Update(ctx, event, metav1.UpdateOptions{})
	}
	return err
}
