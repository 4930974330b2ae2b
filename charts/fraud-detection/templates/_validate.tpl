{{/* One line for each problem of the values: what would fail or lose data, and what to set instead. Empty without problems. */}}
{{- define "fraud-detection.problems" -}}
{{- $api := .Values.api }}
{{- $jobs := .Values.jobs }}
{{- $persistence := .Values.persistence }}
{{- $isSqlite := ne (include "fraud-detection.isSqlite" .) "" }}
{{- $hasModelsClaim := ne (include "fraud-detection.hasModelsClaim" .) "" }}
{{- $isAlone := ne (include "fraud-detection.apiIsAloneOnClaim" .) "" }}
{{- $wantsSeveral := or $api.hpa.enabled (gt (int $api.replicas) 1) }}
{{- $hasMlflowFile := and (not .Values.config.mlflowTrackingUri) (or $jobs.retrain.enabled $jobs.fraudctl.enabled) }}
{{- $scheduled := list }}
{{- $running := list }}
{{- range $name, $job := dict "detectDrift" $jobs.detectDrift "retrain" $jobs.retrain "backup" $jobs.backup }}
  {{- if $job.enabled }}
    {{- $scheduled = append $scheduled (printf "jobs.%s.enabled=false" $name) }}
    {{- if not $job.suspend }}
      {{- $running = append $running (last $scheduled) }}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* The database. */}}
{{- if $isSqlite }}
  {{- if gt (int $api.replicas) 1 }}
- api.replicas is {{ $api.replicas }}, but with SQLite only one process may store decisions: set api.replicas=1, or database.mode=postgresql with database.existingSecret
  {{- end }}
  {{- if $api.hpa.enabled }}
- api.hpa.enabled is true, but with SQLite only one process may store decisions: set api.hpa.enabled=false, or database.mode=postgresql with database.existingSecret
  {{- end }}
  {{- if $persistence.models.enabled }}
- persistence.models.enabled is true, but with SQLite the models are beside the database, on one node: set persistence.models.enabled=false, or database.mode=postgresql with database.existingSecret
  {{- end }}
{{- else if not .Values.database.existingSecret }}
- database.mode is postgresql, but database.existingSecret is empty: set it to a Secret whose key {{ .Values.database.urlKey }} is postgresql://user:password@host:5432/name
{{- end }}

{{- /* The volumes. */}}
{{- if $persistence.enabled }}
  {{- if and (eq $persistence.accessMode "ReadWriteMany") (or $isSqlite $hasMlflowFile) }}
