{{/* The parts that pods share: settings, security, scheduling, volumes, environment. */}}

{{/* (dict "base" dict "own" dict): the settings of one kind of pod. Maps are merged and lists joined; otherwise own
settings replace those of the base. Resources are replaced whole, so that no request exceeds a limit from elsewhere. */}}
{{- define "fraud-detection.podSettings" -}}
{{- $settings := deepCopy .base }}
{{- range $name, $own := .own }}
  {{- $base := get $settings $name }}
  {{- if and (kindIs "slice" $own) (kindIs "slice" $base) }}
    {{- $key := get (dict "extraVolumeMounts" "mountPath" "hostAliases" "ip") $name | default "name" }}
    {{- $taken := list }}
    {{- range $own }}{{ $taken = append $taken (get . $key) }}{{ end }}
    {{- $own = concat (include "fraud-detection.without" (dict "list" $base "key" $key "taken" $taken) | fromYamlArray) $own }}
  {{- else if and (kindIs "map" $own) (kindIs "map" $base) (ne $name "resources") }}
    {{- $own = mergeOverwrite $base $own }}
  {{- end }}
  {{- if $own }}{{- $_ := set $settings $name $own }}{{- end }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{/* (dict "list" list "key" "name" "taken" list): the elements whose key is not taken. Elements without that key stay. */}}
{{- define "fraud-detection.without" -}}
{{- $rest := list }}
{{- range .list }}
  {{- if not (and (hasKey . $.key) (has (get . $.key) $.taken)) }}{{- $rest = append $rest . }}{{- end }}
{{- end }}
{{- toYaml $rest }}
{{- end }}

