{{/* The parts that the pods of the API and of the jobs share: security, volumes, environment, scheduling. */}}

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

{{/* (dict "root" $ "serviceAccount" "…" "settings" .Values.api "affinity" text?): the part of a pod's spec that sets its
account and where it runs. Kubernetes never mounts the account's token on its own. */}}
{{- define "fraud-detection.podPlace" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
enableServiceLinks: false # keeps variables named after Services out of the environment
securityContext:
  {{- include "fraud-detection.podSecurityContext" .root | nindent 2 }}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "data" bool "tmpSizeLimit" "…"): the volumes of every pod that mounts the models. */}}
{{- define "fraud-detection.volumes" -}}
{{- $hasModelsClaim := include "fraud-detection.hasModelsClaim" .root -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .tmpSizeLimit }}
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

{{/* (dict "root" $ "threads" 1): the environment of every container in such a pod; the rest comes from a ConfigMap. */}}
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

{{- define "fraud-detection.tokenMount" -}}
- name: auth
  mountPath: /run/secrets/fraud-detection/auth
  readOnly: true
{{- end }}