- persistence.accessMode is ReadWriteMany, but that volume holds an SQLite file (decisions, or MLflow's store), which several nodes can corrupt: set persistence.accessMode=ReadWriteOnce; with PostgreSQL, a separate ReadWriteMany claim can hold the models (persistence.models.enabled=true)
  {{- end }}
  {{- if $isAlone }}
    {{- if $running }}
- persistence.accessMode is ReadWriteOncePod, so no job can run beside the API: set persistence.accessMode=ReadWriteOnce, or {{ join "," $running }}
    {{- end }}
    {{- if eq $api.updateStrategy "RollingUpdate" }}
- api.updateStrategy is RollingUpdate, but with persistence.accessMode=ReadWriteOncePod the new pod would wait forever for the old one: set api.updateStrategy=auto, or persistence.accessMode=ReadWriteOnce
    {{- end }}
    {{- if $wantsSeveral }}
- the API has several replicas, but persistence.accessMode=ReadWriteOncePod allows one pod: set persistence.accessMode=ReadWriteOnce, or give the models a separate claim (persistence.models.enabled=true)
    {{- end }}
  {{- end }}
{{- else }}
  {{- $all := ternary (append $scheduled "jobs.fraudctl.enabled=false") $scheduled $jobs.fraudctl.enabled }}
  {{- if $all }}
- persistence.enabled is false, but jobs read what the API stores, and an emptyDir is not shared between pods: set persistence.enabled=true, or {{ join "," $all }}
  {{- end }}
{{- end }}
{{- if and $hasModelsClaim (not (has $persistence.models.accessMode (list "ReadWriteOnce" "ReadWriteMany"))) }}
- persistence.models.accessMode is {{ $persistence.models.accessMode }}, but the API and the jobs mount that claim: set it to ReadWriteMany, or to ReadWriteOnce if all of them may run on one node
{{- end }}
{{- if and $hasModelsClaim $persistence.enabled (eq (include "fraud-detection.modelsClaimName" .) (include "fraud-detection.dataClaimName" .)) }}
- persistence.models.existingClaim is also the claim of the data: name another claim, or set persistence.models.enabled=false to keep the models there
{{- end }}
{{- if and $jobs.backup.enabled (not $jobs.backup.existingClaim) }}
- jobs.backup.enabled is true, but jobs.backup.existingClaim is empty: set it to a claim that is on other disks than the data and outlives this release
{{- end }}
{{- $backedUp := list (include "fraud-detection.dataClaimName" .) }}
{{- if $hasModelsClaim }}
  {{- $backedUp = append $backedUp (include "fraud-detection.modelsClaimName" .) }}
{{- end }}
{{- if and $jobs.backup.enabled (has $jobs.backup.existingClaim $backedUp) }}
- jobs.backup.existingClaim is a claim that the job backs up, so data and backups would be lost together: name another claim, if possible on other disks
{{- end }}
{{- $isSpread := false }}
{{- range $api.topologySpreadConstraints }}
  {{- $isSpread = or $isSpread (ne .whenUnsatisfiable "ScheduleAnyway") }}
{{- end }}
{{- if and $isSpread (include "fraud-detection.sharedClaim" (dict "root" . "data" $isSqlite)) }}
- api.topologySpreadConstraints must be satisfied, but a ReadWriteOnce volume keeps the pods on one node: set whenUnsatisfiable: ScheduleAnyway, or with PostgreSQL give the models a ReadWriteMany claim (persistence.models.enabled=true)
{{- end }}
{{- $folders := dict "modelPath" "/app/models/" }}
{{- if $isSqlite }}
  {{- $_ := set $folders "latestDb" "/app/data/" }}
{{- end }}
{{- if include "fraud-detection.hasJobs" . }}
  {{- $_ := set $folders "driftResult" "/app/data/" }}
  {{- if $isSqlite }}
    {{- $_ = set $folders "trainDb" "/app/data/" }}
  {{- end }}
{{- end }}
{{- range $name, $folder := $folders }}
  {{- $isOnVolume := hasPrefix $folder (get $.Values.config $name) }}
  {{- range concat $api.extraVolumeMounts $jobs.common.extraVolumeMounts }}
    {{- $isOnVolume = or $isOnVolume (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (get $.Values.config $name)) }}
  {{- end }}
  {{- if not $isOnVolume }}
- config.{{ $name }} is {{ get $.Values.config $name }}, which is on no volume: name a file in {{ $folder }}
  {{- end }}
{{- end }}

{{- /* Times. */}}
{{- $needed := add $api.preStopSleepSeconds 30 | int }}
{{- if lt (int $api.terminationGracePeriodSeconds) $needed }}
- api.terminationGracePeriodSeconds is {{ $api.terminationGracePeriodSeconds }}, but stopping takes up to {{ $needed }} s ({{ $api.preStopSleepSeconds }} for load balancers, 20 for requests in flight, 10 to close the database): set it to {{ $needed }} or more
{{- end }}
{{- if le (int $api.progressDeadlineSeconds) (int $api.minReadySeconds) }}
- api.progressDeadlineSeconds is {{ $api.progressDeadlineSeconds }}, but a pod counts only after api.minReadySeconds={{ $api.minReadySeconds }}: set it higher, for instance to 240
{{- end }}
{{- if include "fraud-detection.restartsApi" . }}
  {{- $timeout := int $jobs.retrain.rollout.timeoutSeconds }}
  {{- if ge (int $api.progressDeadlineSeconds) $timeout }}
- api.progressDeadlineSeconds is {{ $api.progressDeadlineSeconds }} and jobs.retrain.rollout.timeoutSeconds {{ $timeout }}, so the job would time out before Kubernetes reports the reason: lower the first or raise the second
  {{- end }}
  {{- if le (int $jobs.retrain.activeDeadlineSeconds) (mul 2 $timeout | int) }}
- jobs.retrain.activeDeadlineSeconds is {{ $jobs.retrain.activeDeadlineSeconds }}, but a rollout and the restoration of the previous version may take {{ mul 2 $timeout }} s: add the time of a training
  {{- end }}
  {{- if and .Values.rbac.create (not $jobs.retrain.serviceAccount.create) (not $jobs.retrain.serviceAccount.name) }}
- jobs.retrain.serviceAccount.create is false and jobs.retrain.serviceAccount.name is empty, so the right to restart would go to `default`, the account of other pods: set jobs.retrain.serviceAccount.name
  {{- end }}
  {{- $others := list (include "fraud-detection.apiServiceAccountName" .) }}
  {{- if or $jobs.detectDrift.enabled $jobs.backup.enabled $jobs.fraudctl.enabled }}
    {{- $others = append $others (include "fraud-detection.jobsServiceAccountName" .) }}
  {{- end }}
  {{- if and .Values.rbac.create (has (include "fraud-detection.retrainServiceAccountName" .) $others) }}
- jobs.retrain.serviceAccount.name is also the account of other pods, which must not have the right to restart: name another account
  {{- end }}
{{- end }}

{{- /* Secrets, names and the network. */}}
{{- if and .Values.auth.requireExistingSecret (not .Values.auth.existingSecret) }}
- auth.requireExistingSecret is true and auth.existingSecret is empty: set auth.existingSecret to a Secret whose key {{ .Values.auth.tokenKey }} is the token
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "fraud-detection.fullname" .)) }}
- the name {{ include "fraud-detection.fullname" . }} is none that Kubernetes accepts for a Service: set fullnameOverride to a name of lower-case letters, digits and hyphens that starts with a letter
{{- end }}
{{- if eq .Values.auth.tokenKey .Values.auth.previousTokenKey }}
- auth.previousTokenKey is the key of the current token: name another key, which need not exist yet
{{- end }}
{{- if has (include "fraud-detection.metricsTokenKey" .) (list .Values.auth.tokenKey .Values.auth.previousTokenKey) }}
- auth.metricsTokenKey is the key of a token that opens everything: name another key, whose token opens only /metrics and /model
{{- end }}
{{- include "fraud-detection.reservedLabels" (dict "path" "" "values" .Values) }}
{{- $annotated := list "kubectl.kubernetes.io/default-container" "checksum/config" }}
{{- if include "fraud-detection.restartsApi" . }}
  {{- $annotated = append $annotated "fraud-detection.io/model-digest" }}
  {{- $annotated = append $annotated "kubectl.kubernetes.io/restartedAt" }}
{{- end }}
{{- range $name, $_ := $api.podAnnotations }}
  {{- if has $name $annotated }}
