#!/usr/bin/env bash
# Run the job of a CronJob now, follow its log, and fail if the job fails.
#   NAMESPACE=fraud RELEASE=fraud run-job.sh detect-drift|retrain|backup [ARGUMENT…]
# The last line on standard output is `outcome=…`: the outcome of the retraining, or `completed`.
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}
component=${1:?usage: run-job.sh detect-drift|retrain|backup [ARGUMENT…]}
shift

say() { echo "$*" >&2; }

ours=app.kubernetes.io/part-of=fraud-detection,app.kubernetes.io/instance=$release
mapfile -t cronjobs < <(kubectl -n "$namespace" get cronjob -o name -l "$ours,app.kubernetes.io/component=$component")
if [ "${#cronjobs[@]}" -ne 1 ]; then
  say "expected one CronJob for $component of release $release in namespace $namespace, found ${#cronjobs[@]}"
  exit 1
fi

job=$component-$(date -u +%Y%m%d-%H%M%S)-$RANDOM
manifest=$(kubectl -n "$namespace" create job "$job" --from="${cronjobs[0]/.batch/}" --dry-run=client -o json)
for argument in "$@"; do
  if ! [[ $argument =~ ^[A-Za-z0-9._=/-]+$ ]]; then
    say "expected arguments of letters, digits and ._=/-"
    exit 2
  fi
  append='[{"op": "add", "path": "/spec/template/spec/containers/0/command/-", "value": "'$argument'"}]'
  manifest=$(kubectl patch --local -f - -o json --type=json -p "$append" <<< "$manifest")
done
kubectl -n "$namespace" create -f - <<< "$manifest" >&2

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# activeDeadlineSeconds stops a job that hangs or whose pod cannot start; this deadline covers a cluster that hangs.
deadline=$((SECONDS + ${TIMEOUT_SECONDS:-4500}))
state='' followed=' '
while [ -z "$state" ]; do
  if [ "$SECONDS" -ge "$deadline" ]; then
    state=timeout
    break
  fi
  # Read before the pods: once the job has ended, no later pod can appear whose log would be missed.
  conditions=$(kubectl -n "$namespace" get job "$job" -o jsonpath='{.status.conditions[?(@.status=="True")].type}')
  pods=$(kubectl -n "$namespace" get pods -l "batch.kubernetes.io/job-name=$job" \
    -o jsonpath='{range .items[*]}{.metadata.name}={.status.phase}{"\n"}{end}')
  for pod in $pods; do
    name=${pod%=*}
    if [ "${pod#*=}" != Pending ] && [[ $followed != *" $name "* ]]; then
      followed+="$name "
      timeout "$((deadline - SECONDS + 1))" kubectl -n "$namespace" logs --follow "$name" | tee -a "$log" ||
        say "the log of $name was interrupted; waiting for the job"
    fi
  done
  case " $conditions " in
    *' Complete '*) state=complete ;;
    *' Failed '*) state=failed ;;
    *) sleep 2 ;;
  esac
done

if [ "$state" != complete ]; then
  say "job $job: $state"
  kubectl -n "$namespace" describe job "$job" >&2
  kubectl -n "$namespace" describe pods -l "batch.kubernetes.io/job-name=$job" >&2
  exit 1
fi
# Lines are JSON, or text that starts with the level. A warning may follow the outcome, for example about the Pushgateway.
words='promoted|skipped|rejected|held_[a-z_]+'
outcome=$(sed -nE "s/^(.*\"message\": \"|[0-9:]+ [A-Z]+ +)($words): .*/\2/p" "$log" | tail -n 1)
echo "outcome=${outcome:-completed}"
