{{/* Names and addresses of objects. */}}

{{- define "fraud-detection.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* A dependency's alias replaces the chart's name, and may have capitals, because it is a key of values. */}}
{{- define "fraud-detection.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride | lower }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- include "fraud-detection.cut" (dict "root" . "name" (.Values.fullnameOverride | default $full) "room" 63) }}
{{- end }}

{{/* (dict "root" $ "name" "…" "room" 63): the name, cut if it is too long. A cut name stays unique: it still has the whole name
of the release, or it ends in a hash of the name. */}}
{{- define "fraud-detection.cut" -}}
{{- $isNamedByRelease := not (or .root.Values.fullnameOverride .root.Values.nameOverride (ne .root.Chart.Name "fraud-detection")) }}
{{- if or (le (len .name) .room) (and $isNamedByRelease (le (len .root.Release.Name) .room)) }}
{{- .name | trunc .room | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" (.name | trunc (sub .room 6 | int) | trimSuffix "-") (.name | sha256sum | trunc 5) }}
{{- end }}
{{- end }}

{{- define "fraud-detection.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* (dict "root" $ "suffix" "api" "max" 63?): <fullname>-<suffix>. If the name is too long, its first part is cut, never
the suffix. A CronJob's name may have 52 characters, because its Jobs append 11. */}}
{{- define "fraud-detection.componentName" -}}
{{- $room := sub (default 63 .max) (add1 (len .suffix)) | int }}
{{- printf "%s-%s" (include "fraud-detection.cut" (dict "root" .root "name" (include "fraud-detection.fullname" .root) "room" $room)) .suffix }}
{{- end }}

{{- define "fraud-detection.cronJobName" -}}
{{- include "fraud-detection.componentName" (dict "root" .root "suffix" .suffix "max" 52) }}
{{- end }}

{{- define "fraud-detection.authSecretName" -}}
{{- .Values.auth.existingSecret | default (include "fraud-detection.componentName" (dict "root" . "suffix" "auth")) }}
{{- end }}

{{- define "fraud-detection.dataClaimName" -}}
{{- .Values.persistence.existingClaim | default (include "fraud-detection.componentName" (dict "root" . "suffix" "data")) }}
{{- end }}

{{- define "fraud-detection.modelsClaimName" -}}
{{- .Values.persistence.models.existingClaim | default (include "fraud-detection.componentName" (dict "root" . "suffix" "models")) }}
{{- end }}

{{- define "fraud-detection.apiServiceAccountName" -}}
{{- .Values.api.serviceAccount.name | default (ternary (include "fraud-detection.componentName" (dict "root" . "suffix" "api")) "default" .Values.api.serviceAccount.create) }}
{{- end }}

{{- define "fraud-detection.jobsServiceAccountName" -}}
{{- .Values.jobs.serviceAccount.name | default (ternary (include "fraud-detection.componentName" (dict "root" . "suffix" "jobs")) "default" .Values.jobs.serviceAccount.create) }}
{{- end }}

{{- define "fraud-detection.retrainServiceAccountName" -}}
{{- .Values.jobs.retrain.serviceAccount.name | default (ternary (include "fraud-detection.componentName" (dict "root" . "suffix" "retrain")) "default" .Values.jobs.retrain.serviceAccount.create) }}
{{- end }}

{{- define "fraud-detection.apiUrl" -}}
http://{{ include "fraud-detection.componentName" (dict "root" . "suffix" "api") }}:{{ .Values.api.service.port }}
{{- end }}

{{- define "fraud-detection.pushgatewayUrl" -}}
{{- if .Values.pushgateway.externalUrl }}
{{- .Values.pushgateway.externalUrl }}
{{- else if .Values.pushgateway.enabled }}
{{- printf "http://%s:9091" (include "fraud-detection.componentName" (dict "root" . "suffix" "pushgateway")) }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "image" .Values.image.api): a digest overrides the tag, whose default is the chart's appVersion. */}}
{{- define "fraud-detection.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry }}
{{- $name := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* (dict "claim" .Values.persistence): the spec of a PersistentVolumeClaim. It must never change, because Kubernetes rejects that. */}}
{{- define "fraud-detection.claimSpec" -}}
accessModes: [{{ .claim.accessMode }}]
{{- if .claim.storageClass }}
storageClassName: {{ ternary "" .claim.storageClass (eq .claim.storageClass "-") | quote }}
{{- end }}
{{- with .claim.volumeName }}
volumeName: {{ . }}
{{- end }}
{{- with .claim.selector }}
selector:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  requests:
    storage: {{ .claim.size }}
{{- end }}

{{/* "true" if retraining restarts the API, for which it needs a right in the cluster. */}}
{{- define "fraud-detection.restartsApi" -}}
{{- if and .Values.jobs.retrain.enabled (eq .Values.jobs.retrain.rollout.mode "restart") }}true{{ end }}
{{- end }}

{{/* "true" if the chart creates any CronJob. */}}
{{- define "fraud-detection.hasJobs" -}}
{{- with .Values.jobs }}
{{- if or .detectDrift.enabled .retrain.enabled .backup.enabled .fraudctl.enabled }}true{{ end }}
{{- end }}
{{- end }}

{{/* A name that is unique in the cluster. */}}
{{- define "fraud-detection.admissionPolicyName" -}}
{{- printf "%s-%s" (include "fraud-detection.namespace" .) (include "fraud-detection.componentName" (dict "root" . "suffix" "retrain")) }}
{{- end }}

{{/* (dict "root" $ "value" any): `{"value": …}`, with each text in it rendered as a template, and each name of a field. Of the
whole as YAML, long lines would be folded inside of a template. */}}
{{- define "fraud-detection.rendered" -}}
{{- $root := .root }}
{{- $rendered := .value }}
{{- if kindIs "map" .value }}
  {{- $rendered = dict }}
  {{- range $name, $part := .value }}
    {{- $_ := set $rendered (tpl $name $root) (include "fraud-detection.rendered" (dict "root" $root "value" $part) | fromJson).value }}
  {{- end }}
{{- else if kindIs "slice" .value }}
  {{- $rendered = list }}
  {{- range .value }}
    {{- $rendered = append $rendered (include "fraud-detection.rendered" (dict "root" $root "value" .) | fromJson).value }}
  {{- end }}
{{- else if kindIs "string" .value }}
  {{- $rendered = tpl .value $root }}
{{- end }}
{{- dict "value" $rendered | toJson }}
{{- end }}
