#!/usr/bin/env bash
# Print the digest of the model that serves, and fail unless every ready pod of the API serves the same model.
#   NAMESPACE=fraud RELEASE=fraud served-model.sh
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}

is_ready='{.status.conditions[?(@.type=="Ready")].status}'
pods=$(kubectl -n "$namespace" get pods -l \
  "app.kubernetes.io/part-of=fraud-detection,app.kubernetes.io/instance=$release,app.kubernetes.io/component=api" \
  -o jsonpath="{range .items[*]}{.metadata.name}=$is_ready={.metadata.deletionTimestamp}{'\n'}{end}" |
  sed -n 's/=True=$//p')  # a terminating pod may still be ready
if [ -z "$pods" ]; then
  echo "no pod of the API of release $release in namespace $namespace is ready" >&2
  exit 1
fi

digests=()
for pod in $pods; do
  # The token is read in the pod and never leaves it.
  digest=$(kubectl -n "$namespace" exec -i "$pod" -c api -- python - << 'PYTHON'
import json, os, pathlib, urllib.request

token = pathlib.Path(os.environ["API_TOKEN_FILE"]).read_text().strip()
question = urllib.request.Request(
    f"http://127.0.0.1:{os.environ.get('PORT', '5000')}/model", headers={"Authorization": f"Bearer {token}"}
)
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with direct.open(question, timeout=30) as answer:
    print(json.load(answer)["digest"])
PYTHON
  )
  if ! [[ $digest =~ ^[0-9a-f]{64}$ ]]; then
    echo "$pod: expected a digest, got: $digest" >&2
    exit 1
  fi
  echo "$pod serves $digest" >&2
  digests+=("$digest")
done

served=$(printf '%s\n' "${digests[@]}" | sort -u)
if [ "$(wc -l <<< "$served")" -ne 1 ]; then
  echo "the pods do not serve the same model" >&2
  exit 1
fi
echo "$served"
