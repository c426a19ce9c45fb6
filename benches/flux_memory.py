#!/usr/bin/env python3
"""Measures the memory of FLUX.1 with weights in GGUF files: draws one picture and compares the peak with the plan.

Makes a model with the shapes of FLUX.1 [dev] and random numbers: the transformer in Q4_K with the names of the original
code, T5-XXL in Q8_0 with llama.cpp's names, CLIP and the autoencoder in float16 (12.5 GB of disk). Then it starts a
server and draws a picture of 256 × 256 in 2 steps. Standard library only; Linux, because the peak memory is read from
/proc. Needs a quiet machine with 24 GiB.

    python3 benches/flux_memory.py target/debug/latentd --folder /tmp/flux
    python3 benches/flux_memory.py target/debug/latentd --folder /tmp/flux --bfloat16

Prints Markdown. Fails if the picture fails or if the peak exceeds the plan by more than a tenth. With --bfloat16, the
transformer and T5 are safetensors files in bfloat16 instead (sparse, without disk), and the script shows how the server
lists the model: on a machine where they do not fit, with the reason and the figures.
"""

import argparse
import json
import pathlib
import random
import struct
import sys
import time

import memory

WIDTH, TEXT, DOUBLE, SINGLE = 3072, 4096, 19, 38
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--folder", required=True, help="of the weights; what is there is used again")
    options.add_argument("--bfloat16", action="store_true", help="transformer and T5 in bfloat16")
    options.add_argument("--side", type=int, default=256)
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--minutes", type=float, default=60, help="the longest time for the picture")
    options = options.parse_args()

    folder = pathlib.Path(options.folder) / ("bfloat16" if options.bfloat16 else "gguf")
    (folder / "controlnets").mkdir(parents=True, exist_ok=True)
    make(folder, options.bfloat16)
    settings = {"LATENTD_MODELS__DEFAULT": "flux"}
    with memory.Server(options.program, folder, settings) as server:
        fault = listed(server) if options.bfloat16 else drawn(server, options)
    if fault:
        print(f"\n**Broken:** {fault}")
    sys.exit(1 if fault else 0)


def listed(server):
    try:
        server.until_ready()
    except SystemExit as ended:
        print(ended)
        return None
    models = server.ask("GET", "/v1/models")[1]
    print(json.dumps(models, indent=1)[:4000])
    return None


def drawn(server, options):
    server.until_ready()
    before = server.peak()
    side = f"{options.side}x{options.side}"
    body = {"model": "flux", "prompt": "a red fox", "size": side, "steps": options.steps, "seed": 1}
    begun = time.monotonic()
    status, answer = server.ask("POST", "/v1/images", body)
    if status != 202:
        return f"answered {status}: {answer}"
    state = answer
    while server.lives() and time.monotonic() - begun < 60 * options.minutes:
        state = server.ask("GET", f"/v1/images/{answer['id']}")[1]
        if state["status"] not in ("queued", "running"):
            break
        time.sleep(1)
    took = time.monotonic() - begun
    peak = server.peak()
    metrics = server.metrics() if server.lives() else {}
    plan = metrics.get("latentd_memory_plan_bytes", 0)
    weights = metrics.get("latentd_model_bytes", 0)
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    print("| | |\n|---|---|")
    print(f"| picture of {side}, {options.steps} steps | {state['status']} after {took:.0f} s, with loading |")
    print(f"| peak before the picture | {gib(before)} |")
    print(f"| peak | {gib(peak)} |")
    print(f"| weights by the plan | {gib(weights)} |")
    print(f"| plan | {gib(plan)} |")
    if not server.lives():
        return f"the process ended with {server.process.poll()}"
    if state["status"] != "succeeded":
        return f"the picture {state['status']}: {state.get('error')}"
    if not plan or peak > 1.1 * plan:
        return f"the peak is {peak / max(plan, 1):.2f} of the plan"
    return None


