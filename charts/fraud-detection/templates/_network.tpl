{{/* Rules of NetworkPolicies. They name pods and ports of pods, because policies ignore Services. */}}

{{/* (dict "root" $ "component" "api"): the pods of a component as a peer. */}}
{{- define "fraud-detection.peer" -}}
- podSelector:
    matchLabels:
      {{- include "fraud-detection.selectorLabels" . | nindent 6 }}
{{- end }}

{{- define "fraud-detection.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}
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
