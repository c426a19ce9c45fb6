#!/usr/bin/env bash
# Checks and measures latentd on a machine with a GPU, without network and within eight minutes:
#   benches/gpu/run.sh FOLDER
# FOLDER has the programs that benches/gpu/pack.sh makes: latentd.gz, contender.gz and pictures.gz. LATENTD_PARITY_DIR
# names the fixtures if they are not in tests/fixtures/parity. SECONDS_LEFT bounds the whole run (default 470). Weights of
# 9 GB are made in TMPDIR. CUDA's libraries are taken from LD_LIBRARY_PATH, or from the packages that PyTorch installs.
# Without a GPU, the script computes tiny sizes on the CPU, which checks the script and measures nothing.
set -euo pipefail
programs=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'kill -9 "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
export CARGO_MANIFEST_DIR=$PWD
deadline=${SECONDS_LEFT:-470}

for program in latentd contender pictures; do
    [ -e "$programs/$program.gz" ] && gzip -dc "$programs/$program.gz" >"$work/$program" && chmod +x "$work/$program"
done
latentd=$work/latentd
if ldd "$latentd" | grep 'not found' >/dev/null; then
    libraries=$(python3 -c '
import importlib.util, pathlib
nvidia = importlib.util.find_spec("nvidia")
roots = nvidia.submodule_search_locations if nvidia else []
print(":".join(str(folder) for root in roots for folder in pathlib.Path(root).glob("*/lib")))')
    export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
    ldd "$latentd" | grep 'not found' && exit 1
fi

part() { printf '\n=== %s (%s s)\n' "$1" "$SECONDS"; }
# Runs a part for at most so many seconds, and never beyond the deadline.
bounded() {
    local most=$1 left=$((deadline - SECONDS))
    shift
    [ "$left" -lt 15 ] && echo "left out: no time" && return
    timeout -k 5 "$((most < left ? most : left))" "$@" || echo "ENDED WITH $?"
}

part "the machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>/dev/null || echo "no nvidia-smi"
"$latentd" devices
if "$latentd" devices | grep '^cuda:0' >/dev/null; then
    export COMPARE_DEVICE=cuda:0
else
    echo "NO GPU: this only checks the script"
fi

pictures_like_diffusers() {
    bounded "$2" "$work/pictures" --ignored --exact "$1" --nocapture >"$work/parity.log" 2>&1
    tail -n "${LINES_OF_PARITY:-30}" "$work/parity.log"
    echo "cases by difference in levels:"
    grep -o 'passed, [0-9]* levels' "$work/parity.log" | sort | uniq -c || true
}
if [ -n "${COMPARE_DEVICE:-}" ] && [ -e "$work/pictures" ]; then
    part "pictures of diffusers, in float32"
    pictures_like_diffusers all_pictures_equal_diffusers_on_the_first_gpu 90
    part "pictures of diffusers, in float16"
    pictures_like_diffusers pictures_in_float16_are_close_to_diffusers_on_the_first_gpu 30
else
    part "pictures of diffusers: left out, because there is no GPU or no program pictures.gz"
fi

part "steps and decodes beside PyTorch"
bounded 190 python3 benches/gpu/steps.py "$work/contender" --folder "$work" --seconds 180
part "pictures per second, bytes in different batches"
bounded 80 python3 benches/gpu/pictures.py "$latentd" --folder "$work" --seconds 70
part "a GPU whose memory runs out"
bounded 90 python3 benches/gpu/full.py "$latentd" --folder "$work" --seconds 80

part "kill -9 and resume"
export LATENTD_ENGINE__DEVICES=${COMPARE_DEVICE:-cpu} LATENTD_DATA_DIR=$work/data LATENTD_OPERATOR__BIND=127.0.0.1:0
export LATENTD_ENGINE__BATCH_INVARIANT=true LATENTD_MODELS__DIR=$work/models LATENTD_MODELS__DEFAULT=sd15
body='{"prompt": "a red fox", "seed": 7, "steps": 200, "size": "512x512"}'
[ -n "${COMPARE_DEVICE:-}" ] || body='{"prompt": "a red fox", "seed": 7, "steps": 100, "size": "64x64"}'
url=http://127.0.0.1:${PORT:-18080}
serve() {
    "$latentd" serve --bind "${url#http://}" >>"$work/serve.log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        # The answer comes once the model is loaded.
        curl -sf -o /dev/null -d prompt=x -d steps=1 -d size=64x64 "$url/v1/images.png" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/serve.log"
    exit 1
}
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
post() { curl -sf -H 'content-type: application/json' -d "$body" "$url/v1/images"; }
ended() {
    for _ in $(seq 600); do
        state=$(curl -sf "$url/v1/images/$1")
        case $(field '["status"]' <<<"$state") in
        succeeded) field '["images"][0]["sha256"]' <<<"$state" && return ;;
        queued | running) sleep 0.1 ;;
        *) echo "$state" && return 1 ;;
        esac
    done
    echo "not ended after a minute"
}
if [ "$((deadline - SECONDS))" -lt 30 ]; then
    echo "left out: no time"
else
    serve
    undisturbed=$(ended "$(post | field '["id"]')")
    id=$(post | field '["id"]')
    sleep "${KILL_AFTER_S:-4}"
    kill -9 "$server"
    serve
    resumed=$(ended "$id")
    echo "undisturbed $undisturbed"
    echo "resumed     $resumed"
    [ "$undisturbed" = "$resumed" ] && echo "equal bytes" || echo "OTHER BYTES"
fi
part "end"
