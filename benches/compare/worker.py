"""The process that runs a network with PyTorch, OpenVINO, ONNX Runtime or stable-diffusion.cpp for compare.py.

    python worker.py PEER

Requests and answers are JSON lines, as in contender.rs, without `peak`. Ends at the end of standard input.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

THREADS = int(os.environ["COMPARE_THREADS"])


class PyTorch:
    """diffusers' modules in eager mode."""

    compiled = False
    channels_last = False

    def load(self, kind, folder, inputs, **_):
        import torch
        from networks import KINDS

        torch.set_num_threads(THREADS)
        self.no_gradients = torch.inference_mode
        network = KINDS[kind].load(folder)
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)
            tensors["sample"] = tensors["sample"].to(memory_format=torch.channels_last)
        forward = torch.compile(network) if self.compiled else network
        self.call = lambda: forward(*(tensors[name] for name in network.names))

    def run(self):
        with self.no_gradients():
            return self.call()

    def array(self, output):
        return output.contiguous().numpy()


class PyTorchChannelsLast(PyTorch):
    channels_last = True


class PyTorchCompiled(PyTorch):
    compiled = True


class OpenVino:
    """The model from convert.py, compiled for the shapes of the inputs, for low latency, in float32."""

    def load(self, inputs, openvino, **_):
        import openvino as ov

        core = ov.Core()
        model = core.read_model(openvino)
        model.reshape({port.any_name: inputs[port.any_name].shape for port in model.inputs})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": THREADS,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.request.set_tensors({name: ov.Tensor(value) for name, value in inputs.items()})

    def run(self):
        self.request.infer()
        return self.request.get_output_tensor(0).data

    def array(self, output):
        return output.copy()


class OnnxRuntime:
    """The model from convert.py, with a fixed batch size and all graph optimizations."""

    def load(self, inputs, onnx, **_):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_free_dimension_override_by_name("batch", len(next(iter(inputs.values()))))
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.inputs = inputs

    def run(self):
        return self.session.run(None, self.inputs)[0]

    def array(self, output):
        return output


class StableDiffusionCpp:
    """A guided step of Stable Diffusion 1.5, timed by stable-diffusion.cpp. Its output is not available."""

    own_seconds = None

    def load(self, sdcpp, **_):
        from stable_diffusion_cpp import StableDiffusion

        tiny = Path(sdcpp) / "tiny" / "diffusion_pytorch_model.safetensors"
        self.pipeline = StableDiffusion(
            model_path=sdcpp, taesd_path=str(tiny), n_threads=THREADS, wtype="f32", prediction="eps",
        )
        self.pipeline.model  # noqa: B018 - fails if the file was not understood, which the constructor ignores.

    def run(self):
        def progress(step, _steps, seconds):
            if step == 1:
                self.own_seconds = seconds

        self.own_seconds = None
        self.pipeline.generate_image(
            "a red fox", negative_prompt="blurry", width=512, height=512, cfg_scale=7.0, sample_method="euler",
            sample_steps=1, seed=1, progress_callback=progress,
        )

    def array(self, _output):
        return numpy.zeros(0, dtype=numpy.float32)


PEERS = {
    "pytorch": PyTorch,
    "pytorch-channels-last": PyTorchChannelsLast,
    "pytorch-compile": PyTorchCompiled,
    "openvino": OpenVino,
    "onnxruntime": OnnxRuntime,
    "sdcpp": StableDiffusionCpp,
}


def answer(peer, request):
    start = time.perf_counter()
    if request["do"] == "load":
        peer.load(**{**request, "inputs": load_file(request["inputs"])})
        return {"seconds": time.perf_counter() - start}
    seconds, output = [], None
    for _ in range(request["calls"]):
        output = None
        start = time.perf_counter()
        output = peer.run()
        # Some peers can only be timed by themselves.
        seconds.append(getattr(peer, "own_seconds", None) or time.perf_counter() - start)
    if request.get("output"):
        save_file({"output": numpy.ascontiguousarray(peer.array(output))}, request["output"])
    return {"seconds": seconds}


def main():
    peer = PEERS[sys.argv[1]]()
    # Libraries print to standard output, so prints go to standard error and answers to a copy of standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(peer, json.loads(line))
        except Exception as error:  # compare.py decides what a failure means.
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
