#!/bin/sh
# What one expects: `safetensors.numpy.save_file` stores an array so that `load_file` returns an equal array, also if the
# array is a transposed view; or it refuses such an array, as `safetensors.torch.save_file` does.
# What happens with safetensors 0.8.0: the bytes are written in the order of the memory of the array, with the shape of
# the view. So a transposed matrix comes back with its numbers in another order, without an error or a warning. Whoever
# turns weights with numpy (`array.T`) needs `numpy.ascontiguousarray` before storing them.
# Source: save_file in bindings/python/py_src/safetensors/numpy.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install safetensors==0.8.0 numpy==2.4.6
cat > "$folder/check.py" <<'PY'
import sys

import numpy
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__, "numpy", numpy.__version__)
path = sys.argv[1]
matrix = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
turned = matrix.T
save_file({"turned": turned, "copied": numpy.ascontiguousarray(turned)}, path)
loaded = load_file(path)
print("stored:", turned.tolist(), "loaded:", loaded["turned"].tolist())
assert loaded["turned"].shape == turned.shape and not numpy.array_equal(loaded["turned"], turned)
assert numpy.array_equal(loaded["copied"], turned)
print("as described")
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder/file.safetensors"
