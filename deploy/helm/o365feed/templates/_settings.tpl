{{/*
What the chart reads of the settings, as YAML: a group for each that it needs, with the program's defaults.
Everything else of the settings is the program's business, but for what would mislead the chart or show a secret: that is refused.
*/}}
{{- define "o365feed.settings" -}}
{{- if not (trim .Values.config) }}
{{- fail "config is empty: give the settings of o365feed, for example with --set-file config=o365feed.yaml" }}
{{- end }}
{{- $all := fromYaml .Values.config }}
{{- if hasKey $all "Error" }}
{{- fail (printf "config is not a group of settings in YAML: %s" $all.Error) }}
{{- end }}
{{- range $group, $keys := $all }}
{{- include "o365feed.noDots" (list $group) }}
{{- if kindIs "map" $keys }}
{{- include "o365feed.noDots" (keys $keys) }}
{{- end }}
{{- end }}
{{- $kafka := $all.kafka | default dict }}
{{- include "o365feed.noSecrets" (dict "prefix" "" "properties" ($kafka.properties | default dict)) }}
{{- range $key := list "topic_prefix" "group" }}
{{- $value := get $kafka $key }}
{{- if not (or (kindIs "string" $value) (kindIs "invalid" $value)) }}
{{- fail (printf "kafka.%s in config is no text to Helm, which would write it otherwise than o365feed: put it in quotes" $key) }}
{{- end }}
{{- end }}
{{- $fetch := $all.fetch | default dict }}
{{- $dedupe := $all.dedupe | default dict }}
{{- $listing := $all.listing | default dict }}
{{- $webhook := $all.webhook | default dict }}
{{- $topicPrefix := $kafka.topic_prefix | default "o365" }}
{{- dict
  "tenants" (len ($all.tenants | default (list dict)))
  "brokers" ($kafka.bootstrap_servers | join ",")
  "group" ($kafka.group | default "o365feed")
  "listings" (printf "%s.feed.listings" $topicPrefix)
  "partitions" ($kafka.partitions | default 12 | int)
  "maxRecordBytes" ($kafka.max_record_bytes | default "8128KiB")
  "fetchMemory" ($fetch.memory | default "128MiB")
  "dedupeWindow" ($dedupe.window | default "8d")
  "startFrom" ($listing.start_from | default "earliest")
  "webhook" (eq (toString $webhook.enabled) "true")
  "webhookPort" ($webhook.listen | default "127.0.0.1:9443" | splitList ":" | last | int)
  "webhookUrl" ($webhook.public_url | default "")
  | toYaml }}
{{- end }}

{{/* Fails at a key with a dot, such as `kafka.group: feed`: the program takes it for a group and a key, and the chart would miss it. */}}
{{- define "o365feed.noDots" -}}
{{- range . }}
{{- if contains "." . }}
{{- fail (printf "%s in config: write groups as groups, for example `kafka: {group: feed}`" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fails when a property of Kafka (`dict`, with its prefix) that holds a secret is in the settings: a ConfigMap is no place for it. */}}
{{- define "o365feed.noSecrets" -}}
{{- range $key, $value := .properties }}
{{- $name := printf "%s%s" $.prefix $key }}
{{- if kindIs "map" $value }}
{{- include "o365feed.noSecrets" (dict "prefix" (printf "%s." $name) "properties" $value) }}
{{- else if regexMatch "(password|passphrase|secret|\\.key\\.pem|bearer\\.config)$" $name }}
{{- fail (printf "%s in config would be in a ConfigMap: take it from a Secret by extraEnv" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* MiB of a size such as 128MiB, rounded up. */}}
{{- define "o365feed.mebibytes" -}}
{{- $text := toString . | nospace }}
{{- $units := dict "GiB" 1073741824 "MiB" 1048576 "KiB" 1024 "B" 1 }}
{{- if not (regexMatch "^[0-9]+(GiB|MiB|KiB|B)$" $text) }}
{{- fail (printf "resources cannot be derived from the size %q of config: set resources" $text) }}
{{- end }}
{{- $unit := get $units (regexFind "[A-Za-z]+$" $text) }}
{{- divf (mulf (regexFind "^[0-9]+" $text) $unit) 1048576 | ceil }}
{{- end }}

{{/* Days of a duration such as 8d, rounded up. */}}
{{- define "o365feed.days" -}}
{{- $text := toString . | nospace }}
{{- $units := dict "d" 86400000 "h" 3600000 "m" 60000 "s" 1000 "ms" 1 }}
{{- if not (regexMatch "^[0-9]+(d|h|m|s|ms)$" $text) }}
{{- fail (printf "resources cannot be derived from the duration %q of config: set resources" $text) }}
{{- end }}
{{- $unit := get $units (regexFind "[a-z]+$" $text) }}
{{- divf (mulf (regexFind "^[0-9]+" $text) $unit) 86400000 | ceil }}
{{- end }}

{{/* Requests and limits; what stands behind the numbers is said at `sizing` in values.yaml. */}}
{{- define "o365feed.resources" -}}
{{- if .Values.resources }}
{{- toYaml .Values.resources }}
{{- else }}
{{- $settings := include "o365feed.settings" . | fromYaml }}
{{- $fetch := include "o365feed.mebibytes" $settings.fetchMemory | int }}
{{- $queue := max 64 (mul 2 (include "o365feed.mebibytes" $settings.maxRecordBytes | int)) }}
{{- $days := max 9 (add 1 (include "o365feed.days" $settings.dedupeWindow | int)) }}
{{- if ne (toString $settings.startFrom) "earliest" }}
{{- $days = 24 }}
{{- end }}
{{- $ids := divf (mulf .Values.sizing.recordsPerDay 24 $days) 1048576 | ceil | int }}
{{- $memory := add 64 $fetch $queue $ids }}
requests:
  cpu: {{ add 100 (divf (mulf .Values.sizing.recordsPerDay 3) 1000000 | ceil | int) }}m
  memory: {{ $memory }}Mi
limits:
  memory: {{ divf (mulf $memory 3) 2 | ceil | int }}Mi
{{- end }}
{{- end }}
