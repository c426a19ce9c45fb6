#!/usr/bin/env bash
# Builds the programs of benches/gpu/run.sh with the toolkit of .ci/cuda-toolkit, as small as possible, so that they can
# be carried to a machine with a GPU:
#   benches/gpu/pack.sh FOLDER
# Removes debug information, sets the weights of the embedded models to zero (run.sh does not use them), and compresses.
# Needs a finished `make check-cuda`. With PACK_FEATURES= it packs programs for the CPU, which check the script.
set -euo pipefail
mkdir -p "$1"
folder=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
features=${PACK_FEATURES-cuda}
if [ -n "$features" ]; then
    eval "$(.ci/check-cuda environment)"
fi
${CARGO:-cargo} build --locked --features "$features" -j "${JOBS:-$(nproc)}" --bin latentd --bench contender \
    --test pictures --message-format json-render-diagnostics |
    python3 -c '
import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable"):
        print(built["target"]["name"], built["executable"])
' | while read -r name program; do
    strip -o "$folder/$name" "$program"
    python3 - "$folder/$name" <<'PYTHON'
import pathlib, struct, sys

program = pathlib.Path(sys.argv[1])
content = bytearray(program.read_bytes())
for weights in pathlib.Path("models").glob("**/*.safetensors"):
    whole = weights.read_bytes()
    at = content.find(whole)
    if at >= 0:
        # The header stays, so that the model can still be loaded.
        data = 8 + struct.unpack("<Q", whole[:8])[0]
        content[at + data : at + len(whole)] = bytes(len(whole) - data)
program.write_bytes(content)
PYTHON
    gzip -9nf "$folder/$name"
done
ls -l "$folder"
