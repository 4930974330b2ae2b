#!/usr/bin/env bash
# Print true if the images must be built again, because their code differs from the deployed revision.
#   NAMESPACE=fraud RELEASE=fraud code-changed.sh
# deploy.sh stores the revision as an annotation; the clone needs the history back to it.
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}

deployed=$(kubectl -n "$namespace" get deployment -l \
  "app.kubernetes.io/part-of=fraud-detection,app.kubernetes.io/instance=$release,app.kubernetes.io/component=api" \
  -o jsonpath='{.items[*].metadata.annotations.fraud-detection\.io/revision}')
if ! [[ $deployed =~ ^[0-9a-f]{40}$ ]] || ! git cat-file -e "$deployed^{commit}" 2> /dev/null; then
  echo "the deployed revision is not in this clone: ${deployed:-none}" >&2
  echo true
  exit 0
fi

# Paths that .dockerignore lets into the images.
paths=(Dockerfile.api Dockerfile.jobs .dockerignore requirements/api.txt requirements/jobs.txt
  api fraud_detection fraudctl jobs)
if git diff --quiet "$deployed" HEAD -- "${paths[@]}"; then
  echo "no code changed since $deployed" >&2
  echo false
else
  git diff --stat "$deployed" HEAD -- "${paths[@]}" >&2
  echo true
fi
