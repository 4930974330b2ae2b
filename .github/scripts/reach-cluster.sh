#!/usr/bin/env bash
# Let the next steps of a job reach the cluster: with the kubeconfig in CLUSTER, or else by what the runner has.
#   CLUSTER=… RUNNER_TEMP=… GITHUB_ENV=… NAMESPACE=fraud reach-cluster.sh
set -euo pipefail

namespace=${NAMESPACE:-fraud}
if [ -n "${CLUSTER:-}" ]; then
  export KUBECONFIG=$RUNNER_TEMP/kubeconfig  # GitHub empties that folder after the job
  install -m 600 /dev/stdin "$KUBECONFIG" <<< "$CLUSTER"
  echo "KUBECONFIG=$KUBECONFIG" >> "$GITHUB_ENV"
elif [ "${RUNNER_ENVIRONMENT:-}" = github-hosted ]; then
  echo "GitHub's runners reach a cluster only with the secret KUBECONFIG of the environment production" >&2
  exit 1
fi
kubectl -n "$namespace" get deployments,cronjobs -o name
