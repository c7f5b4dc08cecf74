{{- define "modelport.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "modelport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else if contains (include "modelport.name" .) .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "modelport.name" .) | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What every object of a release has. */}}
{{- define "modelport.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "modelport.name" . }}
{{- end -}}

{{- define "modelport.selector" -}}
app.kubernetes.io/name: {{ include "modelport.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "modelport.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "modelport.secret" -}}
{{- .Values.auth.existingSecret | default (include "modelport.fullname" .) -}}
{{- end -}}

{{/* The Secret with the store's URL; empty where there is no store. */}}
{{- define "modelport.storeSecret" -}}
{{- if .Values.store.existingSecret -}}
{{- .Values.store.existingSecret -}}
{{- else if .Values.store.url -}}
{{- include "modelport.fullname" . }}-store
{{- end -}}
{{- end -}}

{{/* All of an engine's values: its own over engineDefaults. Arguments: `root`, `name`. */}}
{{- define "modelport.engine" -}}
{{- $own := get .root.Values.engines .name -}}
{{- $engine := mustMergeOverwrite (deepCopy .root.Values.engineDefaults) (deepCopy $own) -}}
{{- toYaml $engine -}}
{{- end -}}

{{- define "modelport.engineName" -}}
{{- printf "%s-%s" (include "modelport.fullname" .root) .name -}}
{{- end -}}

{{- define "modelport.engineSelector" -}}
app.kubernetes.io/name: {{ include "modelport.name" .root }}-engine
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* The headless Service that has the address of every engine that is ready. A LeaderWorkerSet makes another one, with
its own name, for itself. */}}
{{- define "modelport.engineService" -}}
{{- printf "%s-api" (include "modelport.engineName" .) -}}
{{- end -}}

{{/* modelport.yaml: what the chart knows, and over it what `config` says. */}}
{{- define "modelport.config" -}}
{{- $server := dict "host" "0.0.0.0" "port" 8000 "metrics_host" "0.0.0.0" "metrics_port" (int .Values.metrics.port) -}}
{{- $backends := dict -}}
{{- $models := dict -}}
{{- range $name, $_ := .Values.engines -}}
{{- $engine := include "modelport.engine" (dict "root" $ "name" $name) | fromYaml -}}
{{- $public := $engine.publicName | default $name -}}
{{- $host := printf "%s.%s.svc.%s" (include "modelport.engineService" (dict "root" $ "name" $name)) $.Release.Namespace $.Values.clusterDomain -}}
{{- $backend := dict "kind" "remote" "url" (printf "http://%s:8000/v1" $host) "addresses" "dns" "api_key" "${VLLM_API_KEY}" -}}
{{- if $engine.maxInFlight -}}{{- $_ := set $backend "max_in_flight" (int $engine.maxInFlight) -}}{{- end -}}
{{- $_ := set $backends $name $backend -}}
{{- $_ := set $models $public (dict "backend" $name "model" $public) -}}
{{- end -}}
{{- $ours := dict "server" $server "backends" $backends "models" $models -}}
{{- if include "modelport.storeSecret" . -}}
{{- $store := dict "url" "${STORE_URL}" "assume_gateways" (int .Values.gateway.replicas) -}}
{{- $_ := set $ours "store" (mustMergeOverwrite $store (deepCopy .Values.store.settings)) -}}
{{- end -}}
{{- mustMergeOverwrite $ours (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* Longer than everything that a gateway may still do when it is told to end: the delay, the requests, 3 s for relays,
10 s for engines of its own, and some for a slow machine. */}}
{{- define "modelport.grace" -}}
{{- $server := (include "modelport.config" . | fromYaml).server -}}
{{- $delay := 5.0 -}}{{- if hasKey $server "drain_delay_s" -}}{{- $delay = $server.drain_delay_s -}}{{- end -}}
{{- $drain := 30.0 -}}{{- if hasKey $server "drain_s" -}}{{- $drain = $server.drain_s -}}{{- end -}}
{{- addf $delay $drain 3 10 10 | ceil | int -}}
{{- end -}}

{{/* Mistakes that a schema cannot see. */}}
{{- define "modelport.check" -}}
{{- if and (not .Values.auth.apiKey) (not .Values.auth.existingSecret) -}}
{{- fail "auth.apiKey is empty, and other machines may use the gateway only with a key: set auth.apiKey, or auth.existingSecret to the name of a Secret with the entries API_KEY and VLLM_API_KEY" -}}
{{- end -}}
{{- if and (not .Values.engines) (not .Values.config.backends) -}}
{{- fail "there is no model to serve: set engines (vLLM in this cluster) or config.backends and config.models" -}}
{{- end -}}
{{- if and .Values.gateway.stateClaim (gt (int .Values.gateway.replicas) 1) -}}
{{- fail (printf "gateway.stateClaim is for one gateway, and gateway.replicas is %d: two gateways cannot share a state folder; gateway.stateSize gives each a claim of its own" (int .Values.gateway.replicas)) -}}
{{- end -}}
{{- if and .Values.gateway.stateClaim .Values.gateway.stateSize -}}
{{- fail "gateway.stateClaim and gateway.stateSize are both set: the first is a claim of yours for one gateway, the second makes a claim for each" -}}
{{- end -}}
{{- $publics := dict -}}
{{- range $name, $_ := .Values.engines -}}
{{- $engine := include "modelport.engine" (dict "root" $ "name" $name) | fromYaml -}}
{{- $public := $engine.publicName | default $name -}}
{{- if hasKey $publics $public -}}
{{- fail (printf "engines.%s.publicName: %q is the name of engines.%s already; several engines for one name go into config.models" $name $public (get $publics $public)) -}}
{{- end -}}
{{- $_ := set $publics $public $name -}}
{{- end -}}
{{- end -}}

{{/* Where pods may run; of a gateway and of an engine. */}}
{{- define "modelport.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
