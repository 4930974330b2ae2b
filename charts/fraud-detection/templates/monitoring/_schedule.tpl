{{/* How long the schedule of a job leaves it alone, which the alert on missing runs must wait for. */}}

{{/* (dict "field" "MON-FRI" "first" 0 "last" 6 "names" list? "cycle" 7?): the largest distance between two values that a field
of a schedule chooses, round a cycle that is by default as long as from the first possible value to the last. 0 if the field
chooses none of these values. */}}
{{- define "fraud-detection.largestGap" -}}
{{- $cycle := .cycle | default (sub (add1 .last) .first) | int }}
{{- $field := upper .field }}
{{- range $index, $name := .names }}
  {{- $field = replace $name (add $index $.first | toString) $field }}
{{- end }}
{{- $chosen := dict }}
{{- range splitList "," $field }}
  {{- $parts := splitList "/" . }}
  {{- $bounds := first $parts | replace "?" "*" | replace "*" (printf "%d-%d" $.first $.last) | splitList "-" }}
  {{- $isOpen := and (eq (len $bounds) 1) (eq (len $parts) 2) }}
  {{- $end := min $.last (ternary $.last (last $bounds | atoi) $isOpen) | add1 | int }}
  {{- range untilStep (first $bounds | atoi) $end (ternary (last $parts | atoi) 1 (eq (len $parts) 2)) }}
    {{- $_ := set $chosen (toString .) true }}
  {{- end }}
{{- end }}
{{- $gap := 0 }}
{{- $since := 0 }}
{{- range until (mul 2 $cycle | int) }}
  {{- $since = add1 $since }}
  {{- if hasKey $chosen (add $.first (mod . $cycle) | toString) }}
    {{- $gap = ternary $gap (max $gap $since) (lt . $cycle) }}
    {{- $since = 0 }}
  {{- end }}
{{- end }}
{{- $gap }}
{{- end }}

{{/* The hours of the longest time between two runs of a schedule, if they are not exactly known a few too many. */}}
{{- define "fraud-detection.scheduleHours" -}}
{{- if hasPrefix "@every" . }}
  {{- $hours := regexFind "[0-9]+h" . | trimSuffix "h" | atoi }}
  {{- ternary (add1 $hours) $hours (regexMatch "[ms]" (trimPrefix "@every" .)) }}
{{- else }}
  {{- $named := dict "@hourly" "0 * * * *" "@daily" "0 0 * * *" "@midnight" "0 0 * * *" "@weekly" "0 0 * * 0" "@monthly" "0 0 1 * *" "@yearly" "0 0 1 1 *" "@annually" "0 0 1 1 *" }}
  {{- $fields := get $named . | default . | splitList " " }}
  {{- $ofMonth := index $fields 2 }}
  {{- $ofWeek := index $fields 4 }}
  {{- /* Only the days that every month has. A job of the 30th skips February. */}}
  {{- $days := include "fraud-detection.largestGap" (dict "field" $ofMonth "first" 1 "last" 28 "cycle" 31) | atoi | default 62 }}
  {{- $weekdays := include "fraud-detection.largestGap" (dict "field" $ofWeek "first" 0 "last" 6
    "names" (list "SUN" "MON" "TUE" "WED" "THU" "FRI" "SAT")) | atoi }}
  {{- if has $ofMonth (list "*" "?") }}
    {{- $days = $weekdays }}
  {{- else if not (has $ofWeek (list "*" "?")) }}
    {{- $days = min $days $weekdays }}
  {{- end }}
  {{- $months := include "fraud-detection.largestGap" (dict "field" (index $fields 3) "first" 1 "last" 12
    "names" (list "JAN" "FEB" "MAR" "APR" "MAY" "JUN" "JUL" "AUG" "SEP" "OCT" "NOV" "DEC")) | atoi }}
  {{- if gt $months 1 }}
    {{- $days = add $days (mul 31 $months) }}
  {{- end }}
  {{- $hours := include "fraud-detection.largestGap" (dict "field" (index $fields 1) "first" 0 "last" 23) | atoi }}
  {{- ternary $hours (mul 24 $days) (eq (int $days) 1) }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "job" "retrain"): the hours without a success after which FraudJobNotRun fires: two periods of the
schedule and one hour, unless the values say otherwise. */}}
{{- define "fraud-detection.jobNotRunHours" -}}
{{- $given := get .root.Values.metrics.prometheusRule.thresholds (printf "%sHours" .job) }}
{{- $schedule := (get .root.Values.jobs .job).schedule }}
{{- $given | default (include "fraud-detection.scheduleHours" $schedule | trim | atoi | mul 2 | add1) }}
{{- end }}
