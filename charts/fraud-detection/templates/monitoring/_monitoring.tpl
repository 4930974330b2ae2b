{{/* ServiceMonitors, and whether they and the rules are rendered. */}}

{{/* (dict "root" $ "path" "metrics.serviceMonitor" "settings" .Values.metrics.serviceMonitor): "true" if the chart renders
objects of the Prometheus operator. It checks group and version only: `helm template --api-versions` cannot name a kind. */}}
{{- define "fraud-detection.rendersMonitoring" -}}
{{- if .settings.enabled }}
{{- $isMissing := not (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}
{{- if and $isMissing (eq .settings.renderMode "failIfMissing") }}
{{- fail (printf "%s.renderMode is failIfMissing, but the cluster lacks monitoring.coreos.com/v1: install the Prometheus operator first, or set renderMode to skipIfMissing" .path) }}
{{- end }}
{{- if or (not $isMissing) (eq .settings.renderMode "alwaysRender") }}true{{ end }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "component" "api" "endpoint" text "relabelings" list?): the ServiceMonitor of a component. `endpoint` and
`relabelings` are those that only this component needs. */}}
{{- define "fraud-detection.serviceMonitor" -}}
{{- $settings := .root.Values.metrics.serviceMonitor }}
{{- $name := include "fraud-detection.componentName" (dict "root" .root "suffix" .component) }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "name" $name "namespace" $settings.namespace "component" .component "labels" $settings.labels "annotations" $settings.annotations) | nindent 2 }}
spec:
  {{- with $settings.scrapeClass }}
  scrapeClass: {{ . }}
  {{- end }}
  {{- if $settings.namespace }}
  namespaceSelector:
    matchNames: [{{ include "fraud-detection.namespace" .root | quote }}]
  {{- end }}
  selector:
    matchLabels:
      fraud-detection.io/service: {{ $name }}
  endpoints:
    - port: http
      path: /metrics
      interval: {{ $settings.interval }}
      scrapeTimeout: {{ $settings.scrapeTimeout }}
      {{- with $settings.scheme }}
      scheme: {{ . }}
      {{- end }}
      {{- with $settings.tlsConfig }}
      tlsConfig:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- .endpoint | nindent 6 }}
      {{- with concat (.relabelings | default list) ($settings.relabelings | default list) }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
