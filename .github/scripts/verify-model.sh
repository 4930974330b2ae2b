#!/usr/bin/env bash
# Fail unless model and reference match the manifest of the version, and that model serves.
#   NAMESPACE=fraud RELEASE=fraud verify-model.sh [DIGEST_BEFORE [OUTCOME]]
# With DIGEST_BEFORE it also prints whether the model changed. After the outcome `promoted` it must have changed. After
# another outcome it may have: a job of the cluster's own schedule can promote a model in the meantime.
set -euo pipefail

namespace=${NAMESPACE:-fraud} release=${RELEASE:-fraud}
before=${1:-} outcome=${2:-}
here=$(dirname "${BASH_SOURCE[0]}")

refuse() {
  echo "refused: $*" >&2
  exit 1
}

served=$("$here/served-model.sh")
deployment=$(kubectl -n "$namespace" get deployment -o name -l \
  "app.kubernetes.io/part-of=fraud-detection,app.kubernetes.io/instance=$release,app.kubernetes.io/component=api")
files=$(kubectl -n "$namespace" exec -i "$deployment" -c api -- python - << 'PYTHON'
import hashlib, json, os, pathlib

current = (pathlib.Path(os.environ["MODEL_PATH"]).parent / "current").resolve()  # once, so that versions cannot mix
described = json.loads((current / "manifest.json").read_text())["files"]
print(current.name)
for name in ("model.onnx", "reference_data.db"):
    found = current / name
    print(described.get(name, {}).get("sha256", "-"))
    print(hashlib.sha256(found.read_bytes()).hexdigest() if found.exists() else "-")
PYTHON
)
mapfile -t lines <<< "$files"
[ "${#lines[@]}" -eq 5 ] || refuse "expected five lines from the pod, got: $files"
version=${lines[0]} model_described=${lines[1]} model=${lines[2]} reference_described=${lines[3]} reference=${lines[4]}

cat << EOT
current version       $version
served before         ${before:-unknown}
serves now            $served
model.onnx            $model
  by its manifest     $model_described
reference_data.db     $reference
  by its manifest     $reference_described
EOT

[ "$model" = "$model_described" ] || refuse "model.onnx of $version differs from its manifest"
[ "$model" = "$served" ] || refuse "the API serves another model than the current version $version"
[ "$reference" != - ] || refuse "version $version has no reference_data.db"
[ "$reference" = "$reference_described" ] || refuse "reference_data.db of $version differs from its manifest"
echo "reference and model match the manifest"

[ -n "$before" ] || exit 0
if [ "$before" = "$served" ]; then
  [ "$outcome" != promoted ] || refuse "retraining promoted a model, but the previous version still serves"
  echo "the model did not change"
else
  echo "the model changed, and its reference with it"
fi
