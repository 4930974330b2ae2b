#!/usr/bin/env bash
# Write the images, by digest, into the values of the chart, so that its package installs the tested images.
#   pin-chart.sh API_IMAGE JOBS_IMAGE      each REGISTRY/NAME@sha256:…
set -euo pipefail

usage='usage: pin-chart.sh API_IMAGE JOBS_IMAGE, each REGISTRY/NAME@sha256:…'
api=${1:?$usage} jobs=${2:?$usage}
chart=$(dirname "${BASH_SOURCE[0]}")/../../charts/fraud-detection

pin() {  # pin api IMAGE: set registry, repository and digest in its section
  local name=${2%@*} digest=${2#*@}
  sed -i "/^  $1:\$/,/^    pullPolicy:/ {
    s|^    registry: .*|    registry: ${name%%/*}|
    s|^    repository: .*|    repository: ${name#*/}|
    s|^    digest: .*|    digest: $digest|
  }" "$chart/values.yaml"
}
pin api "$api"
pin jobs "$jobs"

rendered=$(helm template pinned "$chart" --kube-version 1.34.0 --set auth.existingSecret=any)
for image in "$api" "$jobs"; do
  if ! grep -qxE " +image: \"?$image\"?" <<< "$rendered"; then
    echo "the chart does not name $image" >&2
    exit 1
  fi
done
