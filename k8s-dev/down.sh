#!/usr/bin/env bash
# Takes away what up.sh made: the cluster with all that is stored in it, and the images. Docker's build cache stays.
#
# usage: k8s-dev/down.sh                     KIND_CLUSTER as for up.sh
set -euo pipefail

kind delete cluster --name "${KIND_CLUSTER:-fraud-detection}"
for image in $(docker image ls --format '{{.Repository}}:{{.Tag}}'); do
  case $image in
    fraud-detection-api:dev-* | fraud-detection-jobs:dev-*) docker image rm "$image" >/dev/null ;;
  esac
done
