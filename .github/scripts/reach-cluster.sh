#!/usr/bin/env bash
# Connect the next steps of a job to the cluster: with the kubeconfig in CLUSTER, otherwise with the runner's own.
#   CLUSTER=… RUNNER_TEMP=… GITHUB_ENV=… NAMESPACE=fraud reach-cluster.sh
set -euo pipefail

namespace=${NAMESPACE:-fraud}
if [ -n "${CLUSTER:-}" ]; then
  export KUBECONFIG=$RUNNER_TEMP/kubeconfig  # GitHub empties that folder after the job
  install -m 600 /dev/stdin "$KUBECONFIG" <<< "$CLUSTER"
  echo "KUBECONFIG=$KUBECONFIG" >> "$GITHUB_ENV"
elif [ "${RUNNER_ENVIRONMENT:-}" = github-hosted ]; then
  echo "A runner of GitHub needs the secret KUBECONFIG of the environment production to reach a cluster" >&2
  exit 1
fi
kubectl -n "$namespace" get deployments,cronjobs -o name
