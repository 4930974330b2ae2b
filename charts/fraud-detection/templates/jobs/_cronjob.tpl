{{/* One of the chart's CronJobs. (dict "root" $ "component" "retrain" "job" .Values.jobs.retrain "command" list
"backups" bool "backupKey" bool "writesModels" bool "api" bool "kubernetes" bool "env" list)

"api" adds the API's token and URL, "kubernetes" a token of the cluster that is valid for an hour, "backupKey" the keys of
encrypted backups if there are any. */}}
{{- define "fraud-detection.cronJob" -}}
{{- $common := .root.Values.jobs.common }}
{{- $image := .root.Values.image.jobs }}
{{- $labels := include "fraud-detection.volumeLabels" (dict "root" .root "data" true) | fromYaml }}
{{- $encryption := .root.Values.jobs.backup.encryption }}
{{- $hasBackupKey := and .backupKey $encryption.existingSecret }}
{{- $account := ternary "retrain" "jobs" (eq .component "retrain") }}
apiVersion: batch/v1
kind: CronJob
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "name" (include "fraud-detection.cronJobName" (dict "root" .root "suffix" .component)) "component" .component) | nindent 2 }}
spec:
  schedule: {{ .job.schedule | quote }}
  timeZone: {{ .job.timeZone }}
  suspend: {{ .job.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {{ .job.startingDeadlineSeconds }}
  successfulJobsHistoryLimit: {{ $common.successfulJobsHistoryLimit }}
  failedJobsHistoryLimit: {{ $common.failedJobsHistoryLimit }}
  jobTemplate:
    metadata:
      labels:
        {{- include "fraud-detection.podLabels" (dict "root" .root "component" .component) | nindent 8 }}
    spec:
      backoffLimit: 1
      activeDeadlineSeconds: {{ .job.activeDeadlineSeconds | default $common.activeDeadlineSeconds }}
      ttlSecondsAfterFinished: {{ $common.ttlSecondsAfterFinished }}
      podFailurePolicy:
        rules:
          - action: Ignore # a drained node is no failure of the job
            onPodConditions:
              - {type: DisruptionTarget, status: "True"}
          - action: FailJob # wrong settings or data, or a model that did not serve: a second try would fail too
            onExitCodes: {containerName: {{ .component }}, operator: In, values: [2, 3, 4]}
      template:
        metadata:
          labels:
            {{- include "fraud-detection.podLabels" (dict "root" .root "component" .component "labels" (merge $labels $common.podLabels)) | nindent 12 }}
          {{- with $common.podAnnotations }}
          annotations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
        spec:
          {{- include "fraud-detection.podPlace" (dict "root" .root "serviceAccount" (include (printf "fraud-detection.%sServiceAccountName" $account) .root) "settings" $common
            "affinity" (include "fraud-detection.affinity" (dict "root" .root "data" true "affinity" $common.affinity))) | nindent 10 }}
          restartPolicy: Never
          containers:
            - name: {{ .component }}
              image: {{ include "fraud-detection.image" (dict "root" .root "image" $image) }}
              imagePullPolicy: {{ $image.pullPolicy }}
              command: {{ toJson .command }}
              envFrom:
                - configMapRef:
                    name: {{ include "fraud-detection.componentName" (dict "root" .root "suffix" "jobs") }}
                {{- with $common.extraEnvFrom }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
              env:
                {{- include "fraud-detection.env" (dict "root" .root "threads" $common.threads) | nindent 16 }}
                {{- if .api }}
                - name: API_URL
                  value: {{ include "fraud-detection.apiUrl" .root }}
                - name: API_TOKEN_FILE
                  value: /run/secrets/fraud-detection/auth/api-token
                {{- end }}
                {{- if $hasBackupKey }}
                - name: BACKUP_KEY_FILE
                  value: /run/secrets/fraud-detection/backup/backup.key
                {{- end }}
                {{- with .env }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
                {{- with $common.extraEnv }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
              resources:
                {{- toYaml (.job.resources | default $common.resources) | nindent 16 }}
              securityContext:
                {{- toYaml .root.Values.containerSecurityContext | nindent 16 }}
              volumeMounts:
                {{- include "fraud-detection.volumeMounts" (dict "root" .root "data" true "writesModels" .writesModels) | nindent 16 }}
                {{- if .backups }}
                - name: backups
                  mountPath: /backups
                {{- end }}
                {{- if $hasBackupKey }}
                - name: backup-key
                  mountPath: /run/secrets/fraud-detection/backup
                  readOnly: true
                {{- end }}
                {{- if .api }}
                {{- include "fraud-detection.tokenMount" .root | nindent 16 }}
                {{- end }}
                {{- if .kubernetes }}
                - name: kubernetes
                  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
                  readOnly: true
                {{- end }}
                {{- with $common.extraVolumeMounts }}
                {{- toYaml . | nindent 16 }}
                {{- end }}
          volumes:
            {{- include "fraud-detection.volumes" (dict "root" .root "data" true "tmpSizeLimit" $common.scratchSizeLimit) | nindent 12 }}
            {{- if .backups }}
            - name: backups
              persistentVolumeClaim:
                claimName: {{ .root.Values.jobs.backup.existingClaim }}
            {{- end }}
            {{- if $hasBackupKey }}
            - name: backup-key
              secret:
                secretName: {{ $encryption.existingSecret }}
                defaultMode: {{ include "fraud-detection.secretMode" .root }}
                items:
                  - key: {{ $encryption.fileKey }}
                    path: backup.key
            {{- end }}
            {{- if .api }}
            {{- include "fraud-detection.tokenVolume" (dict "root" .root "ofApi" false) | nindent 12 }}
            {{- end }}
            {{- if .kubernetes }}
            - name: kubernetes
              projected:
                sources:
                  - serviceAccountToken:
                      path: token
                      expirationSeconds: 3600
                  - configMap:
                      name: kube-root-ca.crt
                      items:
                        - {key: ca.crt, path: ca.crt}
                  - downwardAPI:
                      items:
                        - path: namespace
                          fieldRef: {fieldPath: metadata.namespace}
            {{- end }}
            {{- with $common.extraVolumes }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
{{- end }}
