"""The networks as PyTorch modules, whose arguments are the inputs of a case in the order of `names`."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel, UNetSpatioTemporalConditionModel
from transformers import T5Config, T5EncoderModel

# The patches of the FLUX case: 512 of a picture of 256×512 pixels.
GRID = (16, 32)


class Network(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    @classmethod
    def blank(cls, config):
        """The network on the meta device, without memory for its weights."""
        with torch.device("meta"):
            return cls.made_by(**config)

    @classmethod
    def load(cls, folder):
        """The network in float32, whatever the precision of the stored weights."""
        network = cls.made_by.from_pretrained(Path(folder) / cls.part, torch_dtype=torch.float32)
        return cls(network.eval().requires_grad_(False)).eval()


class Unet(Network):
    part, names, made_by = "unet", ("sample", "t", "text"), UNet2DConditionModel

    def forward(self, sample, t, text):
        return self.network(sample, t, text, return_dict=False)[0]


class Vae(Network):
    part, names, made_by = "vae", ("sample",), AutoencoderKL

    def forward(self, sample):
        return self.network.decode(sample, return_dict=False)[0]


class Flux(Network):
    """Positions are constants, so that a compiler can compute their angles beforehand."""

    part, names, made_by = "transformer", ("sample", "t", "guidance", "text", "pooled"), FluxTransformer2DModel

    def __init__(self, network, tokens=512):
        super().__init__(network)
        rows, columns = GRID
        places = [(0.0, row, column) for row in range(rows) for column in range(columns)]
        self.register_buffer("places", torch.tensor(places, dtype=torch.float32), persistent=False)
        self.register_buffer("text_places", torch.zeros(tokens, 3), persistent=False)

    def forward(self, sample, t, guidance, text, pooled):
        # diffusers' pipelines divide times by 1000, and the network multiplies them by 1000.
        return self.network(
            hidden_states=sample, timestep=t / 1000, guidance=guidance, encoder_hidden_states=text,
            pooled_projections=pooled, img_ids=self.places, txt_ids=self.text_places, return_dict=False,
        )[0]


class T5(Network):
    part, names, made_by = "text_encoder", ("ids",), T5EncoderModel

    @classmethod
    def blank(cls, config):
        with torch.device("meta"):
            return T5EncoderModel(T5Config(**config))

    def forward(self, ids):
        return self.network(input_ids=ids, return_dict=False)[0]


class Svd(Network):
    """One clip: the rows of the sample are its frames."""

    part, names, made_by = "unet", ("sample", "t", "motion", "vector"), UNetSpatioTemporalConditionModel

    def forward(self, sample, t, motion, vector):
        return self.network(sample[None], t, vector, motion, return_dict=False)[0][0]


KINDS = {"unet": Unet, "vae": Vae, "flux": Flux, "t5": T5, "svd": Svd}


def config_of(case):
    """The configuration of a case, which embedded models have in a file."""
    if case.config is not None:
        return case.config
    keys = json.loads((case.folder / KINDS[case.kind].part / "config.json").read_text())
    return {key: value for key, value in keys.items() if not key.startswith("_")}


def fill(model):
    """Fills in random weights that keep the variance from layer to layer. No bias is zero; no norm is the identity."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=random)
            else:
                is_scale = "norm" in name and name.endswith("weight")
                parameter.normal_(1.0 if is_scale else 0.0, 0.1, generator=random)
            if name.endswith("SelfAttention.q.weight"):
                parameter.mul_(model.config.d_kv**-0.5)  # T5 does not divide the scores by √d.
