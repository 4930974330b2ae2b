{{/* A pod of `helm test`. (dict "root" $ "name" "smoke" "args" list) It leaves no transaction behind. */}}
{{- define "fraud-detection.testPod" -}}
{{- $tests := .root.Values.tests }}
{{- $settings := include "fraud-detection.podSettings" (dict "base" (pick .root.Values.api "nodeSelector" "tolerations") "own" $tests) | fromYaml }}
{{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" }}
apiVersion: v1
kind: Pod
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "component" "test" "name" (include "fraud-detection.componentName" (dict "root" .root "suffix" (printf "test-%s" .name)))
    "labels" $settings.podLabels "annotations" (mergeOverwrite $hook ($settings.podAnnotations | default dict))) | nindent 2 }}
spec:
  {{- include "fraud-detection.podPlace" (dict "root" .root "serviceAccount" (include "fraud-detection.apiServiceAccountName" .root) "settings" $settings) | nindent 2 }}
  restartPolicy: Never
  activeDeadlineSeconds: 120
  {{- with include "fraud-detection.nativeSidecars" $settings }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      args: {{ toJson .args }}
      {{- include "fraud-detection.container" (dict "root" .root "image" .root.Values.image.api "settings" $settings
        "env" (list (include "fraud-detection.tokenEnv" (dict "root" .root "ofApi" false)))
        "volumeMounts" (list (include "fraud-detection.tokenMount" .root))) | nindent 6 }}
  volumes:
    {{- include "fraud-detection.tokenVolume" (dict "root" .root "ofApi" false) | nindent 4 }}
    {{- with $settings.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