{{/* "true" if OpenShift gives each pod its user and groups. */}}
{{- define "fraud-detection.leavesUsersToOpenshift" -}}
{{- $mode := .Values.openshift.adaptSecurityContext }}
{{- if or (eq $mode "force") (and (eq $mode "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}true{{ end }}
{{- end }}

{{- define "fraud-detection.podSecurityContext" -}}
{{- if include "fraud-detection.leavesUsersToOpenshift" . }}
{{- omit .Values.podSecurityContext "runAsUser" "runAsGroup" "fsGroup" | toYaml }}
{{- else }}
{{- toYaml .Values.podSecurityContext }}
{{- end }}
{{- end }}

{{/* The mode of files from Secrets, which belong to root and to the fsGroup. Without an fsGroup only 0444 lets the user of
the containers read them. */}}
{{- define "fraud-detection.secretMode" -}}
{{- if or .Values.podSecurityContext.fsGroup (include "fraud-detection.leavesUsersToOpenshift" .) }}0440{{ else }}0444{{ end }}
{{- end }}

{{/* "true" if SQLite stores the decisions. */}}
{{- define "fraud-detection.isSqlite" -}}
{{- if eq .Values.database.mode "sqlite" }}true{{ end }}
{{- end }}

{{/* "true" if the models have a separate claim. */}}
{{- define "fraud-detection.hasModelsClaim" -}}
{{- if and (eq .Values.database.mode "postgresql") .Values.persistence.models.enabled }}true{{ end }}
{{- end }}

{{/* (dict "root" $ "data" bool): the claim whose node a pod that mounts the models, and perhaps the data, must share;
empty if no mounted claim is bound to one node. */}}
{{- define "fraud-detection.sharedClaim" -}}
{{- $persistence := .root.Values.persistence }}
{{- $hasModelsClaim := include "fraud-detection.hasModelsClaim" .root }}
{{- $mountsData := or .data (not $hasModelsClaim) }}
{{- $isDataShared := and $persistence.enabled (eq $persistence.accessMode "ReadWriteOnce") }}
{{- $areModelsShared := and $hasModelsClaim (eq $persistence.models.accessMode "ReadWriteOnce") }}
{{- if or (and $mountsData $isDataShared) $areModelsShared }}
{{- /* One group for both claims: a pod that mounts either of them runs on the node of the other. */}}
{{- ternary (include "fraud-detection.dataClaimName" .root) (include "fraud-detection.modelsClaimName" .root) $isDataShared | trunc 63 | trimSuffix "-" | trimSuffix "." }}
{{- end }}
{{- end }}

{{/* "true" if the API mounts a claim that allows only one pod. */}}
{{- define "fraud-detection.apiIsAloneOnClaim" -}}
{{- if and .Values.persistence.enabled (eq .Values.persistence.accessMode "ReadWriteOncePod") (not (include "fraud-detection.hasModelsClaim" .)) }}true{{ end }}
{{- end }}

{{/* (dict "root" $ "data" bool): the label by which pods of one volume find each other. */}}
{{- define "fraud-detection.volumeLabels" -}}
{{- with include "fraud-detection.sharedClaim" . }}
fraud-detection.io/data-volume: {{ . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "data" bool "affinity" dict): the given affinity plus the node of the volume. The scheduler
accepts the first pod because it matches its own term. */}}
{{- define "fraud-detection.affinity" -}}
{{- $affinity := deepCopy .affinity }}
{{- with include "fraud-detection.sharedClaim" . }}
{{- $term := dict "labelSelector" (dict "matchLabels" (dict "fraud-detection.io/data-volume" .)) "topologyKey" "kubernetes.io/hostname" }}
{{- $podAffinity := $affinity.podAffinity | default dict }}
{{- $required := $podAffinity.requiredDuringSchedulingIgnoredDuringExecution | default list }}
{{- $_ := set $podAffinity "requiredDuringSchedulingIgnoredDuringExecution" (prepend $required $term) }}
{{- $_ = set $affinity "podAffinity" $podAffinity }}
{{- end }}
{{- with $affinity }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "settings" dict): the labels that a node must have. An empty one is not asked for. */}}
{{- define "fraud-detection.nodeSelector" -}}
{{- $selector := dict }}
{{- range list .root.Values.global.nodeSelector .settings.nodeSelector }}
  {{- range $label, $value := . }}
    {{- $selector = ternary (set $selector $label $value) (omit $selector $label) (not (empty $value)) }}
  {{- end }}
{{- end }}
{{- with $selector }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "serviceAccount" "…" "settings" dict "affinity" dict?): the part of a pod's spec that sets its account,
and where and how it runs. The given affinity replaces that of the settings. Kubernetes never mounts the account's token on its own. */}}
{{- define "fraud-detection.podPlace" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
enableServiceLinks: false # keeps variables named after Services out of the environment
securityContext:
  {{- include "fraud-detection.podSecurityContext" .root | nindent 2 }}
{{- $pullSecrets := list }}
{{- range .root.Values.global.imagePullSecrets }}{{ $pullSecrets = append $pullSecrets (ternary (dict "name" .) . (kindIs "string" .)) }}{{ end }}
{{- with $pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity | default .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "fraud-detection.nodeSelector" . }}
nodeSelector:
  {{- . | nindent 2 }}
{{- end }}
{{- range $field, $value := pick .settings "dnsConfig" "dnsPolicy" "hostAliases" "priorityClassName" "runtimeClassName" "schedulerName" "tolerations" "topologySpreadConstraints" }}
{{- if $value }}
{{ dict $field $value | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "image" dict "settings" dict "configMap" "…"? "env" texts? "volumeMounts" texts): the part that all
containers have. What the settings add to a pod reaches each of its containers. Their variables replace those of the chart,
and a variable replaces its file: API_TOKEN also replaces API_TOKEN_FILE. */}}
{{- define "fraud-detection.container" -}}
image: {{ include "fraud-detection.image" (dict "root" .root "image" .image) }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- $sources := ternary (list (dict "configMapRef" (dict "name" .configMap))) list (not (empty .configMap)) }}
{{- with concat $sources (.settings.extraEnvFrom | default list) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $extra := .settings.extraEnv | default list }}
{{- $taken := list }}
{{- range $extra }}{{ $taken = concat $taken (list .name (printf "%s_FILE" .name)) }}{{ end }}
{{- $ours := include "fraud-detection.without" (dict "list" (.env | default list | join "\n" | fromYamlArray) "key" "name" "taken" $taken) | fromYamlArray }}
{{- with concat $ours $extra }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  {{- join "\n" .volumeMounts | nindent 2 }}
  {{- with .settings.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The init containers of a pod that must end, from its settings: a sidecar becomes one that Kubernetes stops with the pod's
last container. Sidecars start first, so that init containers can use them. */}}
{{- define "fraud-detection.nativeSidecars" -}}
{{- $containers := list }}
{{- range .sidecars }}{{ $containers = append $containers (merge (dict "restartPolicy" "Always") .) }}{{ end }}
{{- with concat $containers (.initContainers | default list) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "component" "api" "data" bool "tmpSizeLimit" "…" "scratch" dict?): the volumes of every pod that mounts
the models. */}}
{{- define "fraud-detection.volumes" -}}
{{- $hasModelsClaim := include "fraud-detection.hasModelsClaim" .root -}}
- name: tmp
  {{- if .scratch }}
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "fraud-detection.podLabels" (pick . "root" "component") | nindent 10 }}
      spec:
        {{- $spec := dict "accessModes" (list "ReadWriteOnce") "resources" (dict "requests" (dict "storage" .tmpSizeLimit)) }}
        {{- mergeOverwrite $spec .scratch.ephemeral | toYaml | nindent 8 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .tmpSizeLimit }}
  {{- end }}
{{- if or .data (not $hasModelsClaim) }}
- name: data
  {{- if .root.Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "fraud-detection.dataClaimName" .root }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .root.Values.persistence.size }}
  {{- end }}
{{- end }}
{{- if $hasModelsClaim }}
- name: models
  persistentVolumeClaim:
    claimName: {{ include "fraud-detection.modelsClaimName" .root }}
{{- end }}
{{- if .root.Values.features }}
- name: features
  configMap:
    name: {{ include "fraud-detection.componentName" (dict "root" .root "suffix" "features") }}
{{- end }}
{{- if not (include "fraud-detection.isSqlite" .root) }}
- name: database
  secret:
    secretName: {{ .root.Values.database.existingSecret }}
    defaultMode: {{ include "fraud-detection.secretMode" .root }}
    items:
      - key: {{ .root.Values.database.urlKey }}
        path: database-url
{{- end }}
{{- end }}

