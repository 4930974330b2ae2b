{{/* What the programs read: a key for each variable of fraud_detection/settings.py, save secrets. */}}

{{- define "fraud-detection.sharedConfig" -}}
{{- $config := .Values.config -}}
FRAUD_THRESHOLD: {{ $config.fraudThreshold | toString | quote }}
MODEL_PATH: {{ $config.modelPath | quote }}
LATEST_DB: {{ $config.latestDb | quote }}
{{- if .Values.features }}
FEATURES_FILE: /app/config/features.json
{{- end }}
ALLOW_NETWORK_FILESYSTEM: {{ $config.allowNetworkFilesystem | toString | quote }}
BASELINE_DIR: {{ $config.baselineDir | default (ternary "/app/models/baseline" "/app/baseline" (not (empty .Values.features))) | quote }}
ROLLOUT_MODE: {{ .Values.jobs.retrain.rollout.mode }}
LOG_LEVEL: {{ $config.logLevel }}
LOG_FORMAT: {{ $config.logFormat }}
{{- end }}

{{- define "fraud-detection.apiConfig" -}}
{{ include "fraud-detection.sharedConfig" . }}
HOST: 0.0.0.0
PORT: {{ .Values.api.port | quote }}
PROBE_PORT: {{ .Values.api.probePort | quote }}
MAX_IN_FLIGHT: {{ .Values.config.maxInFlight | int64 | quote }}
RETENTION_DAYS: {{ .Values.config.retentionDays | int64 | quote }}
{{- end }}

{{- define "fraud-detection.jobsConfig" -}}
{{- $config := .Values.config -}}
{{ include "fraud-detection.sharedConfig" . }}
TRAIN_DB: {{ $config.trainDb | quote }}
DRIFT_RESULT: {{ $config.driftResult | quote }}
DRIFT_WINDOW_ROWS: {{ $config.driftWindowRows | int64 | quote }}
DRIFT_MIN_ROWS: {{ $config.driftMinRows | int64 | quote }}
LABEL_MATURITY_DAYS: {{ $config.labelMaturityDays | toString | quote }}
NEGATIVES_BY_MATURITY: {{ $config.negativesByMaturity | toString | quote }}
ALLOW_DERIVED_LABELS: {{ .Values.jobs.retrain.allowDerivedLabels | toString | quote }}
GATE_MIN_FRAUDS: {{ $config.gateMinFrauds | int64 | quote }}
GATE_MARGIN: {{ $config.gateMargin | toString | quote }}
RETRAIN_AFTER_DAYS: {{ $config.retrainAfterDays | toString | quote }}
RETRAIN_COOLDOWN_DAYS: {{ $config.retrainCooldownDays | toString | quote }}
MLFLOW_EXPER: {{ $config.mlflowExper | quote }}
MLFLOW_REG: {{ $config.mlflowReg | quote }}
{{- with $config.mlflowTrackingUri }}
MLFLOW_TRACKING_URI: {{ . | quote }}
{{- end }}
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
