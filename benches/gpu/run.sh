#!/usr/bin/env bash
# Checks and measures latentd on a machine with a GPU, without network and within minutes:
#   benches/gpu/run.sh LATENTD [PICTURES]
# LATENTD is a binary with the feature cuda. PICTURES is the test program of tests/pictures.rs, built with the same
# feature (`cargo test --features cuda --test pictures --no-run`); LATENTD_PARITY_DIR names its fixtures if they are
# elsewhere. Both need CUDA's libraries in LD_LIBRARY_PATH.
# Has not run on a GPU yet. Without one it measures the CPU, which checks the script.
# Not measured yet: single steps and decodes beside PyTorch, equal bytes in different batches, a GPU without memory.
set -euo pipefail
latentd=$(realpath "$1")
pictures=${2:+$(realpath "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'kill -9 "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
export LATENTD_ENGINE__DEVICES=${LATENTD_ENGINE__DEVICES:-auto} LATENTD_DATA_DIR=$work/data LATENTD_OPERATOR__BIND=127.0.0.1:0
url=http://127.0.0.1:${PORT:-18080}

part() { echo "=== $1 (${SECONDS} s)"; }
serve() {
    "$latentd" serve --bind "${url#http://}" >>"$work/serve.log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        # The embedded model answers once it is loaded.
        curl -sf -o /dev/null -d prompt=x -d steps=1 "$url/v1/images.png" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/serve.log"
    exit 1
}
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }

part "the machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>/dev/null || echo "no nvidia-smi"
"$latentd" devices

part "pictures of diffusers, in float32"
if [ -n "$pictures" ]; then
    timeout 240 "$pictures" --ignored --exact all_pictures_equal_diffusers_on_the_first_gpu --nocapture >"$work/parity.log" 2>&1 \
        && echo passed || { tail -n 40 "$work/parity.log"; echo FAILED; }
    grep -o 'passed, [0-9]* levels' "$work/parity.log" | sort | uniq -c || true
else
    echo "left out: no test program is given"
fi

part "pictures per second of the embedded model, 20 steps, by the number of concurrent requests"
serve
for concurrent in 1 4 16; do
    begun=$(date +%s.%N)
    for ((i = 0; i < 2 * concurrent; i++)); do echo $i; done |
        xargs -P "$concurrent" -I{} curl -sf -o /dev/null -d prompt='a red fox' -d seed={} "$url/v1/images.png"
    python3 -c "import time; print('$concurrent:', round(2 * $concurrent / (time.time() - $begun), 2))"
done

part "kill -9 and resume"
body='{"prompt": "a red fox", "seed": 7, "steps": 400}'
post() { curl -sf -H 'content-type: application/json' -d "$body" "$url/v1/images"; }
ended() {
    for _ in $(seq 1200); do
        state=$(curl -sf "$url/v1/images/$1")
        case $(field '["status"]' <<<"$state") in
        succeeded) field '["images"][0]["sha256"]' <<<"$state" && return ;;
        queued | running) sleep 0.1 ;;
        *) echo "$state" && return 1 ;;
        esac
    done
    echo "not ended after two minutes"
}
undisturbed=$(ended "$(post | field '["id"]')")
id=$(post | field '["id"]')
sleep "${KILL_AFTER_S:-3}"
kill -9 "$server"
serve
resumed=$(ended "$id")
echo "undisturbed $undisturbed"
echo "resumed     $resumed"
[ "$undisturbed" = "$resumed" ] && echo "equal bytes" || echo "OTHER BYTES"
part "end"
