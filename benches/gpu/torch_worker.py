"""The process that runs PyTorch's networks for steps.py. Requests and answers are JSON lines, as in
benches/compare/contender.rs, without `rows` and `peak`; `load` also says whether torch.compile is used. Ends at the end of
standard input."""

import json
import mmap
import os
import struct
import sys
import time

import torch

from torch_networks import Decoder, UNet

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
STORED = {"F16": torch.float16, "F32": torch.float32}
DEVICE = "cuda" if os.environ.get("COMPARE_DEVICE", "cpu").startswith("cuda") else "cpu"


def read(path):
    """The tensors of a safetensors file."""
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack("<Q", content[:8])
    tensors = {}
    for name, info in json.loads(content[8 : 8 + length]).items():
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        dtype = STORED[info["dtype"]]
        count = (end - begin) // dtype.itemsize
        tensors[name] = torch.frombuffer(content, dtype=dtype, offset=begin, count=count).reshape(info["shape"])
    return tensors


class Worker:
    def load(self, kind, folder, inputs, precision, compiled):
        torch.backends.cudnn.benchmark = True
        # latentd computes float32 in float32.
        torch.backends.cudnn.allow_tf32 = False
        dtype = DTYPES[precision]
        with open(f"{folder}/{kind}/config.json") as file:
            config = json.load(file)
        of_kind = UNet if kind == "unet" else Decoder
        tensors = read(f"{folder}/{kind}/diffusion_pytorch_model.safetensors")
        network = of_kind(config, tensors, dtype, DEVICE)
        self.forward = torch.compile(network.__call__, dynamic=False) if compiled else network
        inputs = read(inputs)
        self.sample = inputs.pop("sample")
        # Times stay in float32 until after their sines and cosines.
        exact = ("t", "time_ids")
        self.rest = {name: x.to(DEVICE, x.dtype if name in exact else dtype) for name, x in inputs.items()}
        self.dtype = dtype

    def call(self):
        """Takes the sample from the host and brings the result to the host, as latentd does."""
        with torch.inference_mode():
            sample = self.sample.to(DEVICE, self.dtype).to(memory_format=torch.channels_last)
            return self.forward(sample, **self.rest).float().cpu()

    def answer(self, request):
        start = time.perf_counter()
        if request.pop("do") == "load":
            self.load(**request)
            return {"seconds": time.perf_counter() - start}
        seconds = []
        for _ in range(request["calls"]):
            start = time.perf_counter()
            made = self.call()
            seconds.append(time.perf_counter() - start)
        if request.get("output"):
            made = made.contiguous()
            info = {"dtype": "F32", "shape": list(made.shape), "data_offsets": [0, made.numel() * 4]}
            text = json.dumps({"output": info})
            with open(request["output"], "wb") as file:
                file.write(struct.pack("<Q", len(text)) + text.encode() + bytes(made.untyped_storage()))
        return {"seconds": seconds}


def main():
    if threads := int(os.environ.get("COMPARE_THREADS", "0")):
        torch.set_num_threads(threads)
    worker = Worker()
    # Libraries print to standard output, so prints go to standard error and answers to a copy of standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:  # steps.py decides what a failure means.
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
