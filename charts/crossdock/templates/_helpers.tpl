{{- define "crossdock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "crossdock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "crossdock.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "crossdock.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "crossdock.operator" -}}
{{- include "crossdock.fullname" . }}-operator
{{- end -}}

{{- define "crossdock.selector" -}}
app.kubernetes.io/name: {{ include "crossdock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "crossdock.labels" -}}
app.kubernetes.io/name: {{ include "crossdock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: crossdock
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with omit .Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/part-of" "app.kubernetes.io/component" "helm.sh/chart" }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Annotations of an object, as a field: commonAnnotations, and those of a dict of context and own. */}}
{{- define "crossdock.annotations" -}}
{{- with merge (dict) (default dict .own) .context.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of the hooks' and the test's pods: a dict of context and component. */}}
{{- define "crossdock.hookLabels" -}}
{{- $own := fromYaml (include "crossdock.labels" .context) -}}
{{- toYaml (merge (dict "app.kubernetes.io/component" .component) $own .context.Values.hooks.podLabels) }}
{{- end -}}

{{- define "crossdock.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- with default (default dict .Values.global).imageRegistry $image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "crossdock.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "crossdock.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: name one by serviceAccount.name" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "crossdock.hooksAccount" -}}
{{- if .Values.hooks.serviceAccount.create -}}
{{- default (printf "%s-hooks" (include "crossdock.fullname" .)) .Values.hooks.serviceAccount.name -}}
{{- else -}}
{{- required "hooks.serviceAccount.create is false: name one by hooks.serviceAccount.name" .Values.hooks.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The rules for each namespace that is looked after: as the operator's rbac.py has them. */}}
{{- define "crossdock.looksAfter" -}}
{{ .Files.Get "files/roles/looked-after.yaml" }}
{{- range .Values.operator.scalableKinds }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource | quote }}]
  verbs: [get]
- apiGroups: [{{ .group | quote }}]
  resources: [{{ printf "%s/scale" .resource | quote }}]
  verbs: [get, patch]
{{- end }}
{{- range .Values.operator.ownerKinds }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource | quote }}]
  verbs: [list]
{{- end }}
{{- end -}}

{{/* Options of the operator for the same kinds. */}}
{{- define "crossdock.kindArgs" -}}
{{- range .Values.operator.scalableKinds }}
- --scalable={{ .group }}/{{ .version }}/{{ .kind }}={{ .resource }}
{{- end }}
{{- range .Values.operator.ownerKinds }}
- --owner-kinds={{ .kind }}{{ with .group }}.{{ . }}{{ end }}={{ .resource }}
{{- end }}
{{- end -}}

{{/* Where the hooks look, and how they are told: all namespaces, or those that are looked after. */}}
{{- define "crossdock.watchArgs" -}}
{{- range .Values.operator.watchNamespaces }}
- --watch={{ . }}
{{- end }}
{{- end -}}

{{- define "crossdock.crdMetadata" }}  labels:
{{ include "crossdock.labels" . | indent 4 }}
{{- include "crossdock.annotations" (dict "context" . "own" (ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep)) | nindent 2 }}
{{ end -}}

{{/* The name of what belongs to no namespace: two releases may be called alike. */}}
{{- define "crossdock.everywhere" -}}
{{- printf "%s-%s" .Release.Namespace (include "crossdock.operator" .) -}}
{{- end -}}

{{/* Binds a role to the operator's account: a dict of context, kind, name,
namespace if it has one, and account if it is another one. */}}
{{- define "crossdock.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "crossdock.labels" .context | nindent 4 }}
  {{- include "crossdock.annotations" (dict "context" .context) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ default (include "crossdock.serviceAccount" .context) .account }}
  namespace: {{ .context.Release.Namespace }}
{{- end -}}

{{/* A Job that Helm waits for: a dict of context, name, hook, args, and seconds after which it has failed. */}}
{{- define "crossdock.hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "crossdock.fullname" .context }}-{{ .name }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "crossdock.labels" .context | nindent 4 }}
  {{- /* One that failed stays, so that its logs can be read. */}}
  {{- $own := dict "helm.sh/hook" .hook "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" "helm.sh/hook-output-log-policy" "hook-failed" }}
  {{- include "crossdock.annotations" (dict "context" .context "own" $own) | nindent 2 }}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: {{ .seconds }}
  template:
    metadata:
      labels:
        {{- include "crossdock.hookLabels" (dict "context" .context "component" .name) | nindent 8 }}
      {{- include "crossdock.annotations" (dict "context" .context "own" .context.Values.hooks.podAnnotations) | nindent 6 }}
    spec:
      restartPolicy: Never
      {{- include "crossdock.hookPod" (dict "context" .context "args" (prepend .args "release")) | nindent 6 }}
{{- end -}}

{{- define "crossdock.hookPod" -}}
serviceAccountName: {{ include "crossdock.hooksAccount" .context }}
{{- with .context.Values.hooks.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .context.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .context.Values.podSecurityContext | nindent 2 }}
containers:
- name: release
  image: {{ include "crossdock.image" .context }}
  imagePullPolicy: {{ .context.Values.image.pullPolicy }}
  args: {{ toJson .args }}
  # What stops an uninstall is in the pod's status, too.
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    requests: {cpu: 50m, memory: 128Mi}
    limits: {memory: 256Mi}
  securityContext:
    {{- toYaml .context.Values.containerSecurityContext | nindent 4 }}
{{- with .context.Values.operator.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .context.Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .context.Values.hooks.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
