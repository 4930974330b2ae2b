{{/* Labels and annotations. */}}

{{/* (dict "root" $ "component" "api"): never add a label, because upgrades would fail. Values are quoted because 1 is a valid name. */}}
{{- define "fraud-detection.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fraud-detection.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* (dict "root" $ "component" "api" "labels" dict?): labels of a pod, without versions, which would restart it at each upgrade. */}}
{{- define "fraud-detection.podLabels" -}}
{{- $ours := include "fraud-detection.selectorLabels" . | fromYaml }}
{{- $_ := set $ours "app.kubernetes.io/part-of" "fraud-detection" }}
{{- merge $ours (.labels | default dict) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* (dict "root" $ "component" "api" "labels" dict?): labels of every other object. */}}
{{- define "fraud-detection.labels" -}}
{{- $ours := include "fraud-detection.selectorLabels" . | fromYaml }}
{{- $_ := set $ours "app.kubernetes.io/part-of" "fraud-detection" }}
{{- $_ = set $ours "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ = set $ours "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ = set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- merge $ours (.labels | default dict) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* (dict "root" $ "name" "…" "component" "api" "namespace" "…"? "annotations" dict? "labels" dict?): the metadata of an
object. */}}
{{- define "fraud-detection.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default (include "fraud-detection.namespace" .root) | quote }}
labels:
  {{- include "fraud-detection.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "name" "…" "component" "api" "claim" .Values.persistence): the metadata of a claim, without versions. */}}
{{- define "fraud-detection.claimMetadata" -}}
name: {{ .name }}
namespace: {{ include "fraud-detection.namespace" .root | quote }}
labels:
  {{- include "fraud-detection.podLabels" (dict "root" .root "component" .component "labels" (merge (dict "app.kubernetes.io/managed-by" .root.Release.Service) (.claim.labels | default dict))) | nindent 2 }}
{{- $ours := ternary (dict "helm.sh/resource-policy" "keep") (dict) .claim.retain }}
{{- with merge $ours .claim.annotations .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
