{{/* `make generate` writes this file: the variables that the values under `config` set. */}}

{{- define "fraud-detection.sharedVariables" -}}
FRAUD_THRESHOLD: {{ .Values.config.fraudThreshold | toString | quote }}
MODEL_PATH: {{ .Values.config.modelPath | toString | quote }}
LATEST_DB: {{ .Values.config.latestDb | toString | quote }}
ALLOW_NETWORK_FILESYSTEM: {{ .Values.config.allowNetworkFilesystem | toString | quote }}
{{- with .Values.config.baselineDir }}
BASELINE_DIR: {{ . | quote }}
{{- end }}
LOG_LEVEL: {{ .Values.config.logLevel | toString | quote }}
LOG_FORMAT: {{ .Values.config.logFormat | toString | quote }}
{{- end }}

{{- define "fraud-detection.apiVariables" -}}
{{- with .Values.config.trustedProxies }}
TRUSTED_PROXIES: {{ . | quote }}
{{- end }}
ACCESS_LOG: {{ .Values.config.accessLog | toString | quote }}
RATE_LIMIT_PER_SECOND: {{ .Values.config.rateLimitPerSecond | int64 | quote }}
MAX_IN_FLIGHT: {{ .Values.config.maxInFlight | int64 | quote }}
RETENTION_DAYS: {{ .Values.config.retentionDays | int64 | quote }}
{{- end }}

{{- define "fraud-detection.jobVariables" -}}
TRAIN_DB: {{ .Values.config.trainDb | toString | quote }}
DRIFT_RESULT: {{ .Values.config.driftResult | toString | quote }}
DRIFT_WINDOW_ROWS: {{ .Values.config.driftWindowRows | int64 | quote }}
DRIFT_MIN_ROWS: {{ .Values.config.driftMinRows | int64 | quote }}
LABEL_MATURITY_DAYS: {{ .Values.config.labelMaturityDays | toString | quote }}
NEGATIVES_BY_MATURITY: {{ .Values.config.negativesByMaturity | toString | quote }}
GATE_MIN_FRAUDS: {{ .Values.config.gateMinFrauds | int64 | quote }}
GATE_MARGIN: {{ .Values.config.gateMargin | toString | quote }}
RETRAIN_AFTER_DAYS: {{ .Values.config.retrainAfterDays | toString | quote }}
RETRAIN_COOLDOWN_DAYS: {{ .Values.config.retrainCooldownDays | toString | quote }}
MLFLOW_EXPER: {{ .Values.config.mlflowExper | toString | quote }}
MLFLOW_REG: {{ .Values.config.mlflowReg | toString | quote }}
{{- with .Values.config.mlflowTrackingUri }}
MLFLOW_TRACKING_URI: {{ . | quote }}
{{- end }}
{{- end }}
