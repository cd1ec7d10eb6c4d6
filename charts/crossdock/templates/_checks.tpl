{{/* Values that are right each by itself, and wrong together. */}}
{{- define "crossdock.checks" -}}
{{- $watched := .Values.operator.watchNamespaces -}}
{{- if and .Values.defaultCluster.enabled $watched (not (has .Release.Namespace $watched)) -}}
{{- fail (printf "nobody would look after the default ShuffleCluster: add %s to operator.watchNamespaces, or set defaultCluster.enabled to false" .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.crds.enabled (not .Values.crds.keep) (eq .Values.uninstall.whenInUse "Leave") -}}
{{- fail "an uninstall would delete the CRDs with what is in use, and nobody would end it: set crds.keep to true, or uninstall.whenInUse to Refuse or Wait" -}}
{{- end -}}
{{- end -}}

{{/* Before an upgrade after which something is looked after no more: a hook that looks whether that
is in use. Only Helm itself sees what is there; for `helm template` nothing was. */}}
{{- define "crossdock.narrowing" -}}
{{- $found := lookup "apps/v1" "Deployment" .Release.Namespace (include "crossdock.operator" .) -}}
{{- if $found -}}
{{- $before := list -}}
{{- range (first $found.spec.template.spec.containers).args -}}
{{- if hasPrefix "--watch=" . -}}{{- $before = append $before (trimPrefix "--watch=" .) -}}{{- end -}}
{{- end -}}
{{- $after := .Values.operator.watchNamespaces -}}
{{- $none := and (int $found.spec.replicas) (not (int .Values.operator.replicas)) -}}
{{- $fewer := and $after (not $before) -}}
{{- range $before -}}
{{- if and $after (not (has . $after)) -}}{{- $fewer = true -}}{{- end -}}
{{- end -}}
{{- /* With a namespace that is gone go the role by which the hook looks there, and what was in it. */ -}}
{{- $there := list -}}
{{- if or $none $fewer -}}
{{- range $before -}}{{- if lookup "v1" "Namespace" "" . -}}{{- $there = append $there . -}}{{- end -}}{{- end -}}
{{- end -}}
{{- if and (or $none $fewer) (or $there (not $before)) }}
{{- $args := list "narrow" (printf "--when-in-use=%s" .Values.uninstall.whenInUse) (printf "--timeout-seconds=%v" .Values.uninstall.timeoutSeconds) }}
{{- range $there }}{{ $args = append $args (printf "--before=%s" .) }}{{ end }}
{{- if not $none }}{{ range $after }}{{ $args = append $args (printf "--after=%s" .) }}{{ end }}{{ end }}
---
{{ include "crossdock.hook" (dict "context" . "name" "narrow" "hook" "pre-upgrade" "seconds" (add 60 .Values.uninstall.timeoutSeconds) "args" $args) }}
{{- end -}}
{{- end -}}
{{- end -}}
