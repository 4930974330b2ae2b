#!/usr/bin/env bash
# Takes away what up.sh made: the cluster with all that is stored in it, and the images. Docker's build cache stays.
#
# usage: k8s-dev/down.sh                     KIND_CLUSTER as for up.sh
set -euo pipefail

kind delete cluster --name "${KIND_CLUSTER:-fraud-detection}"
docker image ls --format '{{.Repository}}:{{.Tag}}' \
  | { grep -E '^fraud-detection-(api|jobs):dev-[0-9a-f]{12}$' || true; } \
  | xargs --no-run-if-empty docker image rm >/dev/null
