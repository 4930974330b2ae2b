{{/* Decides whether ServiceMonitors and rules are rendered. */}}

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
