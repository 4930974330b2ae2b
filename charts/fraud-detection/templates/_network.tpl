{{/* Services, and rules of NetworkPolicies, which name pods and ports of pods, because policies ignore Services. */}}

{{/* (dict "root" $ "component" "api" "service" .Values.api.service): the metadata of a Service. Its own label is for the
ServiceMonitor: Argo CD may write another app.kubernetes.io/instance onto each object. */}}
{{- define "fraud-detection.serviceMetadata" -}}
{{- $name := include "fraud-detection.componentName" (dict "root" .root "suffix" .component) }}
{{- include "fraud-detection.metadata" (dict "root" .root "name" $name "component" .component
  "labels" (merge (dict "fraud-detection.io/service" $name) (.service.labels | default dict)) "annotations" .service.annotations) }}
{{- end }}

{{/* (dict "service" .Values.api.service "fields" list): those fields of a Service that the values set. */}}
{{- define "fraud-detection.serviceFields" -}}
{{- range .fields }}
{{- $value := get $.service . }}
{{- if or $value (kindIs "bool" $value) }}
{{ . }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "component" "detect-drift" "rules" "detectDrift" "ingress" text? "egress" text?): the policy of a
component. The value that `rules` names replaces the rules that the chart has for it; every policy gets the additional ones. A pod
that opens connections only by additional rules still needs the cluster's DNS. */}}
{{- define "fraud-detection.networkPolicy" -}}
{{- $extraIngress := .root.Values.networkPolicy.extraIngress | default list }}
{{- $extraEgress := .root.Values.networkPolicy.extraEgress | default list }}
{{- $rules := get (.root.Values.networkPolicy.rules | default dict) .rules | default dict }}
{{- $ingress := $rules.ingress }}
{{- if kindIs "invalid" $ingress }}
  {{- $ingress = .ingress | default "[]" | fromYamlArray }}
{{- end }}
{{- $egress := $rules.egress }}
{{- if kindIs "invalid" $egress }}
  {{- $egress = .egress | default (ternary "[]" (include "fraud-detection.dnsEgress" .root) (empty $extraEgress)) | fromYamlArray }}
{{- end }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "fraud-detection.metadata" (dict "root" .root "name" (include "fraud-detection.componentName" (dict "root" .root "suffix" .component)) "component" .component) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "fraud-detection.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- /* An empty list would make every upgrade a change. */}}
  {{- with concat $ingress $extraIngress }}
  ingress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat $egress $extraEgress }}
  egress:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* (dict "root" $ "component" "api"): the pods of a component as a peer. */}}
{{- define "fraud-detection.peer" -}}
- podSelector:
    matchLabels:
      {{- include "fraud-detection.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* The pods of Prometheus as a peer; none if no namespace is named. */}}
{{- define "fraud-detection.prometheusPeer" -}}
{{- with .Values.networkPolicy.prometheusNamespace }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "fraud-detection.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace | quote }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP} # the pods of OpenShift's DNS
    - {port: 5353, protocol: TCP}
{{- end }}

{{- define "fraud-detection.databaseEgress" -}}
{{- if not (include "fraud-detection.isSqlite" .) }}
- ports: # of any address, because the chart does not read the URL
    - {port: {{ .Values.networkPolicy.databasePort }}, protocol: TCP}
{{- end }}
{{- end }}

{{/* A rule for a URL: its port, at any address. */}}
{{- define "fraud-detection.urlEgress" -}}
{{- $url := urlParse . -}}
- ports:
    - {port: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}, protocol: TCP}
{{- end }}

{{/* Without the port of the probes, because policies never block the kubelet. */}}
{{- define "fraud-detection.apiIngress" -}}
- from:
    {{- if .Values.networkPolicy.allowSameNamespace }}
    - podSelector: {}
    {{- else }}
    {{- include "fraud-detection.peer" (dict "root" . "component" "retrain") | nindent 4 }}
    {{- include "fraud-detection.peer" (dict "root" . "component" "test") | nindent 4 }}
    {{- end }}
    {{- include "fraud-detection.prometheusPeer" . | nindent 4 }}
    {{- with .Values.networkPolicy.ingressFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {port: {{ .Values.api.port }}, protocol: TCP}
{{- end }}

{{/* With SQLite the API opens no connections. */}}
{{- define "fraud-detection.apiEgress" -}}
{{- if not (include "fraud-detection.isSqlite" .) }}
{{- include "fraud-detection.dnsEgress" . }}
{{ include "fraud-detection.databaseEgress" . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "component" "retrain"): the connections that a job opens. */}}
{{- define "fraud-detection.jobEgress" -}}
{{- $values := .root.Values }}
{{- include "fraud-detection.dnsEgress" .root }}
{{ include "fraud-detection.databaseEgress" .root }}
{{- if ne .component "backup" }}
{{- if $values.pushgateway.externalUrl }}
{{ include "fraud-detection.urlEgress" $values.pushgateway.externalUrl }}
{{- else if $values.pushgateway.enabled }}
- to:
    {{- include "fraud-detection.peer" (dict "root" .root "component" "pushgateway") | nindent 4 }}
  ports:
    - {port: 9091, protocol: TCP}
{{- end }}
{{- with $values.config.mlflowTrackingUri }}
{{ include "fraud-detection.urlEgress" . }}
{{- end }}
{{- end }}
{{- if and (eq .component "retrain") (ne $values.jobs.retrain.rollout.mode "none") }}
- to:
    {{- include "fraud-detection.peer" (dict "root" .root "component" "api") | nindent 4 }}
  ports:
    - {port: {{ $values.api.port }}, protocol: TCP}
{{- end }}
{{- if and (eq .component "retrain") (include "fraud-detection.restartsApi" .root) }}
- ports: # the Kubernetes API
    - {port: 443, protocol: TCP}
    - {port: 6443, protocol: TCP}
  {{- with $values.networkPolicy.apiServerCidr }}
  to:
    {{- range ternary (list .) . (kindIs "string" .) }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The Pushgateway needs no password, so only our jobs may push and only Prometheus may read. */}}
{{- define "fraud-detection.pushgatewayIngress" -}}
- from:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: {{ include "fraud-detection.name" . | quote }}
          app.kubernetes.io/instance: {{ .Release.Name | quote }}
        matchExpressions:
          - key: app.kubernetes.io/component
            operator: In
            values: [detect-drift, retrain, fraudctl]
    {{- include "fraud-detection.prometheusPeer" . | nindent 4 }}
  ports:
    - port: http
      protocol: TCP
{{- end }}

{{- define "fraud-detection.testEgress" -}}
{{ include "fraud-detection.dnsEgress" . }}
- to:
    {{- include "fraud-detection.peer" (dict "root" . "component" "api") | nindent 4 }}
  ports:
    - {port: {{ .Values.api.port }}, protocol: TCP}
{{- end }}
