"""Converts a network to OpenVINO's or ONNX's format. A separate process, so that its memory is freed afterwards.

    python convert.py openvino|onnx KIND FOLDER INPUTS TARGET [free]

With `free`, the batch size can be chosen later.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from networks import KINDS


def main():
    to, kind, folder, inputs, target, *free = sys.argv[1:]
    network = KINDS[kind].load(folder)
    names = network.names
    tensors = load_file(inputs)
    arguments = tuple(tensors[name] for name in names)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        if to == "openvino":
            to_openvino(network, names, arguments, target, bool(free))
        else:
            to_onnx(network, names, arguments, target, bool(free))


def to_openvino(network, names, arguments, target, free):
    import openvino as ov

    # OpenVINO computes the example, so the example is small if the input is a map. The shapes of the model are those of
    # the inputs.
    small = arguments[0][..., :8, :8] if arguments[0].dim() == 4 else arguments[0]
    example = (small, *arguments[1:])
    shapes = [([-1] if free else [len(a)]) + list(a.shape[1:]) for a in arguments]
    model = ov.convert_model(network, example_input=example if len(example) > 1 else example[0], input=shapes)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    ov.save_model(model, target, compress_to_fp16=False)


def to_onnx(network, names, arguments, target, free):
    shapes = None
    if free:
        batch = torch.export.Dim("batch", min=1, max=1024)
        shapes = {name: {0: batch} for name in names}
    torch.onnx.export(
        network, arguments, target, input_names=list(names), output_names=["output"], dynamo=True,
        dynamic_shapes=shapes, external_data=True,
    )


if __name__ == "__main__":
    main()
