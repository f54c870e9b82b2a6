{{/* Labels of an object: the chart's, and over them those given. */}}
{{- define "nodelocaldns.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version -}}
{{- $own := dict "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/version" .root.Chart.AppVersion "helm.sh/chart" $chart -}}
{{ toYaml (mergeOverwrite $own (deepCopy (.more | default dict))) }}
{{- end }}

{{/* What the schema cannot say of the values. */}}
{{- define "nodelocaldns.check" -}}
{{- if ne .Release.Namespace .Values.clusterDNS.namespace -}}
{{- fail (printf "Please install this chart in the namespace of cluster DNS, %s (helm … --namespace %s), or set clusterDNS.namespace: the upstream Service must be where its pods are" .Values.clusterDNS.namespace .Values.clusterDNS.namespace) -}}
{{- end -}}
{{- $fallback := list -}}
{{- if not (has .Values.fallback (list "auto" "none")) -}}
{{- $fallback = splitList "," .Values.fallback -}}
{{- end -}}
{{- $served := concat .Values.addresses.local (.Values.addresses.cluster | default list) -}}
{{- $upstream := .Values.upstreamService.clusterIPs | default list -}}
{{- range list .Values.addresses.local (.Values.addresses.cluster | default list) $upstream -}}
{{- if and (eq (len .) 2) (eq (contains ":" (first .)) (contains ":" (last .))) -}}
{{- fail (printf "Please give one address of each family, IPv4 and IPv6: %s are both of one" (join ", " .)) -}}
{{- end -}}
{{- end -}}
{{- range concat $upstream $fallback -}}
{{- if has . $served -}}
{{- fail (printf "Please give %s once: a cache that serves an address cannot ask cluster DNS there (addresses, upstreamService.clusterIPs, fallback)" .) -}}
{{- end -}}
{{- end -}}
{{- if ne (len $served) (len (uniq $served)) -}}
{{- fail (printf "Please give each address once: addresses.local and addresses.cluster have the same in %s" (join ", " $served)) -}}
{{- end -}}
{{- if .Values.upstreamService.create -}}
{{- range list .Values.nameOverride .Values.clusterDNS.service -}}
{{- if eq . $.Values.upstreamService.name -}}
{{- fail (printf "Please give upstreamService.name another name than %s, which another Service has (nameOverride, clusterDNS.service)" .) -}}
{{- end -}}
{{- end -}}
{{- $pod := fromYaml (include "nodelocaldns.podLabels" .) -}}
{{- if deepEqual $pod (merge (deepCopy .Values.clusterDNS.selector) $pod) -}}
{{- fail "Please give the pods other labels (selectorLabels, podLabels) than those of cluster DNS (clusterDNS.selector): the caches would ask themselves" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Labels of a pod: those by which it is found, whatever else it is given. */}}
{{- define "nodelocaldns.podLabels" -}}
{{ toYaml (mergeOverwrite dict (.Values.podLabels | default dict) .Values.selectorLabels) }}
{{- end }}

{{/* A number as it was written: of a file Helm reads numbers as floats, and writes large ones with an exponent. */}}
{{- define "nodelocaldns.number" -}}
{{ if kindIs "string" . }}{{ . | quote }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{- define "nodelocaldns.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The ClusterIPs of cluster DNS, comma-separated. */}}
{{- define "nodelocaldns.clusterIPs" -}}
{{- $addresses := .Values.addresses.cluster -}}
{{- if not $addresses -}}
{{- $service := lookup "v1" "Service" .Release.Namespace .Values.clusterDNS.service -}}
{{- $addresses = (($service).spec).clusterIPs -}}
{{- end -}}
{{- if not $addresses -}}
{{- fail (printf "Please set addresses.cluster to the ClusterIPs of the Service of cluster DNS: there is no Service %s/%s to be seen here. kubectl get service -A shows it" .Release.Namespace .Values.clusterDNS.service) -}}
{{- end -}}
{{ join "," $addresses }}
{{- end }}

{{/* What -localip says. */}}
{{- define "nodelocaldns.localip" -}}
{{- $local := join "," .Values.addresses.local -}}
{{- if eq .Values.mode "clusterIP" -}}
{{ $local }},{{ include "nodelocaldns.clusterIPs" . }}
{{- else if eq .Values.mode "linkLocal" -}}
{{ $local }}
{{- else if eq .Values.mode "redirect" -}}
$(POD_IPS)
{{- else -}}
$(HOST_IP)
{{- end -}}
{{- end }}

{{/* Whether the cache has an interface and rules of its own on the node. */}}
{{- define "nodelocaldns.intercepts" -}}
{{- if or (eq .Values.mode "clusterIP") (eq .Values.mode "linkLocal") }}yes{{ end -}}
{{- end }}

{{/* Where kubelet's probes ask, as an HTTP server names it. */}}
{{- define "nodelocaldns.healthAddress" -}}
{{- if include "nodelocaldns.intercepts" . -}}
{{- $address := first .Values.addresses.local -}}
{{ if contains ":" $address }}[{{ $address }}]{{ else }}{{ $address }}{{ end }}
{{- end -}}
{{- end }}

{{/* What --fallback says; nothing where the program finds it. */}}
{{- define "nodelocaldns.fallback" -}}
{{- if ne .Values.fallback "auto" -}}
{{ .Values.fallback }}
{{- else if gt (len (.Values.upstreamService.clusterIPs | default list)) 1 -}}
{{ join "," .Values.upstreamService.clusterIPs }}
{{- end -}}
{{- end }}

{{- define "nodelocaldns.probe" -}}
httpGet:
  {{- if include "nodelocaldns.intercepts" . }}
  host: {{ first .Values.addresses.local | quote }}
  {{- end }}
  path: /health
  port: 8080
{{- end }}

{{/* The block of a zone: zone, cache (lines of the block `cache`), forward (lines of the block's end), health. */}}
{{- define "nodelocaldns.block" -}}
{{- $corefile := .root.Values.corefile -}}
{{ .zone }}:53 {
    errors
    {{- if $corefile.log }}
    log
    {{- end }}
    {{- $lines := list }}
    {{- if .isCluster }}
    {{- $lines = list (printf "success %s" $corefile.clusterSuccess) (printf "denial %s" $corefile.clusterDenial) }}
    {{- end }}
    {{- with $corefile.serveStale }}
    {{- $lines = append $lines (printf "serve_stale %s" .) }}
    {{- end }}
    {{- with $corefile.prefetch }}
    {{- $lines = append $lines (printf "prefetch %s" .) }}
    {{- end }}
    cache{{ if not .isCluster }} {{ int64 $corefile.cacheSeconds }}{{ end }}{{ with $lines }} {
    {{- range . }}
        {{ . }}
    {{- end }}
    }
    {{- end }}
    reload
    loop
    bind __PILLAR__LOCAL__DNS__
    forward . {{ .to }}{{ with .options }} {
    {{- range . }}
        {{ . }}
    {{- end }}
    }
    {{- end }}
    prometheus :9253
    {{- if .isCluster }}
    health {{ include "nodelocaldns.healthAddress" .root }}:8080
    {{- end }}
    {{- range $corefile.everywhere }}
    {{ . }}
    {{- end }}
    {{- if $corefile.customConfigMap }}
    import /etc/custom/*.override
    {{- end }}
}
{{- end }}

{{- define "nodelocaldns.corefile" -}}
{{- $corefile := .Values.corefile -}}
{{- if $corefile.whole -}}
{{ trim $corefile.whole }}
{{- else -}}
{{- $cluster := dict "root" . "to" "__PILLAR__CLUSTER__DNS__" "options" (list "force_tcp") -}}
{{ include "nodelocaldns.block" (merge (dict "zone" .Values.clusterDomain "isCluster" true) $cluster) }}
{{- range list "in-addr.arpa" "ip6.arpa" }}
{{ include "nodelocaldns.block" (merge (dict "zone" .) $cluster) }}
{{- end }}
{{- range $zone, $servers := $corefile.stubZones }}
{{ include "nodelocaldns.block" (dict "root" $ "zone" $zone "to" (join " " $servers)) }}
{{- end }}
{{- $upstreams := join " " $corefile.upstreams | default "__PILLAR__UPSTREAM__SERVERS__" }}
{{ include "nodelocaldns.block" (dict "root" . "zone" "." "to" $upstreams "options" $corefile.upstreamOptions) }}
{{- if $corefile.customConfigMap }}
import /etc/custom/*.server
{{- end }}
{{- with $corefile.extraBlocks }}
{{ trim . }}
{{- end }}
{{- end }}
{{- end }}
