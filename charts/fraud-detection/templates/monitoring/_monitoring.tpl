{{/* What ServiceMonitors and rules have in common: whether they are rendered. */}}

{{/* (dict "root" $ "path" "metrics.serviceMonitor" "settings" .Values.metrics.serviceMonitor): "true" when objects of the
Prometheus operator are wanted. Asks for group and version only: `helm template --api-versions` cannot name a kind. */}}
{{- define "fraud-detection.rendersMonitoring" -}}
{{- if .settings.enabled }}
{{- $isMissing := not (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}
{{- if and $isMissing (eq .settings.renderMode "failIfMissing") }}
{{- fail (printf "%s.renderMode is failIfMissing, and the cluster does not know monitoring.coreos.com/v1: install the Prometheus operator first, or set renderMode to skipIfMissing" .path) }}
{{- end }}
{{- if or (not $isMissing) (eq .settings.renderMode "alwaysRender") }}true{{ end }}
{{- end }}
{{- end }}
