#!/usr/bin/env python3
"""Checks that legal requests cannot exhaust the memory: many of the largest ones at once, on large random weights.

Makes a model of the size of Stable Diffusion XL and ControlNets for it, with random numbers in float16 (9.4 GB of disk),
starts a server, sends the requests, and watches them until the time is over. Then it cancels the rest. Standard library
only; Linux, because the peak memory is read from /proc. Needs no second machine, but a quiet one with 24 GiB.

    python3 benches/memory.py target/debug/latentd --folder /tmp/weights
    python3 benches/memory.py target/debug/latentd --folder /tmp/weights --scale 16 --side 1024 --minutes 2

Prints Markdown. Fails if the process ends, if /health does not answer within its limit, if an answer to a request is
neither an acceptance nor a refusal with a reason, if a generation fails, or if the peak exceeds the plan by more than a
tenth. The plan is what the server says about itself: `latentd_memory_plan_bytes`, the most that it lets weights and
generations take together.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HEALTH_S = 5.0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program")
    options.add_argument("--folder", required=True, help="of the weights; what is there is used again")
    options.add_argument("--scale", type=int, default=1, help="divides the widths of the networks")
    options.add_argument("--control-nets", type=int, default=4, help="of the largest requests, at most 4")
    options.add_argument("--requests", type=int, default=100)
    options.add_argument("--side", type=int, default=2048)
    options.add_argument("--images", type=int, default=8)
    options.add_argument("--steps", type=int, default=1)
    options.add_argument("--minutes", type=float, default=15, help="after that, what still runs is canceled")
    options.add_argument("--setting", action="append", default=[], help="NAME=VALUE of the server's environment")
    options = options.parse_args()

    folder = pathlib.Path(options.folder)
    make(folder, options.scale)
    settings = dict(setting.split("=", 1) for setting in options.setting)
    with Server(options.program, folder, settings) as server:
        faults = experiment(server, options)
    for fault in faults:
        print(f"\n**Broken:** {fault}")
    sys.exit(1 if faults else 0)


def experiment(server, options):
    """Prints the report; the result is the list of broken bounds."""
    server.until_ready()
    loaded = server.peak()
    # From all four ControlNets down to none, so that some of the requests are small enough on a small machine.
    nets = [f"net-{number}" for number in range(options.control_nets)]
    answers = collections.Counter()
    accepted, details = [], collections.Counter()

    def send(number):
        used = nets if number % 2 == 0 else nets[: number // 2 % (len(nets) + 1)]
        body = {
            "model": "xl",
            "prompt": f"a red fox {number}",
            "size": f"{options.side}x{options.side}",
            "n": options.images,
            "steps": options.steps,
            "seed": number,
            "controls": [{"model": net, "image": picture()} for net in used],
        }
        if not used:
            del body["controls"]
        status, answer = server.ask("POST", "/v1/images", body)
        answers[status] += 1
        if status == 202:
            accepted.append(answer["id"])
        else:
            errors = answer.get("errors") or [{"detail": answer.get("detail", "")}]
            details[re.sub(r"\d+", "N", f"{status} {answer.get('code', '')}: {errors[0].get('pointer', '')} {errors[0]['detail']}")] += 1

    health = Health(server)
    health.start()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(options.requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 60 * options.minutes
    ends = collections.Counter()
    while server.lives() and time.monotonic() < deadline:
        states = [server.ask("GET", f"/v1/images/{generation}")[1] for generation in accepted]
        ends = collections.Counter(end(state) for state in states)
        if not ends["running"] and not ends["queued"]:
            break
        time.sleep(2)
    unfinished = ends["running"] + ends["queued"]
    for generation in accepted if unfinished and server.lives() else []:
        server.ask("POST", f"/v1/images/{generation}/cancel")
    metrics = server.metrics() if server.lives() else {}
    health.stop()

    peak, plan = server.peak(), metrics.get("latentd_memory_plan_bytes", 0)
    gib = lambda size: f"{size / 2**30:.2f} GiB"
    print(f"| | |\n|---|---|")
    print(f"| requests: {options.images} pictures of {options.side} × {options.side}, {options.steps} steps | {options.requests} |")
    for status, count in sorted(answers.items()):
        print(f"| answered {status} | {count} |")
    for state, count in sorted(ends.items()):
        print(f"| {state}{' until the time was over, then canceled' if state in ('running', 'queued') else ''} | {count} |")
    print(f"| process | {'alive' if server.lives() else 'ended'} |")
    print(f"| slowest of {health.answers} answers of /health | {health.slowest:.2f} s |")
    print(f"| peak before the requests | {gib(loaded)} |")
    print(f"| peak | {gib(peak)} |")
    print(f"| plan | {gib(plan)} |")
    for name in ("latentd_model_bytes", "latentd_control_net_bytes", "latentd_steps_total"):
        print(f"| {name} | {metrics.get(name, 0):.0f} |")
    for detail, count in details.most_common(12):
        print(f"\n{count} × {detail}")

    faults = []
    if not server.lives():
        faults.append(f"the process ended with {server.process.poll()}")
    if health.failed or health.slowest > HEALTH_S:
        faults.append(f"/health failed {health.failed} times and took up to {health.slowest:.1f} s")
    if set(answers) - {202, 422, 429, 503}:
        faults.append(f"answers: {dict(answers)}")
    if sum(count for state, count in ends.items() if state.startswith("failed") and "start_timeout" not in state):
        faults.append(f"generations failed: {dict(ends)}")
    if plan and peak > 1.1 * plan:
        faults.append(f"the peak is {peak / plan:.2f} of the plan")
    if not plan:
        faults.append("the server tells no plan")
    return faults


def end(state):
    error = state.get("error") or {}
    return state["status"] + (f" {error.get('code')}" if state["status"] == "failed" else "")


def picture():
    """A small PNG for ControlNets, which the server resizes."""
    import base64
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x7f" * 64 for _ in range(64))
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


class Server:
    def __init__(self, program, folder, settings):
        self.data = tempfile.TemporaryDirectory()
        self.port, self.operator = free_port(), free_port()
        own = {
            "LATENTD_DATA_DIR": self.data.name,
            "LATENTD_HTTP__BIND": f"127.0.0.1:{self.port}",
            "LATENTD_OPERATOR__BIND": f"127.0.0.1:{self.operator}",
            "LATENTD_MODELS__DIR": str(folder / "models"),
            "LATENTD_MODELS__DEFAULT": "xl",
            "LATENTD_CONTROLNETS__DIR": str(folder / "controlnets"),
            # All requests at once, from one tenant, for as long as they take.
            "LATENTD_TENANTS__MAX_QUEUED": "1000",
            "LATENTD_QUEUE__MAX_WAIT_S": "86400",
        }
        # If memory runs out all the same, the kernel ends this process and no other.
        least = lambda: pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
        self.log = open(pathlib.Path(self.data.name) / "log", "w+")
        self.process = subprocess.Popen(
            [program, "serve"], env={**os.environ, **own, **settings}, stdout=self.log, stderr=self.log, preexec_fn=least
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.data.cleanup()

    def lives(self):
        return self.process.poll() is None

    def until_ready(self):
        while self.lives():
            try:
                if self.ask("GET", "/readyz", port=self.operator)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        self.log.seek(0)
        raise SystemExit(f"the server ended with {self.process.poll()}:\n{self.log.read()[-3000:]}")

    def ask(self, method, path, body=None, port=None, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            connection.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            is_json = "json" in (answer.headers["content-type"] or "")
            return answer.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def metrics(self):
        text = self.ask("GET", "/metrics", port=self.operator)[1]
        return {name: float(value) for name, value in re.findall(r"^(\w+) ([0-9.e+]+)$", text, re.M)}

    def peak(self):
        """The most bytes that the process has had in memory."""
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            self.last = 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])
        except (OSError, TypeError):
            pass
        return getattr(self, "last", 0)


class Health(threading.Thread):
    """Asks for /health and the peak, again and again."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.slowest, self.answers, self.failed, self.ends = server, 0.0, 0, 0, threading.Event()

    def run(self):
        while not self.ends.wait(0.25) and self.server.lives():
            begun = time.monotonic()
            try:
                is_well = self.server.ask("GET", "/health", timeout=60)[0] == 200
            except OSError:
                is_well = False
            self.failed += not is_well
            self.answers += is_well
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.server.peak()

    def stop(self):
        self.ends.set()
        self.join()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# The weights. Names and shapes are those of diffusers and transformers.


