{{/* Computes parts of NOTES.txt. */}}

{{/* A transaction that is within the bounds of the features, as JSON. */}}
{{- define "fraud-detection.exampleRow" -}}
{{- $row := list }}
{{- range .Values.features | default (untilStep 0 29 1) }}
  {{- $value := 0 }}
  {{- if kindIs "map" . }}
    {{- $value = max 0 (ceil (default 0 .minimum)) | min (floor (default 1e9 .maximum)) }}
  {{- end }}
  {{- $row = append $row $value }}
{{- end }}
{{- toJson $row }}
{{- end }}

{{/* The objects that `helm uninstall` keeps, as arguments of `kubectl delete`. */}}
{{- define "fraud-detection.keptObjects" -}}
{{- $kept := list }}
{{- $persistence := .Values.persistence }}
{{- if and $persistence.enabled $persistence.retain (not $persistence.existingClaim) }}
  {{- $kept = append $kept (printf "pvc/%s" (include "fraud-detection.dataClaimName" .)) }}
{{- end }}
{{- if and (include "fraud-detection.hasModelsClaim" .) $persistence.models.retain (not $persistence.models.existingClaim) }}
  {{- $kept = append $kept (printf "pvc/%s" (include "fraud-detection.modelsClaimName" .)) }}
{{- end }}
{{- if not .Values.auth.existingSecret }}
  {{- $kept = append $kept (printf "secret/%s" (include "fraud-detection.authSecretName" .)) }}
{{- end }}
{{- join " " $kept }}
{{- end }}
