#!/usr/bin/env bash
# Fail unless the rollout is complete: every pod of the API runs the image that the release names, and one model serves.
#   NAMESPACE=fraud RELEASE=fraud [API_IMAGE=NAME@sha256:… JOBS_IMAGE=NAME@sha256:…] verify-rollout.sh
# With images, the release must name exactly those. An image with a digest is compared with the running one.
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}
ours=app.kubernetes.io/part-of=fraud-detection,app.kubernetes.io/instance=$release
here=$(dirname "${BASH_SOURCE[0]}")

refuse() {
  echo "refused: $*" >&2
  exit 1
}

deployment=$(kubectl -n "$namespace" get deployment -o name -l "$ours,app.kubernetes.io/component=api")
[ -n "$deployment" ] || refuse "release $release has no API in namespace $namespace"
kubectl -n "$namespace" rollout status "$deployment" --timeout=10m >&2

named=$(kubectl -n "$namespace" get "$deployment" \
  -o jsonpath='{.spec.template.spec.containers[?(@.name=="api")].image}')
[ -z "${API_IMAGE:-}" ] || [ "$named" = "$API_IMAGE" ] || refuse "the release names $named, expected $API_IMAGE"
if [ -n "${JOBS_IMAGE:-}" ]; then
  jobs=$(kubectl -n "$namespace" get cronjobs -l "$ours" \
    -o jsonpath='{range .items[*]}{.spec.jobTemplate.spec.template.spec.containers[0].image}{"\n"}{end}' | sort -u)
  [ "$jobs" = "$JOBS_IMAGE" ] || refuse "the CronJobs name ${jobs:-no image}, expected $JOBS_IMAGE"
fi

runs='{.status.containerStatuses[?(@.name=="api")].imageID}'
running=$(kubectl -n "$namespace" get pods -l "$ours,app.kubernetes.io/component=api" \
  -o jsonpath="{range .items[*]}{.metadata.deletionTimestamp}=$runs{'\n'}{end}" |
  sed -n 's/^=//p' | sort -u)  # a terminating pod may still run the old image
echo "named   $named"
echo "running ${running:-nothing}"
[ -n "$running" ] || refuse "no API pod is running"
[ "$(wc -l <<< "$running")" -eq 1 ] || refuse "the pods do not run the same image"
case $named in
  *@sha256:*) [ "${running##*@}" = "${named##*@}" ] || refuse "the pods run another image than the release names" ;;
  *) echo "the release names no digest, so only its pods were compared with each other" ;;
esac

echo "serves  $("$here/served-model.sh")"