{{/* (dict "root" $ "data" bool "writesModels" bool): the mounts of a container in such a pod. */}}
{{- define "fraud-detection.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .data }}
- name: data
  mountPath: /app/data
  subPath: data
{{- end }}
- name: {{ ternary "models" "data" (ne (include "fraud-detection.hasModelsClaim" .root) "") }}
  mountPath: /app/models
  {{- if not (include "fraud-detection.hasModelsClaim" .root) }}
  subPath: models
  {{- end }}
  {{- if not .writesModels }}
  readOnly: true
  {{- end }}
{{- if .root.Values.features }}
- name: features
  mountPath: /app/config
  readOnly: true
{{- end }}
{{- if not (include "fraud-detection.isSqlite" .root) }}
- name: database
  mountPath: /run/secrets/fraud-detection/database
  readOnly: true
{{- end }}
{{- end }}

{{/* (dict "root" $ "threads" 1): the variables of every container in such a pod; the rest comes from a ConfigMap. */}}
{{- define "fraud-detection.env" -}}
{{- /* Without these, libraries start one thread per core of the node. */ -}}
- name: OMP_NUM_THREADS
  value: {{ .threads | quote }}
- name: OPENBLAS_NUM_THREADS
  value: {{ .threads | quote }}
- name: LOKY_MAX_CPU_COUNT
  value: {{ .threads | quote }}
{{- if not (include "fraud-detection.isSqlite" .root) }}
- name: DATABASE_URL_FILE
  value: /run/secrets/fraud-detection/database/database-url
{{- end }}
{{- end }}

{{/* The key of the token that opens only /metrics and /model; empty if the Secret is yours and no key is named. */}}
{{- define "fraud-detection.metricsTokenKey" -}}
{{- .Values.auth.metricsTokenKey | default (ternary "" "metrics-token" (ne .Values.auth.existingSecret "")) }}
{{- end }}

{{/* (dict "root" $ "ofApi" bool): a volume with the API's token, which follows the Secret through a rotation. With "ofApi"
it also has what only the API reads: the other valid tokens. */}}
{{- define "fraud-detection.tokenVolume" -}}
- name: auth
  projected:
    defaultMode: {{ include "fraud-detection.secretMode" .root }}
    sources:
      - secret:
          name: {{ include "fraud-detection.authSecretName" .root }}
          items:
            - key: {{ .root.Values.auth.tokenKey }}
              path: api-token
      {{- if .ofApi }}
      - secret:
          name: {{ include "fraud-detection.authSecretName" .root }}
          optional: true # the key exists only during a rotation
          items:
            - key: {{ .root.Values.auth.previousTokenKey }}
              path: api-token-previous
      {{- with include "fraud-detection.metricsTokenKey" .root }}
      - secret:
          name: {{ include "fraud-detection.authSecretName" $.root }}
          optional: true # so that a missing key stops no pod
          items:
            - key: {{ . }}
              path: metrics-token
      {{- end }}
      {{- with .root.Values.auth.tokensSecret }}
      - secret:
          name: {{ . }}
          items:
            - key: {{ $.root.Values.auth.tokensKey }}
              path: tokens
      {{- end }}
      {{- end }}
{{- end }}

{{/* (dict "root" $ "ofApi" bool): the variables that name the files of that volume, and for a client the API. */}}
{{- define "fraud-detection.tokenEnv" -}}
- name: API_TOKEN_FILE
  value: /run/secrets/fraud-detection/auth/api-token
{{- if .ofApi }}
- name: API_TOKEN_PREVIOUS_FILE
  value: /run/secrets/fraud-detection/auth/api-token-previous
{{- if include "fraud-detection.metricsTokenKey" .root }}
- name: METRICS_TOKEN_FILE
  value: /run/secrets/fraud-detection/auth/metrics-token
{{- end }}
{{- if .root.Values.auth.tokensSecret }}
- name: API_TOKENS_FILE
  value: /run/secrets/fraud-detection/auth/tokens
{{- end }}
{{- else }}
- name: API_URL
  value: {{ include "fraud-detection.apiUrl" .root }}
{{- end }}
{{- end }}

{{- define "fraud-detection.tokenMount" -}}
- name: auth
  mountPath: /run/secrets/fraud-detection/auth
  readOnly: true
{{- end }}
