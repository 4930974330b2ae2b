{{/* A pod of `helm test`. (dict "root" $ "name" "smoke" "args" list) It leaves no transaction behind. */}}
{{- define "fraud-detection.testPod" -}}
apiVersion: v1
kind: Pod
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "component" "test" "name" (include "fraud-detection.componentName" (dict "root" .root "suffix" (printf "test-%s" .name)))
    "annotations" (dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded")) | nindent 2 }}
spec:
  {{- include "fraud-detection.podPlace" (dict "root" .root "serviceAccount" (include "fraud-detection.apiServiceAccountName" .root) "settings" (pick .root.Values.api "nodeSelector" "tolerations")) | nindent 2 }}
  restartPolicy: Never
  activeDeadlineSeconds: 120
  containers:
    - name: {{ .name }}
      image: {{ include "fraud-detection.image" (dict "root" .root "image" .root.Values.image.api) }}
      imagePullPolicy: {{ .root.Values.image.api.pullPolicy }}
      args: {{ toJson .args }}
      env:
        - name: API_URL
          value: {{ include "fraud-detection.apiUrl" .root }}
        - name: API_TOKEN_FILE
          value: /run/secrets/fraud-detection/auth/api-token
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {cpu: 500m, memory: 128Mi}
      securityContext:
        {{- toYaml .root.Values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        {{- include "fraud-detection.tokenMount" .root | nindent 8 }}
  volumes:
    {{- include "fraud-detection.tokenVolume" (dict "root" .root "ofApi" false) | nindent 4 }}
{{- end }}
