{{/* One of the chart's CronJobs. (dict "root" $ "component" "retrain" "job" .Values.jobs.retrain "command" list
"backups" bool "backupKey" bool "writesModels" bool "api" bool "kubernetes" bool "env" list)

"api" adds the API's token and URL, "kubernetes" a token of the cluster that is valid for an hour, "backupKey" the keys of
encrypted backups if there are any. */}}
{{- define "fraud-detection.cronJob" -}}
{{- $settings := include "fraud-detection.podSettings" (dict "base" .root.Values.jobs.common "own" .job) | fromYaml }}
{{- $labels := include "fraud-detection.volumeLabels" (dict "root" .root "data" true) | fromYaml }}
{{- $encryption := .root.Values.jobs.backup.encryption }}
{{- $hasBackupKey := and .backupKey $encryption.existingSecret }}
{{- $account := ternary "retrain" "jobs" (eq .component "retrain") }}
{{- $env := list (include "fraud-detection.env" (dict "root" .root "threads" $settings.threads)) }}
{{- $mounts := list (include "fraud-detection.volumeMounts" (dict "root" .root "data" true "writesModels" .writesModels)) }}
{{- if .api }}
  {{- $env = append $env (include "fraud-detection.tokenEnv" (dict "root" .root "ofApi" false)) }}
  {{- $mounts = append $mounts (include "fraud-detection.tokenMount" .root) }}
{{- end }}
{{- if .backups }}
  {{- $mounts = append $mounts (list (dict "name" "backups" "mountPath" "/backups") | toYaml) }}
{{- end }}
{{- if $hasBackupKey }}
  {{- $env = append $env (list (dict "name" "BACKUP_KEY_FILE" "value" "/run/secrets/fraud-detection/backup/backup.key") | toYaml) }}
  {{- $mounts = append $mounts (list (dict "name" "backup-key" "mountPath" "/run/secrets/fraud-detection/backup" "readOnly" true) | toYaml) }}
{{- end }}
{{- if .kubernetes }}
  {{- $mounts = append $mounts (list (dict "name" "kubernetes" "mountPath" "/var/run/secrets/kubernetes.io/serviceaccount" "readOnly" true) | toYaml) }}
{{- end }}
{{- with .env }}
  {{- $env = append $env (toYaml .) }}
{{- end }}
apiVersion: batch/v1
kind: CronJob
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "name" (include "fraud-detection.cronJobName" (dict "root" .root "suffix" .component)) "component" .component
    "labels" $settings.labels "annotations" $settings.annotations) | nindent 2 }}
spec:
  schedule: {{ .job.schedule | quote }}
  timeZone: {{ .job.timeZone }}
  suspend: {{ .job.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {{ .job.startingDeadlineSeconds | int64 }}
  successfulJobsHistoryLimit: {{ $settings.successfulJobsHistoryLimit | int64 }}
  failedJobsHistoryLimit: {{ $settings.failedJobsHistoryLimit | int64 }}
  jobTemplate:
    metadata:
      labels:
        {{- include "fraud-detection.podLabels" (dict "root" .root "component" .component "labels" $settings.labels) | nindent 8 }}
      {{- with $settings.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      backoffLimit: 1
      activeDeadlineSeconds: {{ $settings.activeDeadlineSeconds | int64 }}
      ttlSecondsAfterFinished: {{ $settings.ttlSecondsAfterFinished | int64 }}
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
            {{- include "fraud-detection.podLabels" (dict "root" .root "component" .component "labels" (merge $labels $settings.podLabels)) | nindent 12 }}
          {{- with $settings.podAnnotations }}
          annotations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
        spec:
          {{- include "fraud-detection.podPlace" (dict "root" .root "serviceAccount" (include (printf "fraud-detection.%sServiceAccountName" $account) .root) "settings" $settings
            "affinity" (include "fraud-detection.affinity" (dict "root" .root "data" true "affinity" $settings.affinity) | fromYaml)) | nindent 10 }}
          restartPolicy: Never
          {{- with include "fraud-detection.nativeSidecars" $settings }}
          initContainers:
            {{- . | nindent 12 }}
          {{- end }}
          containers:
            - name: {{ .component }}
              command: {{ toJson .command }}
              {{- include "fraud-detection.container" (dict "root" .root "image" .root.Values.image.jobs "settings" $settings
                "configMap" (include "fraud-detection.componentName" (dict "root" .root "suffix" "jobs")) "env" $env "volumeMounts" $mounts) | nindent 14 }}
          volumes:
            {{- include "fraud-detection.volumes" (dict "root" .root "component" .component "data" true "tmpSizeLimit" $settings.scratchSizeLimit "scratch" $settings.scratch) | nindent 12 }}
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
            {{- with $settings.extraVolumes }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
{{- end }}