- api.podAnnotations sets {{ $name }}, which the chart or a promotion sets: remove it
  {{- end }}
{{- end }}
{{- if and .Values.pushgateway.enabled .Values.pushgateway.externalUrl }}
- pushgateway.enabled is true and pushgateway.externalUrl is set: set pushgateway.enabled=false to use your own Pushgateway, or leave pushgateway.externalUrl empty
{{- end }}
{{- if .Values.pushgateway.enabled }}
  {{- range .Values.pushgateway.extraArgs }}
    {{- if has (regexFind "^[^=]+" .) (list "--web.listen-address" "--persistence.file" "--persistence.interval") }}
- pushgateway.extraArgs sets {{ . }}, which the chart sets: remove it
    {{- end }}
  {{- end }}
{{- end }}
{{- if and $api.hpa.enabled (gt (int $api.hpa.minReplicas) (int $api.hpa.maxReplicas)) }}
- api.hpa.minReplicas is {{ $api.hpa.minReplicas }}, more than api.hpa.maxReplicas={{ $api.hpa.maxReplicas }}: set it lower
{{- end }}
{{- if and $api.ingress.enabled (not $api.ingress.hosts) }}
- api.ingress.enabled is true and api.ingress.hosts is empty: set api.ingress.hosts[0].host to the name that clients use
{{- end }}
{{- if and $api.httpRoute.enabled (not $api.httpRoute.parentRefs) }}
- api.httpRoute.enabled is true and api.httpRoute.parentRefs is empty: set api.httpRoute.parentRefs[0].name to your Gateway
{{- end }}
{{- range $field := list "loadBalancerClass" "loadBalancerSourceRanges" "allocateLoadBalancerNodePorts" "externalTrafficPolicy" "nodePort" }}
  {{- $value := get $api.service $field }}
  {{- $isFit := ternary (ne $api.service.type "ClusterIP") (eq $api.service.type "LoadBalancer") (has $field (list "externalTrafficPolicy" "nodePort")) }}
  {{- if and (or $value (kindIs "bool" $value)) (not $isFit) }}
