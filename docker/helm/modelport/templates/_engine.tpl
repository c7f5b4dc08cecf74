{{/* One pod of an engine. Arguments: `root`, `name`, `engine`, `rank`: of a machine among several, as vLLM is told. */}}
{{- define "modelport.enginePod" -}}
{{- $engine := .engine -}}
metadata:
  labels:
    {{- /* Nothing that changes with the chart's version: an engine is not started anew for that. */}}
    {{- include "modelport.engineSelector" . | nindent 4 }}
    modelport/answers: {{ ternary "false" "true" (eq (toString .rank) "worker") | quote }}
    {{- with $engine.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Whose key has changed is started anew.
    checksum/key: {{ printf "%s/%s" .root.Values.auth.apiKey .root.Values.auth.engineKey | sha256sum | trunc 16 | quote }}
    {{- with $engine.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  # A Service named vllm would put VLLM_PORT into the environment, which vLLM takes for its own.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add 30 $engine.drainSeconds }}
  {{- with $engine.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- if $engine.runAsUser }}
    runAsNonRoot: true
    runAsUser: {{ $engine.runAsUser }}
    runAsGroup: {{ $engine.runAsUser }}
    fsGroup: {{ $engine.runAsUser }}
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: vllm
      image: {{ $engine.image | quote }}
      imagePullPolicy: {{ $engine.imagePullPolicy }}
      command: [vllm, serve]
      args:
        - {{ $engine.model | quote }}
        - --served-model-name={{ $engine.publicName | default .name }}
        - --port=8000
        - --shutdown-timeout={{ $engine.drainSeconds }}
        {{- if gt (int $engine.gpus) 1 }}
        - --tensor-parallel-size={{ $engine.gpus }}
        {{- end }}
        {{- if gt (int $engine.nodes) 1 }}
        - --pipeline-parallel-size={{ $engine.nodes }}
        - --nnodes=$(LWS_GROUP_SIZE)
        - --node-rank=$(LWS_WORKER_INDEX)
        - --master-addr=$(LWS_LEADER_ADDRESS)
        {{- if eq (toString .rank) "worker" }}
        - --headless
        {{- end }}
        {{- end }}
        {{- with $engine.args }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      env:
        - name: VLLM_API_KEY
          valueFrom: {secretKeyRef: {name: {{ include "modelport.secret" .root }}, key: VLLM_API_KEY}}
        # Its user has no entry in the image's list of users: programs that ask for a name or a home get these.
        - {name: USER, value: vllm}
        - {name: HOME, value: /cache}
        - {name: HF_HOME, value: /cache/huggingface}
        - {name: XDG_CACHE_HOME, value: /cache}
        - {name: TORCHINDUCTOR_CACHE_DIR, value: /cache/torchinductor}
        {{- with $engine.tokenSecret }}
        - name: HF_TOKEN
          valueFrom: {secretKeyRef: {name: {{ . }}, key: HF_TOKEN}}
        {{- end }}
        {{- with $engine.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $engine.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if ne (toString .rank) "worker" }}
      ports:
        - {name: http, containerPort: 8000}
      startupProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        failureThreshold: {{ max 1 (div $engine.startSeconds 10) }}
      livenessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /health, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      # Longer than the gateway follows a name (10 s): when it stops, nobody sends it anything any more.
      lifecycle:
        preStop: {exec: {command: [sleep, "15"]}}
      {{- end }}
      resources:
        {{- $gpus := dict $engine.gpuResource $engine.gpus }}
        {{- $limits := mustMergeOverwrite (deepCopy ($engine.resources.limits | default dict)) $gpus }}
        requests:
          {{- toYaml ($engine.resources.requests | default dict) | nindent 10 }}
        limits:
          {{- toYaml $limits | nindent 10 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        - {name: cache, mountPath: /cache}
        - {name: tmp, mountPath: /tmp}
        {{- if $engine.modelVolume.claim }}
        - {name: models, mountPath: {{ $engine.modelVolume.path }}, readOnly: true}
        {{- end }}
  volumes:
    # What processes of one engine share; 64 MiB, the default, are too little.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $engine.shm }}}
    - name: cache
      {{- if $engine.cacheClaim }}
      persistentVolumeClaim: {claimName: {{ $engine.cacheClaim }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $engine.cacheSize }}}
      {{- end }}
    - {name: tmp, emptyDir: {}}
    {{- if $engine.modelVolume.claim }}
    - name: models
      persistentVolumeClaim: {claimName: {{ $engine.modelVolume.claim }}, readOnly: true}
    {{- end }}
  {{- include "modelport.scheduling" $engine | nindent 2 }}
{{- end -}}

{{/* The object that an engine's replicas belong to, for whatever scales it. */}}
{{- define "modelport.engineTarget" -}}
{{- if gt (int .engine.nodes) 1 -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end }}
name: {{ include "modelport.engineName" . }}
{{- end -}}
