#!/usr/bin/env bash
# Install or upgrade the release from this checkout's chart, with images by digest, and wait until it runs.
#   NAMESPACE=fraud RELEASE=fraud [API_IMAGE=NAME@sha256:… JOBS_IMAGE=NAME@sha256:… REVISION=COMMIT] \
#     deploy.sh [ARGUMENT OF HELM…]
# Without images the release keeps its own. The namespace must exist.
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The release keeps its values, and values that are new in this chart get their defaults, unlike with --reuse-values.
arguments=(--namespace "$namespace" --reset-then-reuse-values --wait --timeout 10m)

image() {  # image api NAME@sha256:…: add the values that name it
  if ! [[ $2 =~ ^[a-z0-9.:-]+/[a-z0-9._/-]+@sha256:[0-9a-f]{64}$ ]]; then
    echo "expected REGISTRY/NAME@sha256:… for the image of $1, got: $2" >&2
    exit 2
  fi
  local name=${2%@*}
  arguments+=(--set-string "image.$1.registry=${name%%/*}" --set-string "image.$1.repository=${name#*/}"
    --set-string "image.$1.digest=${2#*@}")
}
if [ -n "${API_IMAGE:-}" ] || [ -n "${JOBS_IMAGE:-}" ]; then
  image api "${API_IMAGE:?both images come from one commit}"
  image jobs "${JOBS_IMAGE:?both images come from one commit}"
  # Only with new images, because it names the commit that they were built from.
  arguments+=(--set-string "commonAnnotations.fraud-detection\.io/revision=${REVISION:?the commit of the images}")
fi

# Helm rolls a failed upgrade back, and keeps a failed first installation so that you can inspect it.
if helm status "$release" --namespace "$namespace" > /dev/null 2>&1; then
  case $(helm version --short) in
    v3.*) arguments+=(--atomic) ;;
    *) arguments+=(--rollback-on-failure) ;;
  esac
fi
helm upgrade --install "$release" charts/fraud-detection "${arguments[@]}" "$@"
