#!/usr/bin/env bash
# Create a kind cluster with images, Prometheus, Grafana and our chart, and score a transaction in it.
#
# usage: k8s-dev/up.sh [HELM OPTION]...      the options go to `helm upgrade --install` of our chart
#
# You can run it again at any time: it deploys what has changed. Variables, with their defaults:
#   KIND_CLUSTER     name of the cluster (fraud-detection)
#   KIND_CONFIG      kind's configuration, from the project's folder (k8s-dev/kind.yaml; k8s-dev/kind-three-nodes.yaml has two workers)
#   KIND_NODE_IMAGE  image of the nodes, which sets the version of Kubernetes (kind's default)
#   PYTHON_IMAGE     base image of our images (as in the Dockerfiles)
#   E2E_MONITORING   `installed`: use an existing Prometheus; `none`: use none (it installs kube-prometheus-stack)
#   HELM             command of Helm (helm)
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=${KIND_CLUSTER:-fraud-detection}
context=kind-$cluster
namespace=fraud
release=fraud-detection
kps_version=88.1.3
say() { printf '\n== %s\n' "$*" >&2; }
helm() { command "${HELM:-helm}" --kube-context "$context" "$@"; }
kubectl() { command kubectl --context "$context" "$@"; }

for program in docker kind kubectl "${HELM:-helm}"; do
  command -v "$program" >/dev/null || {
    echo "$program is not installed. Docker: https://docs.docker.com/engine/install, kind: https://kind.sigs.k8s.io," \
      "kubectl: https://kubernetes.io/docs/tasks/tools, Helm: https://helm.sh/docs/intro/install" >&2
    exit 2
  }
done
docker info >/dev/null 2>&1 || {
  echo "Docker does not answer: start it, or join the group that may use it. docker info shows the cause." >&2
  exit 2
}

case $(docker info --format '{{.Architecture}}') in
  x86_64 | amd64) ;;
  *) echo "Docker does not run on amd64, and pysqlite3 has a wheel for no other machine: our images cannot be built" >&2 && exit 2 ;;
esac

if kind get clusters 2>/dev/null | grep -xF "$cluster" >/dev/null; then
  say "cluster $cluster already exists"
  kind export kubeconfig --name "$cluster" 2>/dev/null # kubectl may point to another cluster
else
  say "creating cluster $cluster"
  kind create cluster --name "$cluster" --config "${KIND_CONFIG:-k8s-dev/kind.yaml}" --wait 180s \
    ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
fi

kubectl wait nodes --all --for=condition=Ready --timeout=180s >/dev/null || {
  echo "cluster $cluster does not work: its nodes are not ready. Remove it (make kind-down) and run this again." >&2
  exit 1
}

# A tag from the image's content, so that only a changed image is rolled out.
build() { # build api|jobs: build the image and print its tag; in $(…) bash would continue after a failure
  local id
  id=$(BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --quiet --file "Dockerfile.$1" \
    ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} .) || return # kind cannot load an image with attestations
  id=${id#sha256:}
  docker tag "$id" "fraud-detection-$1:$cluster-${id:0:12}" || return
  echo "$cluster-${id:0:12}"
}
say "building both images (minutes, the first time)"
jobs_tag=$(build jobs)
api_tag=$(build api)

monitor() {
  case ${E2E_MONITORING:-} in
    installed) say "using the Prometheus that is installed" && return ;;
    none) say "using no Prometheus, because E2E_MONITORING=none" && return ;;
    '') ;;
    *) echo "E2E_MONITORING: expected installed, none or empty, got $E2E_MONITORING" >&2 && exit 2 ;;
  esac
  local folder
  folder=$(mktemp -d)
  say "downloading kube-prometheus-stack $kps_version"
  if ! helm pull oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack --version "$kps_version" \
    --destination "$folder"; then
    say "SKIPPED: kube-prometheus-stack cannot be downloaded, so there are no alerts and no dashboards. The API works." \
      "Try again when ghcr.io can be reached, or set E2E_MONITORING=installed if you have another Prometheus."
    rm -r "$folder"
    return
  fi
  say "installing kube-prometheus-stack"
  helm upgrade --install kube-prometheus-stack "$folder"/kube-prometheus-stack-*.tgz --namespace monitoring \
    --create-namespace --values k8s-dev/kps-values.yaml --wait --timeout 8m >/dev/null
  rm -r "$folder"
}
monitor

ours=(--values k8s-dev/values.yaml --set "image.api.tag=$api_tag" --set "image.jobs.tag=$jobs_tag" "$@")
version=$(kubectl get --raw /version | sed -n 's/.*"gitVersion": "\(v[0-9.]*\).*/\1/p')
images=$(helm template "$release" charts/fraud-detection --kube-version "$version" "${ours[@]}" |
  sed -n 's/^ *image: //p' | sort -u)
say "loading the images that Docker has"
for image in $images; do
  if docker image inspect "$image" >/dev/null 2>&1; then
    kind load docker-image --name "$cluster" "$image" || case $image in
      fraud-detection-*) exit 1 ;;
      *) say "kind cannot load $image from this Docker, so the nodes pull it" ;;
    esac
  fi
done

say "installing our chart as release $release into namespace $namespace"
kubectl apply -f - <<EOF
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    pod-security.kubernetes.io/enforce: restricted
EOF
helm upgrade --install "$release" charts/fraud-detection --namespace "$namespace" "${ours[@]}" --wait --timeout 5m >/dev/null

say "scoring a transaction, and reading the stored decision"
kubectl --namespace "$namespace" exec --stdin "deployment/$release-api" -- python - <<'EOF'
import json, os, pathlib, urllib.request

token = pathlib.Path(os.environ["API_TOKEN_FILE"]).read_text().strip()
request = urllib.request.Request(
    "http://127.0.0.1:5000/predict",
    json.dumps({"data": [[0.0] * 29], "transaction_ids": ["first"]}).encode(),
    {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
)
print(urllib.request.urlopen(request).read().decode())
EOF
kubectl --namespace "$namespace" exec "deployment/$release-api" -- sqlite3 /app/data/requests.db \
  "SELECT ts, transaction_id, fraud_probability, model_version FROM requests ORDER BY ts DESC LIMIT 1;"

cat <<EOF

Ready. Run each of these in a separate terminal, until Ctrl-C:

  kubectl --context $context -n $namespace port-forward service/$release-api 5000
    the API, documented at http://127.0.0.1:5000/docs; its token:
    kubectl --context $context -n $namespace get secret $release-auth -o go-template='{{index .data "api-token" | base64decode}}'
EOF
if kubectl --namespace monitoring get service kube-prometheus-stack-grafana >/dev/null 2>&1; then
  cat <<EOF

  kubectl --context $context -n monitoring port-forward service/kube-prometheus-stack-grafana 3000:80
    the dashboards: http://127.0.0.1:3000/d/fraud-detection-service (user admin); the password:
    kubectl --context $context -n monitoring get secret kube-prometheus-stack-grafana -o go-template='{{index .data "admin-password" | base64decode}}'
EOF
fi
if kubectl --namespace monitoring get service prometheus-operated >/dev/null 2>&1; then
  cat <<EOF

  kubectl --context $context -n monitoring port-forward service/prometheus-operated 9090
metrics and alerts: http://127.0.0.1:9090/alerts
EOF
fi
cat <<EOF

To run the end-to-end tests: make e2e. To remove everything: make kind-down.
EOF
