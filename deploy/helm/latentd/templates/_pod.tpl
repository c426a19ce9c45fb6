{{- define "latentd.labels" -}}
app.kubernetes.io/name: latentd
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "latentd.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "latentd.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "latentd.probes" -}}
startupProbe:
  httpGet: {path: /startupz, port: operator}
  periodSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: operator}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: operator}
  periodSeconds: 5
  timeoutSeconds: 6
  failureThreshold: 2
{{- end }}

{{- define "latentd.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.models.enabled }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "latentd.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if .Values.models.enabled }}
- {name: models, persistentVolumeClaim: {claimName: latentd-models, readOnly: true}}
{{- end }}
{{- end }}

{{- /* The grace period: at least the sleep of preStop, the shutdown timeout and ten seconds. */}}
{{- define "latentd.grace" -}}
{{- $least := add (.preStopSeconds | default 0) .shutdownTimeoutSeconds 10 }}
{{- if lt (int .terminationGracePeriodSeconds) (int $least) }}
{{- fail (printf "the grace period must be at least preStopSeconds + shutdownTimeoutSeconds + 10 = %d" $least) }}
{{- end }}
{{- .terminationGracePeriodSeconds }}
{{- end }}
