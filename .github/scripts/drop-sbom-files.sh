#!/usr/bin/env bash
# Remove the entries of single files from an SPDX document, and keep its packages.
# usage: drop-sbom-files.sh FILE
# `actions/attest` rejects a document above 16 MiB, and the files of the jobs' packages alone can exceed that.
set -euo pipefail
file=$1
limit=14000000

jq '
  (reduce .files[]?.SPDXID as $id ({}; .[$id] = true)) as $of_a_file
  | del(.files)
  | .relationships |= map(select(($of_a_file[.spdxElementId] or $of_a_file[.relatedSpdxElement]) | not))
  | .packages |= map(
      if .filesAnalyzed then del(.packageVerificationCode, .licenseInfoFromFiles, .hasFiles) + {filesAnalyzed: false}
      else . end)
' "$file" > "$file.slim"
mv "$file.slim" "$file"

size=$(wc -c < "$file")
if [ "$size" -gt "$limit" ]; then
  echo "$file has $size bytes without its files, more than $limit: it has too many packages to attest" >&2
  exit 1
fi
echo "$file: $size bytes"