def make(folder, in_bfloat16):
    """Writes the model `flux` unless it is there."""
    kind = folder / "kind.json"
    if kind.exists():
        return
    model = folder / "models" / "flux"
    transformer = {
        "_class_name": "FluxTransformer2DModel",
        "attention_head_dim": 128,
        "guidance_embeds": True,
        "in_channels": 64,
        "joint_attention_dim": TEXT,
        "num_attention_heads": 24,
        "num_layers": DOUBLE,
        "num_single_layers": SINGLE,
        "patch_size": 1,
        "pooled_projection_dim": 768,
    }
    t5 = T5 | {
        "architectures": ["T5EncoderModel"],
        "feed_forward_proj": "gated-gelu",
        "is_gated_act": True,
        "dense_act_fn": "gelu_new",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "model_type": "t5",
    }
    vae = {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 16,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "sample_size": 1024,
        "force_upcast": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": True,
    }
    clip = memory.text_config(768, 12, 12, None)
    parts = [("transformer", transformer), ("text_encoder", clip), ("text_encoder_2", t5), ("vae", vae)]
    for part, config in parts:
        memory.write_json(model / part / "config.json", config)
    memory.write_json(model / "scheduler/scheduler_config.json", scheduler)
    memory.write_tokenizer(model / "tokenizer")
    write_t5_tokenizer(model / "tokenizer_2")
    memory.write_json(
        model / "model_index.json",
        {
            "_class_name": "FluxPipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    memory.write_tensors(model / "text_encoder/model.safetensors", memory.text_tensors(clip))
    memory.write_tensors(model / "vae/diffusion_pytorch_model.safetensors", vae_tensors(vae))
    if in_bfloat16:
        write_sparse(model / "transformer/diffusion_pytorch_model.safetensors", diffusers_tensors())
        write_sparse(model / "text_encoder_2/model.safetensors", t5_tensors(llama=False))
    else:
        write_gguf(model / "transformer/flux1-dev-Q4_K.gguf", "flux", original_tensors(), Q4_K)
        write_gguf(model / "text_encoder_2/t5-v1_1-xxl-encoder-Q8_0.gguf", "t5encoder", t5_tensors(llama=True), Q8_0)
    memory.write_json(kind, {})


def vae_tensors(config):
    """The autoencoder of Stable Diffusion with 16 channels and without the convolutions around the latents."""
    tensors = memory.vae_tensors(config)
    for name in ("quant_conv", "post_quant_conv"):
        del tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    channels = config["block_out_channels"]
    tensors.conv("decoder.conv_in", 16, channels[-1])
    tensors.conv("encoder.conv_out", channels[-1], 32)
    return tensors


def original_tensors():
    """The transformer with the names of the original code."""
    tensors = memory.Tensors()
    tensors.linear("img_in", 64, WIDTH)
    tensors.linear("txt_in", TEXT, WIDTH)
    for name, inputs in [("time_in", 256), ("guidance_in", 256), ("vector_in", 768)]:
        tensors.linear(f"{name}.in_layer", inputs, WIDTH)
        tensors.linear(f"{name}.out_layer", WIDTH, WIDTH)
    for block in (f"double_blocks.{i}" for i in range(DOUBLE)):
        for stream in ("img", "txt"):
            tensors.linear(f"{block}.{stream}_mod.lin", WIDTH, 6 * WIDTH)
            tensors.linear(f"{block}.{stream}_attn.qkv", WIDTH, 3 * WIDTH)
            for norm in ("query_norm", "key_norm"):
                tensors[f"{block}.{stream}_attn.norm.{norm}.scale"] = [128]
            tensors.linear(f"{block}.{stream}_attn.proj", WIDTH, WIDTH)
            tensors.linear(f"{block}.{stream}_mlp.0", WIDTH, 4 * WIDTH)
            tensors.linear(f"{block}.{stream}_mlp.2", 4 * WIDTH, WIDTH)
    for block in (f"single_blocks.{i}" for i in range(SINGLE)):
        tensors.linear(f"{block}.modulation.lin", WIDTH, 3 * WIDTH)
        tensors.linear(f"{block}.linear1", WIDTH, 7 * WIDTH)
        tensors.linear(f"{block}.linear2", 5 * WIDTH, WIDTH)
        for norm in ("query_norm", "key_norm"):
            tensors[f"{block}.norm.{norm}.scale"] = [128]
    tensors.linear("final_layer.adaLN_modulation.1", WIDTH, 2 * WIDTH)
    tensors.linear("final_layer.linear", WIDTH, 64)
    return tensors


def diffusers_tensors():
    """The transformer with diffusers' names."""
    tensors = memory.Tensors()
    tensors.linear("x_embedder", 64, WIDTH)
    tensors.linear("context_embedder", TEXT, WIDTH)
    for name, inputs in [("timestep", 256), ("guidance", 256), ("text", 768)]:
        tensors.linear(f"time_text_embed.{name}_embedder.linear_1", inputs, WIDTH)
        tensors.linear(f"time_text_embed.{name}_embedder.linear_2", WIDTH, WIDTH)
    for block in (f"transformer_blocks.{i}" for i in range(DOUBLE)):
        for stream in ("", "_context"):
            tensors.linear(f"{block}.norm1{stream}.linear", WIDTH, 6 * WIDTH)
            tensors.linear(f"{block}.ff{stream}.net.0.proj", WIDTH, 4 * WIDTH)
            tensors.linear(f"{block}.ff{stream}.net.2", 4 * WIDTH, WIDTH)
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            tensors.linear(f"{block}.attn.{name}", WIDTH, WIDTH)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            tensors[f"{block}.attn.{name}.weight"] = [128]
    for block in (f"single_transformer_blocks.{i}" for i in range(SINGLE)):
        tensors.linear(f"{block}.norm.linear", WIDTH, 3 * WIDTH)
        tensors.linear(f"{block}.proj_mlp", WIDTH, 4 * WIDTH)
        tensors.linear(f"{block}.proj_out", 5 * WIDTH, WIDTH)
        for name in ("to_q", "to_k", "to_v"):
            tensors.linear(f"{block}.attn.{name}", WIDTH, WIDTH)
        for name in ("norm_q", "norm_k"):
            tensors[f"{block}.attn.{name}.weight"] = [128]
    tensors.linear("norm_out.linear", WIDTH, 2 * WIDTH)
    tensors.linear("proj_out", WIDTH, 64)
    return tensors


def t5_tensors(llama):
    """T5's encoder with the names of llama.cpp or of transformers."""
    width, inner, heads = T5["d_model"], T5["num_heads"] * T5["d_kv"], T5["num_heads"]
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_o", "wi_0": "ffn_gate", "wi_1": "ffn_up", "wo": "ffn_down"}
    tensors = memory.Tensors()
    tensors["token_embd.weight" if llama else "shared.weight"] = [T5["vocab_size"], width]
    tensors["enc.output_norm.weight" if llama else "encoder.final_layer_norm.weight"] = [width]
    for i in range(T5["num_layers"]):
        def add(layer, name, inputs, outputs):
            path = f"enc.blk.{i}.{names[name]}" if llama else f"encoder.block.{i}.layer.{layer}.{name}"
            tensors.linear(path, inputs, outputs, False)

        attention = "0.SelfAttention"
        for name in ("q", "k", "v"):
            add(attention, name, width, inner)
        add(attention, "o", inner, width)
        for name in ("wi_0", "wi_1"):
            add("1.DenseReluDense", name, width, T5["d_ff"])
        add("1.DenseReluDense", "wo", T5["d_ff"], width)
        for layer, name in enumerate(("attn_norm", "ffn_norm")):
            path = f"enc.blk.{i}.{name}" if llama else f"encoder.block.{i}.layer.{layer}.layer_norm"
            tensors[f"{path}.weight"] = [width]
    bias = "enc.blk.0.attn_rel_b" if llama else "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    tensors[f"{bias}.weight"] = [32, heads]
    return tensors


# ggml's types: number, numbers in a block, bytes of a block.
F32, F16, Q8_0, Q4_K = (0, 1, 4), (1, 1, 2), (8, 32, 34), (12, 256, 144)


def blocks(kind, count, numbers):
    """Random blocks whose numbers have a standard deviation of about 0.02 and no mean."""
    if kind == F16:
        return struct.pack(f"<{count}e", *(numbers.gauss(0, 0.02) for _ in range(count)))
    half = lambda value: struct.pack("<e", value)
    start = half(2.7e-4) if kind == Q8_0 else half(1e-4) + half(7.5e-4)
    return b"".join(start + numbers.randbytes(kind[2] - len(start)) for _ in range(count))


def write_gguf(path, architecture, tensors, kind):
    """Matrices in `kind`; the layers around the blocks and matrices that it does not divide in float16; vectors in
    float32, ones for norms and zeros for biases."""
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    numbers = random.Random(0)
    random_blocks = {of: blocks(of, 1 << 14, numbers) for of in (F16, kind)}
    outer = ("img_in", "txt_in", "time_in", "vector_in", "guidance_in", "final_layer")
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    header += text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    entries, offset = [], 0
    for name, shape in tensors.items():
        of = F32 if len(shape) == 1 else kind
        if len(shape) == 2 and (name.startswith(outer) or shape[-1] % kind[1]):
            of = F16
        count = 1
        for side in shape:
            count *= side
        size = count // of[1] * of[2]
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), of[0], offset)
        entries.append((name, of, size))
        offset += size + -size % 32
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % 32))
        for name, of, size in entries:
            written = size
            if of == F32:
                file.write(struct.pack("<f", 0.0 if name.endswith(".bias") else 1.0) * (size // 4))
            else:
                start = of[2] * numbers.randrange(1 << 13)
                while size:
                    part = random_blocks[of][start : start + size]
                    file.write(part)
                    size, start = size - len(part), 0
            file.write(b"\0" * (-written % 32))


def write_sparse(path, tensors):
    """A safetensors file in bfloat16 whose numbers are zeros that take no disk."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_t5_tokenizer(folder):
    """A tokenizer of single letters, in the format of T5's."""
    words = ["<pad>", "</s>", "<unk>", "▁"] + [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = lambda i: {"id": i, "content": words[i], "special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(i) for i in range(3)],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [[word, -1.0 * i] for i, word in enumerate(words)]},
    }
    memory.write_json(folder / "tokenizer.json", tokenizer)
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    memory.write_json(folder / "tokenizer_config.json", names | {"model_max_length": 512, "tokenizer_class": "T5Tokenizer"})
    memory.write_json(folder / "special_tokens_map.json", names)


if __name__ == "__main__":
    main()