- api.service.{{ $field }} is set, but Kubernetes rejects it for api.service.type={{ $api.service.type }}: set api.service.type=LoadBalancer, or remove it
  {{- end }}
{{- end }}
{{- $fromOutside := or $api.ingress.enabled $api.httpRoute.enabled (ne $api.service.type "ClusterIP") }}
{{- $policy := .Values.networkPolicy }}
{{- $admitsOthers := or $policy.ingressFrom $policy.extraIngress (kindIs "slice" (dig "rules" "api" "ingress" "" $policy)) }}
{{- if and $policy.enabled $fromOutside (not $admitsOthers) }}
- the API is open to the outside (api.ingress, api.httpRoute or api.service.type), but networkPolicy blocks clients in other namespaces: set networkPolicy.ingressFrom to the pods that forward to it, for instance [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}], or to [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]
{{- end }}

{{- /* Monitoring. */}}
{{- $metrics := .Values.metrics }}
{{- if and $metrics.serviceMonitor.enabled $metrics.serviceMonitor.namespace (not .Values.auth.existingSecret) (ne $metrics.serviceMonitor.namespace (include "fraud-detection.namespace" .)) }}
- metrics.serviceMonitor.namespace is {{ $metrics.serviceMonitor.namespace }}, where Prometheus would look for the API's token, but the chart generates its Secret beside the API: set auth.existingSecret to a Secret that is in both namespaces
{{- end }}
{{- if and $metrics.prometheusRule.enabled (not (has "FraudJobNotRun" $metrics.prometheusRule.disabled)) }}
  {{- range $name := list "detectDrift" "retrain" "backup" }}
    {{- $job := get $jobs $name }}
    {{- $hours := include "fraud-detection.jobNotRunHours" (dict "root" $ "job" $name) | trim | float64 }}
    {{- $period := include "fraud-detection.scheduleHours" $job.schedule | trim | float64 }}
    {{- if and $job.enabled (not $job.suspend) (lt $hours $period) }}
- metrics.prometheusRule.thresholds.{{ $name }}Hours is {{ $hours }}, but jobs.{{ $name }}.schedule may leave {{ $period }} hours between two runs, so FraudJobNotRun would fire without a fault: leave the threshold out, or raise it
    {{- end }}
  {{- end }}
{{- end }}

{{- /* What Kubernetes or Helm would refuse, or empty, without a word about the value at fault. */}}
{{- include "fraud-detection.repetitions" . }}
{{- range $index, $object := .Values.extraObjects }}
  {{- range include "fraud-detection.unknownFields" (dict "root" $ "object" $object) | fromYamlArray }}
    {{- $escaped := printf "{{ `%s` }}" . }}
- extraObjects[{{ $index }}] has {{ . }}, which is nothing that the chart knows and would be empty: correct it, or write {{ $escaped }} if another program fills it in
  {{- end }}
{{- end }}
{{- end }}

{{/* (dict "path" "" "values" .Values): a line for each label that the chart sets and the values, too. */}}
{{- define "fraud-detection.reservedLabels" -}}
{{- $reserved := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "fraud-detection.io/data-volume" "fraud-detection.io/service" }}
{{- range $name, $value := .values }}
  {{- $path := printf "%s.%s" $.path $name | trimPrefix "." }}
  {{- if has $name (list "commonLabels" "labels" "podLabels") }}
    {{- range $label, $_ := $value }}
      {{- if has $label $reserved }}