def make(folder, scale):
    """Writes the model `xl` and the ControlNets `net-0` to `net-3` unless they are there."""
    kind = folder / "kind.json"
    wanted = {"scale": scale}
    if kind.exists() and json.loads(kind.read_text()) == wanted:
        return
    unet, vae, widths = unet_config(scale), vae_config(scale), text_widths(scale)
    model = folder / "models" / "xl"
    texts = [text_config(widths[0], 12 if scale == 1 else 2, 12, None), text_config(widths[1], 32 if scale == 1 else 2, 20, widths[1])]
    for part, config in [("unet", unet), ("vae", vae), ("text_encoder", texts[0]), ("text_encoder_2", texts[1])]:
        write_json(model / part / "config.json", config)
    write_json(model / "scheduler/scheduler_config.json", SCHEDULER)
    for part in ("tokenizer", "tokenizer_2"):
        write_tokenizer(model / part)
    index = {"_class_name": "StableDiffusionXLPipeline", "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    for part, name in [("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")]:
        index[part] = ["diffusers", name]
    for part, name in [("text_encoder", "CLIPTextModel"), ("text_encoder_2", "CLIPTextModelWithProjection")]:
        index[part] = ["transformers", name]
        index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    write_json(model / "model_index.json", index)
    write_tensors(model / "unet/diffusion_pytorch_model.safetensors", unet_tensors(unet))
    write_tensors(model / "vae/diffusion_pytorch_model.safetensors", vae_tensors(vae))
    for part, config in [("text_encoder", texts[0]), ("text_encoder_2", texts[1])]:
        write_tensors(model / part / "model.safetensors", text_tensors(config))

    embedded = [width // scale if width // scale % 4 == 0 else 4 for width in (16, 32, 96, 256)]
    net = {key: value for key, value in unet.items() if key not in ("out_channels", "up_block_types", "sample_size")}
    net |= {"_class_name": "ControlNetModel", "conditioning_channels": 3, "conditioning_embedding_out_channels": embedded}
    for number in range(4):
        path = folder / "controlnets" / f"net-{number}"
        write_json(path / "config.json", net)
        weights = path / "diffusion_pytorch_model.safetensors"
        weights.unlink(missing_ok=True)
        if number == 0:
            write_tensors(weights, control_net_tensors(net))
        else:
            # One file on disk; for the server, these are different networks.
            os.link(folder / "controlnets/net-0/diffusion_pytorch_model.safetensors", weights)
    write_json(kind, wanted)


def text_widths(scale):
    """The widths of the two text encoders."""
    return [768 // scale, 1280 // scale]


def groups(scale):
    return 32 if scale <= 5 else 4


def unet_config(scale):
    """The U-Net of Stable Diffusion XL, with widths that are divided by `scale`."""
    widths = text_widths(scale)
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320 // scale, 640 // scale, 1280 // scale],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": sum(widths),
        "use_linear_projection": True,
        "norm_num_groups": groups(scale),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": widths[1] + 6 * 256,
    }


def vae_config(scale):
    """Its autoencoder."""
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [width // scale for width in (128, 256, 512, 512)],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": groups(scale),
        "scaling_factor": 0.13025,
        "sample_size": 1024,
        "force_upcast": True,
    }


SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def text_config(width, layers, heads, projection):
    config = {
        "architectures": ["CLIPTextModelWithProjection" if projection else "CLIPTextModel"],
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads if width % heads == 0 else 4,
        "hidden_act": "gelu" if projection else "quick_gelu",
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "eos_token_id": 2,
    }
    return config | ({"projection_dim": projection} if projection else {})


class Tensors(dict):
    """Shapes by name."""

    def linear(self, name, inputs, outputs, bias=True):
        self[f"{name}.weight"] = [outputs, inputs]
        if bias:
            self[f"{name}.bias"] = [outputs]

    def conv(self, name, inputs, outputs, kernel=3):
        self[f"{name}.weight"] = [outputs, inputs, kernel, kernel]
        self[f"{name}.bias"] = [outputs]

    def norm(self, name, width):
        self[f"{name}.weight"] = self[f"{name}.bias"] = [width]

    def resnet(self, name, inputs, outputs, time=None):
        self.norm(f"{name}.norm1", inputs)
        self.conv(f"{name}.conv1", inputs, outputs)
        if time:
            self.linear(f"{name}.time_emb_proj", time, outputs)
        self.norm(f"{name}.norm2", outputs)
        self.conv(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            self.conv(f"{name}.conv_shortcut", inputs, outputs, 1)

    def transformer(self, name, width, layers, text, linear=True):
        project = self.linear if linear else lambda name, *widths: self.conv(name, *widths, 1)
        self.norm(f"{name}.norm", width)
        project(f"{name}.proj_in", width, width)
        for block in (f"{name}.transformer_blocks.{i}" for i in range(layers)):
            for attention, source in [("attn1", width), ("attn2", text)]:
                self.linear(f"{block}.{attention}.to_q", width, width, False)
                self.linear(f"{block}.{attention}.to_k", source, width, False)
                self.linear(f"{block}.{attention}.to_v", source, width, False)
                self.linear(f"{block}.{attention}.to_out.0", width, width)
            for i in (1, 2, 3):
                self.norm(f"{block}.norm{i}", width)
            self.linear(f"{block}.ff.net.0.proj", width, 8 * width)
            self.linear(f"{block}.ff.net.2", 4 * width, width)
        project(f"{name}.proj_out", width, width)


def way_down(config):
    """The U-Net to its middle, which a ControlNet also has; and the widths of the skips."""
    tensors, channels, text = Tensors(), config["block_out_channels"], config["cross_attention_dim"]
    time = 4 * channels[0]
    tensors.conv("conv_in", 4, channels[0])
    tensors.linear("time_embedding.linear_1", channels[0], time)
    tensors.linear("time_embedding.linear_2", time, time)
    linear = config.get("use_linear_projection", False)
    if "addition_embed_type" in config:
        tensors.linear("add_embedding.linear_1", config["projection_class_embeddings_input_dim"], time)
        tensors.linear("add_embedding.linear_2", time, time)
    skips = [channels[0]]
    for i, width in enumerate(channels):
        for j in range(config["layers_per_block"]):
            tensors.resnet(f"down_blocks.{i}.resnets.{j}", skips[-1], width, time)
            if "CrossAttn" in config["down_block_types"][i]:
                layers = config["transformer_layers_per_block"][i]
                tensors.transformer(f"down_blocks.{i}.attentions.{j}", width, layers, text, linear)
            skips.append(width)
        if i + 1 < len(channels):
            tensors.conv(f"down_blocks.{i}.downsamplers.0.conv", width, width)
            skips.append(width)
    for i in (0, 1):
        tensors.resnet(f"mid_block.resnets.{i}", channels[-1], channels[-1], time)
    layers = config["transformer_layers_per_block"][-1]
    tensors.transformer("mid_block.attentions.0", channels[-1], layers, text, linear)
    return tensors, skips


def unet_tensors(config):
    tensors, skips = way_down(config)
    channels, text = config["block_out_channels"], config["cross_attention_dim"]
    linear = config.get("use_linear_projection", False)
    below = channels[-1]
    for i, width in enumerate(reversed(channels)):
        for j in range(config["layers_per_block"] + 1):
            tensors.resnet(f"up_blocks.{i}.resnets.{j}", below + skips.pop(), width, 4 * channels[0])
            if "CrossAttn" in config["up_block_types"][i]:
                layers = config["transformer_layers_per_block"][-1 - i]
                tensors.transformer(f"up_blocks.{i}.attentions.{j}", width, layers, text, linear)
            below = width
        if i + 1 < len(channels):
            tensors.conv(f"up_blocks.{i}.upsamplers.0.conv", width, width)
    tensors.norm("conv_norm_out", channels[0])
    tensors.conv("conv_out", channels[0], 4)
    return tensors


def control_net_tensors(config):
    tensors, skips = way_down(config)
    embedded = config["conditioning_embedding_out_channels"]
    tensors.conv("controlnet_cond_embedding.conv_in", 3, embedded[0])
    for i, (inputs, outputs) in enumerate(zip(embedded, embedded[1:])):
        tensors.conv(f"controlnet_cond_embedding.blocks.{2 * i}", inputs, inputs)
        tensors.conv(f"controlnet_cond_embedding.blocks.{2 * i + 1}", inputs, outputs)
    tensors.conv("controlnet_cond_embedding.conv_out", embedded[-1], config["block_out_channels"][0])
    for i, width in enumerate(skips):
        tensors.conv(f"controlnet_down_blocks.{i}", width, width, 1)
    tensors.conv("controlnet_mid_block", skips[-1], skips[-1], 1)
    return tensors


def vae_tensors(config):
    tensors, channels = Tensors(), config["block_out_channels"]
    tensors.conv("quant_conv", 8, 8, 1)
    tensors.conv("post_quant_conv", 4, 4, 1)
    tensors.conv("encoder.conv_in", 3, channels[0])
    tensors.conv("decoder.conv_in", 4, channels[-1])
    below = channels[0]
    for i, width in enumerate(channels):
        for j in range(2):
            tensors.resnet(f"encoder.down_blocks.{i}.resnets.{j}", below, width)
            below = width
        if i + 1 < len(channels):
            tensors.conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", width, width)
    for i, width in enumerate(reversed(channels)):
        for j in range(3):
            tensors.resnet(f"decoder.up_blocks.{i}.resnets.{j}", below, width)
            below = width
        if i + 1 < len(channels):
            tensors.conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", width, width)
    for part, first, last, outputs in [("encoder", channels[-1], channels[-1], 8), ("decoder", channels[-1], channels[0], 3)]:
        for j in (0, 1):
            tensors.resnet(f"{part}.mid_block.resnets.{j}", first, first)
        tensors.norm(f"{part}.mid_block.attentions.0.group_norm", first)
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            tensors.linear(f"{part}.mid_block.attentions.0.{name}", first, first)
        tensors.norm(f"{part}.conv_norm_out", last)
        tensors.conv(f"{part}.conv_out", last, outputs)
    return tensors


def text_tensors(config):
    tensors, width = Tensors(), config["hidden_size"]
    tensors["text_model.embeddings.token_embedding.weight"] = [config["vocab_size"], width]
    tensors["text_model.embeddings.position_embedding.weight"] = [77, width]
    for layer in (f"text_model.encoder.layers.{i}" for i in range(config["num_hidden_layers"])):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors.linear(f"{layer}.self_attn.{name}", width, width)
        tensors.linear(f"{layer}.mlp.fc1", width, 4 * width)
        tensors.linear(f"{layer}.mlp.fc2", 4 * width, width)
        tensors.norm(f"{layer}.layer_norm1", width)
        tensors.norm(f"{layer}.layer_norm2", width)
    tensors.norm("text_model.final_layer_norm", width)
    if "projection_dim" in config:
        tensors.linear("text_projection", width, config["projection_dim"], False)
    return tensors


def write_tensors(path, tensors):
    """Random numbers of a standard deviation of 0.02 as weights, ones as the weights of norms, zeros as biases."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = random.Random(0)
    block = struct.pack("<262144e", *(numbers.gauss(0, 0.02) for _ in range(262144)))
    ones = struct.pack("<e", 1.0)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, info in header.items():
            begin, after = info["data_offsets"]
            size = after - begin
            if len(info["shape"]) == 1:
                file.write((b"\0\0" if name.endswith(".bias") else ones) * (size // 2))
                continue
            # Each tensor begins elsewhere in the block, so that no two are equal.
            start = 2 * numbers.randrange(len(block) // 4)
            while size:
                part = block[start : start + size]
                file.write(part)
                size, start = size - len(part), 0


def write_tokenizer(folder):
    """A tokenizer of bytes, in the format of CLIP's."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    letters = [chr(byte) for byte in seen] + [chr(256 + i) for i in range(len(hidden))]
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {f"{name}_token": "<|endoftext|>" for name in ("eos", "pad", "unk")} | {"bos_token": "<|startoftext|>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


if __name__ == "__main__":
    main()
