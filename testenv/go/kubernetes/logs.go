package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// serveLog is the kubelet's /containerLogs. The text is the pod's annotation `nightshift.test/log.CONTAINER` (or
// `…/log`), else the file LOGS/NAMESPACE/POD/CONTAINER.log; of the container before this one, `…/previous-log.CONTAINER`
// (or `…/previous-log`) and CONTAINER.previous.log. `follow` sees what is added to either.
func (c *cluster) serveLog(w http.ResponseWriter, r *http.Request) {
	namespace, name, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	query := r.URL.Query()
	on := func(key string) bool { set, _ := strconv.ParseBool(query.Get(key)); return set }
	previous := on("previous")

	pod, err := c.pods.Pods(namespace).Get(name)
	if err != nil {
		http.Error(w, fmt.Sprintf("pod %q not found", name), http.StatusNotFound)
		return
	}
	state := containerStatus(pod, container)
	switch {
	case state == nil:
		http.Error(w, fmt.Sprintf("container %q is not valid for pod %q", container, name), http.StatusBadRequest)
		return
	case previous && state.LastTerminationState.Terminated == nil:
		http.Error(w, fmt.Sprintf("previous terminated container %q in pod %q not found", container, name), http.StatusBadRequest)
		return
	case !previous && state.State.Waiting != nil && state.LastTerminationState.Terminated == nil:
		http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start: %s", container, name, state.State.Waiting.Reason), http.StatusBadRequest)
		return
	}

	text := c.logText(pod, container, previous)
	if text == "" && !previous && state.State.Running == nil && state.State.Terminated == nil {
		// between two runs the last log is that of the run before
		text = c.logText(pod, container, true)
	}
	started := pod.CreationTimestamp.Time
	if running := state.State.Running; running != nil && !previous {
		started = running.StartedAt.Time
	}
	lines := splitLines(text)
	at := func(i int) time.Time { return started.Add(time.Duration(i) * time.Millisecond) }
	first := 0
	if since := query.Get("sinceSeconds"); since != "" {
		if seconds, err := strconv.ParseInt(since, 10, 64); err == nil {
			for first < len(lines) && at(first).Before(c.now().Add(-time.Duration(seconds)*time.Second)) {
				first++
			}
		}
	}
	if since, err := time.Parse(time.RFC3339Nano, query.Get("sinceTime")); err == nil {
		for first < len(lines) && at(first).Before(since) {
			first++
		}
	}
	if tail, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		first = max(first, len(lines)-tail)
	}
	limit, err := strconv.Atoi(query.Get("limitBytes"))
	if err != nil {
		limit = -1
	}
	w.Header().Set("Content-Type", "text/plain")
	flush := func() {
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
	}
	write := func(from int, lines []string) bool {
		for i, line := range lines {
			if on("timestamps") {
				line = at(from+i).UTC().Format(time.RFC3339Nano) + " " + line
			}
			line += "\n"
			if limit >= 0 {
				line = line[:min(limit, len(line))]
				limit -= len(line)
			}
			if _, err := w.Write([]byte(line)); err != nil || limit == 0 {
				return false
			}
		}
		flush()
		return true
	}
	if !write(first, lines[first:]) || !on("follow") || previous {
		return
	}
	written := len(lines)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
		pod, err := c.pods.Pods(namespace).Get(name)
		if err != nil {
			return
		}
		state := containerStatus(pod, container)
		lines := splitLines(c.logText(pod, container, false))
		if len(lines) > written {
			if !write(written, lines[written:]) {
				return
			}
			written = len(lines)
		}
		if state == nil || state.State.Running == nil {
			return // the container is gone, and with it its stream
		}
	}
}

func containerStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		if i := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

func (c *cluster) logText(pod *corev1.Pod, container string, previous bool) string {
	key, file := "log", ".log"
	if previous {
		key, file = "previous-log", ".previous.log"
	}
	for _, k := range []string{key + "." + container, key} {
		if text, ok := pod.Annotations[prefix+k]; ok {
			return text
		}
	}
	if c.logs == "" {
		return ""
	}
	text, _ := os.ReadFile(filepath.Join(c.logs, pod.Namespace, pod.Name, container+file))
	return string(text)
}

func splitLines(text string) []string {
	if text = strings.TrimSuffix(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
