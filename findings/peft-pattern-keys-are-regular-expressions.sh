#!/bin/sh
# What one expects: the keys of alpha_pattern and rank_pattern in a LoRA's settings are names of modules ("proj.a"), so that a
# reader compares them with names, or with the ends of names.
# What happens: PEFT 0.21.2 puts each key into re.match("(.*\.)?(KEY)$", name) and takes the first key that matches, in the order of
# the file. So a dot matches any character, "attn[12]\.to_k" and "^down.*" are keys that trainers use, and of two keys that
# match, the one that comes first counts and not the longer one. Who compares names scales the layers of such files wrongly, and
# nothing says so.
# Source: get_pattern_key in src/peft/utils/other.py, called by _create_and_replace in src/peft/tuners/lora/model.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 torch==2.15.0
cat > "$folder/check.py" <<'PY'
import torch
from peft import LoraConfig, get_peft_model


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = Block(), Block()

    def forward(self, x):
        return self.up.to_k(self.up.to_q(self.down.to_k(self.down.to_q(x))))


def alphas(pattern):
    config = LoraConfig(r=1, lora_alpha=1, target_modules=["to_q", "to_k"], alpha_pattern=pattern)
    net = get_peft_model(Net(), config).base_model.model
    return {name: module.scaling["default"] for name, module in net.named_modules() if hasattr(module, "scaling")}


for pattern, wanted in (
    ({"down.to_q": 8}, {"down.to_q": 8, "down.to_k": 1, "up.to_q": 1, "up.to_k": 1}),
    ({"to.q": 8}, {"down.to_q": 8, "down.to_k": 1, "up.to_q": 8, "up.to_k": 1}),
    ({r"to_[qk]": 8}, {"down.to_q": 8, "down.to_k": 8, "up.to_q": 8, "up.to_k": 8}),
    ({"^up.*": 8}, {"down.to_q": 1, "down.to_k": 1, "up.to_q": 8, "up.to_k": 8}),
    ({"to_q": 2, "down.to_q": 8}, {"down.to_q": 2, "down.to_k": 1, "up.to_q": 2, "up.to_k": 1}),
):
    found = alphas(pattern)
    print(pattern, found)
    assert found == wanted, wanted
PY
"$folder/venv/bin/python" "$folder/check.py"