- {{ $path }} sets {{ $label }}, which the chart sets itself: use another label
      {{- end }}
    {{- end }}
  {{- else if and (kindIs "map" $value) (ne (get $value "enabled" | toString) "false") }}
    {{- include "fraud-detection.reservedLabels" (dict "path" $path "values" $value) }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A line for each part of a pod that is there twice, of which the API server accepts one. */}}
{{- define "fraud-detection.repetitions" -}}
{{- range $file := list "api/deployment.yaml" "jobs/backup-cronjob.yaml" "jobs/detect-drift-cronjob.yaml" "jobs/fraudctl-cronjob.yaml" "jobs/retrain-cronjob.yaml" "pushgateway/deployment.yaml" "tests/smoke.yaml" }}
  {{- $owner := include (printf "%s/%s" $.Template.BasePath $file) $ | fromYaml }}
  {{- $pod := dig "spec" "jobTemplate" "spec" "template" "spec" (dig "spec" "template" "spec" (dig "spec" dict $owner) $owner) $owner }}
  {{- $parts := list }}
  {{- range $container := concat (dig "initContainers" list $pod) (dig "containers" list $pod) }}
    {{- $parts = append $parts (printf "container %s" .name) }}
    {{- range .env }}{{ $parts = append $parts (printf "variable %s in container %s" .name $container.name) }}{{ end }}
    {{- range .volumeMounts }}{{ $parts = append $parts (printf "mount %s in container %s" .mountPath $container.name) }}{{ end }}
    {{- range .ports }}{{ $parts = append $parts (printf "port %v/%s" .containerPort (.protocol | default "TCP")) }}{{ end }}
  {{- end }}
  {{- range dig "volumes" list $pod }}{{ $parts = append $parts (printf "volume %s" .name) }}{{ end }}
  {{- range dig "imagePullSecrets" list $pod }}{{ $parts = append $parts (printf "pull secret %s" .name) }}{{ end }}
  {{- range dig "hostAliases" list $pod }}{{ $parts = append $parts (printf "host alias %s" .ip) }}{{ end }}
  {{- range dig "topologySpreadConstraints" list $pod }}{{ $parts = append $parts (printf "spread constraint %v %v" .topologyKey .whenUnsatisfiable) }}{{ end }}
  {{- $seen := dict }}
  {{- range $parts }}
    {{- if hasKey $seen . }}
- the pod of {{ $owner.kind }} {{ $owner.metadata.name }} would have {{ . }} twice: remove it, or use what neither you nor the chart uses already
    {{- end }}
    {{- $_ := set $seen . true }}
  {{- end }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "object" map or text): the actions of a template that begin with a field which is not there. A text that
moves the dot, with `range` or `with`, has fields of its own and none of them. */}}
{{- define "fraud-detection.unknownFields" -}}
{{- $root := .root }}
{{- $text := ternary .object (toYaml .object) (kindIs "string" .object) }}
{{- $unknown := list }}
{{- $literal := "\\x22([^\\x22\\\\]|\\\\.)*\\x22|\\x60[^\\x60]*\\x60" }}
{{- if not (regexMatch "{{-?\\s*(range|with|define|block)\\b" $text) }}
  {{- range regexFindAll (printf "{{-?([^\\x22\\x60}]|%s)*}}" $literal) $text -1 }}
    {{- $action := . }}
    {{- $code := regexReplaceAll $literal . "" }}
    {{- range regexFindAll "(^|[^\\w).])\\.[A-Za-z_]\\w*" $code -1 }}
      {{- if not (has (regexFind "\\w+$" .) (list "Values" "Release" "Chart" "Capabilities" "Files" "Template" "Subcharts")) }}
        {{- $unknown = append $unknown $action }}
      {{- end }}
    {{- end }}
    {{- with regexFind "^{{-?\\s*\\$?\\.Values(\\.\\w+)+\\s*(\\|\\s*\\w+\\s*)*-?}}$" . }}
      {{- $value := $root.Values }}
      {{- range splitList "." (regexFind "Values(\\.\\w+)+" . | trimPrefix "Values.") }}
        {{- if kindIs "map" $value }}{{ $value = index $value . }}{{ else }}{{ $value = nil }}{{ end }}
      {{- end }}
      {{- if kindIs "invalid" $value }}{{ $unknown = append $unknown $action }}{{ end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- toYaml (uniq $unknown) }}
{{- end }}
