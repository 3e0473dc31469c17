{{/* The pod, the same in a StatefulSet and in a Deployment. */}}
{{- define "o365feed.pod" -}}
{{- $settings := include "o365feed.settings" . | fromYaml -}}
metadata:
  labels:
    {{- include "o365feed.labels" . | nindent 4 }}
    {{- if .Values.workloadIdentity.enabled }}
    azure.workload.identity/use: "true"
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Settings are read once, so a change of them restarts the pods.
    checksum/config: {{ .Values.config | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "o365feed.serviceAccount" . }}
  automountServiceAccountToken: false
  # Else the address of each Service of the namespace is in the environment.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: o365feed
      image: {{ include "o365feed.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --config, /etc/o365feed/o365feed.yaml]
      env:
        - name: O365FEED_HTTP__LISTEN
          value: {{ printf "%s:9365" .Values.listenAddress | quote }}
        - name: O365FEED_KAFKA__SLOT
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- if $settings.webhook }}
        - name: O365FEED_WEBHOOK__LISTEN
          value: {{ printf "%s:%d" .Values.listenAddress (int $settings.webhookPort) | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: metrics
          containerPort: 9365
        {{- if $settings.webhook }}
        - name: webhook
          containerPort: {{ $settings.webhookPort }}
        {{- end }}
      livenessProbe:
        httpGet:
          path: /livez
          port: metrics
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet:
          path: /readyz
          port: metrics
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      resources:
        {{- include "o365feed.resources" . | trim | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        # A folder, not a single file by subPath, which would never be renewed.
        - name: config
          mountPath: /etc/o365feed
          readOnly: true
        {{- if .Values.secretFiles }}
        - name: secrets
          mountPath: /run/secrets/o365feed
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "o365feed.fullname" . }}
    {{- with .Values.secretFiles }}
    - name: secrets
      projected:
        # Read by the group, which is fsGroup; root owns the files.
        defaultMode: 0440
        sources:
          {{- toYaml . | nindent 10 }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range .Values.topologySpreadConstraints }}
    - {{ toYaml . | nindent 6 | trim }}
      labelSelector:
        matchLabels:
          {{- include "o365feed.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
