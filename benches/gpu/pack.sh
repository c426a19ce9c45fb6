#!/usr/bin/env bash
# Builds the programs of benches/gpu/run.sh with the toolkit of .ci/cuda-toolkit, without debug information and compressed:
#   benches/gpu/pack.sh FOLDER
# Needs a finished `make check-cuda`. With PACK_FEATURES= it packs programs for the CPU, which check the script.
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
features=${PACK_FEATURES-cuda}
if [ -n "$features" ]; then
    # shellcheck disable=SC1091
    eval "$(.ci/check-cuda environment)"
fi
cargo build --locked --features "$features" -j "${JOBS:-$(nproc)}" --bin latentd --bench contender --test pictures \
    --message-format json-render-diagnostics |
    python3 -c '
import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable"):
        print(built["target"]["name"], built["executable"])
' | while read -r name program; do
    strip -o "$folder/$name" "$program"
    gzip -9nf "$folder/$name"
done
ls -l "$folder"
