#!/usr/bin/env bash
# Remove what up.sh created: the cluster with everything stored in it, and the images. Docker's build cache stays.
#
# usage: k8s-dev/down.sh                     KIND_CLUSTER as for up.sh
set -euo pipefail

cluster=${KIND_CLUSTER:-fraud-detection}
kind delete cluster --name "$cluster"
for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}'); do
  if [[ $image =~ ^fraud-detection-(api|jobs):"$cluster"-[0-9a-f]{12}$ ]]; then
    docker image rm "$image" >/dev/null
  fi
done
