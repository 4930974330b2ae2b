{{/* The environment of the programs: a key for each variable of fraud_detection/settings.py except secrets. The generated
_variables.tpl holds those that values under `config` set. */}}

{{- define "fraud-detection.sharedConfig" -}}
{{ include "fraud-detection.sharedVariables" . }}
{{- if .Values.features }}
FEATURES_FILE: /app/config/features.json
{{- end }}
{{- if not .Values.config.baselineDir }}
BASELINE_DIR: {{ ternary "/app/baseline" "/app/models/baseline" (empty .Values.features) | quote }}
{{- end }}
ROLLOUT_MODE: {{ .Values.jobs.retrain.rollout.mode }}
{{- end }}

{{- define "fraud-detection.apiConfig" -}}
{{ include "fraud-detection.sharedConfig" . }}
HOST: "::" # both families
PORT: {{ .Values.api.port | quote }}
PROBE_PORT: {{ .Values.api.probePort | quote }}
{{ include "fraud-detection.apiVariables" . }}
{{- end }}

{{- define "fraud-detection.jobsConfig" -}}
{{ include "fraud-detection.sharedConfig" . }}
{{ include "fraud-detection.jobVariables" . }}
ALLOW_DERIVED_LABELS: {{ .Values.jobs.retrain.allowDerivedLabels | toString | quote }}
{{- if eq .Values.jobs.retrain.rollout.mode "restart" }}
ROLLOUT_DEPLOYMENT: {{ include "fraud-detection.componentName" (dict "root" . "suffix" "api") }}
{{- end }}
ROLLOUT_TIMEOUT_SECONDS: {{ .Values.jobs.retrain.rollout.timeoutSeconds | int64 | quote }}
{{- with include "fraud-detection.pushgatewayUrl" . }}
PUSHGATEWAY_URL: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "fraud-detection.featuresJson" -}}
{{- dict "features" .Values.features | toPrettyJson }}
{{- end }}
