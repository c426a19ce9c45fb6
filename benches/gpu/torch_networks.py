"""The networks of Stable Diffusion 1.5 and XL in plain PyTorch, with the names and the arithmetic of diffusers, for
machines without diffusers. Attention is PyTorch's scaled_dot_product_attention."""

import torch
import torch.nn.functional as F


class Network:
    """A network as a configuration and tensors by name. `dtype` is the precision of its numbers."""

    def __init__(self, config, tensors, dtype, device):
        self.config, self.dtype = config, dtype
        self.groups = config["norm_num_groups"]

        def placed(tensor):
            tensor = tensor.to(device=device, dtype=dtype)
            return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

        self.tensors = {name: placed(tensor) for name, tensor in tensors.items()}

    def linear(self, name, x):
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def conv(self, name, x, stride=1):
        weight = self.tensors[f"{name}.weight"]
        return F.conv2d(x, weight, self.tensors[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def group_norm(self, name, x, eps):
        return F.group_norm(x, self.groups, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], eps)

    def layer_norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], 1e-5)

    def attention(self, name, x, source, heads):
        split = lambda y: y.unflatten(-1, (heads, -1)).transpose(1, 2)
        q, k, v = (split(self.linear(f"{name}.to_{part}", y)) for part, y in [("q", x), ("k", source), ("v", source)])
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.linear(f"{name}.to_out.0", y)

    def resnet(self, name, x, time, eps):
        h = self.conv(f"{name}.conv1", F.silu(self.group_norm(f"{name}.norm1", x, eps)))
        if time is not None:
            h = h + self.linear(f"{name}.time_emb_proj", F.silu(time))[:, :, None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.group_norm(f"{name}.norm2", h, eps)))
        return h + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.tensors else x)

    def upsample(self, name, x):
        return self.conv(f"{name}.upsamplers.0.conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(Network):
    def __call__(self, sample, t, text, text_embeds=None, time_ids=None):
        """sample (B, C, h, w), t (B), text (B, L, D), text_embeds (B, P), time_ids (B, 6) → (B, C, h, w)"""
        config = self.config
        channels, layers = config["block_out_channels"], config["layers_per_block"]
        depth = config["transformer_layers_per_block"]
        heads = config["attention_head_dim"]
        heads = heads if isinstance(heads, list) else [heads] * len(channels)
        time = self.embedding("time_embedding", sinusoids(t, channels[0]).to(self.dtype))
        if text_embeds is not None:
            ids = sinusoids(time_ids.flatten(), config["addition_time_embed_dim"]).reshape(len(t), -1)
            time = time + self.embedding("add_embedding", torch.cat([text_embeds, ids.to(self.dtype)], -1))
        x = self.conv("conv_in", sample)
        skips = [x]
        for i, kind in enumerate(config["down_block_types"]):
            for j in range(layers):
                x = self.resnet(f"down_blocks.{i}.resnets.{j}", x, time, 1e-5)
                if "CrossAttn" in kind:
                    x = self.transformer(f"down_blocks.{i}.attentions.{j}", x, text, depth[i], heads[i])
                skips.append(x)
            if i + 1 < len(channels):
                x = self.conv(f"down_blocks.{i}.downsamplers.0.conv", x, 2)
                skips.append(x)
        x = self.resnet("mid_block.resnets.0", x, time, 1e-5)
        x = self.transformer("mid_block.attentions.0", x, text, depth[-1], heads[-1])
        x = self.resnet("mid_block.resnets.1", x, time, 1e-5)
        for i, kind in enumerate(config["up_block_types"]):
            for j in range(layers + 1):
                x = self.resnet(f"up_blocks.{i}.resnets.{j}", torch.cat([x, skips.pop()], 1), time, 1e-5)
                if "CrossAttn" in kind:
                    x = self.transformer(f"up_blocks.{i}.attentions.{j}", x, text, depth[-1 - i], heads[-1 - i])
            if i + 1 < len(channels):
                x = self.upsample(f"up_blocks.{i}", x)
        return self.conv("conv_out", F.silu(self.group_norm("conv_norm_out", x, 1e-5)))

    def embedding(self, name, x):
        return self.linear(f"{name}.linear_2", F.silu(self.linear(f"{name}.linear_1", x)))

    def transformer(self, name, x, text, depth, heads):
        b, c, h, w = x.shape
        linear = self.config.get("use_linear_projection", False)
        y = self.group_norm(f"{name}.norm", x, 1e-6)
        y = y if linear else self.conv(f"{name}.proj_in", y)
        y = y.permute(0, 2, 3, 1).reshape(b, h * w, c)
        y = self.linear(f"{name}.proj_in", y) if linear else y
        for block in (f"{name}.transformer_blocks.{i}" for i in range(depth)):
            normed = self.layer_norm(f"{block}.norm1", y)
            y = y + self.attention(f"{block}.attn1", normed, normed, heads)
            y = y + self.attention(f"{block}.attn2", self.layer_norm(f"{block}.norm2", y), text, heads)
            value, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", y)).chunk(2, -1)
            y = y + self.linear(f"{block}.ff.net.2", value * F.gelu(gate))
        y = self.linear(f"{name}.proj_out", y) if linear else y
        y = y.reshape(b, h, w, c).permute(0, 3, 1, 2)
        return x + (y if linear else self.conv(f"{name}.proj_out", y))


class Decoder(Network):
    def __call__(self, latents):
        """latents (B, C, h, w) → pixels (B, 3, 8·h, 8·w)"""
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", latents))
        x = self.resnet("decoder.mid_block.resnets.0", x, None, 1e-6)
        b, c, h, w = x.shape
        y = self.group_norm("decoder.mid_block.attentions.0.group_norm", x, 1e-6).flatten(2).transpose(1, 2)
        y = self.attention("decoder.mid_block.attentions.0", y, y, 1).transpose(1, 2).reshape(b, c, h, w)
        x = self.resnet("decoder.mid_block.resnets.1", x + y, None, 1e-6)
        blocks = len(self.config["block_out_channels"])
        for i in range(blocks):
            for j in range(self.config["layers_per_block"] + 1):
                x = self.resnet(f"decoder.up_blocks.{i}.resnets.{j}", x, None, 1e-6)
            if i + 1 < blocks:
                x = self.upsample(f"decoder.up_blocks.{i}", x)
        return self.conv("decoder.conv_out", F.silu(self.group_norm("decoder.conv_norm_out", x, 1e-6)))


def sinusoids(values, width):
    """(N) → (N, width): cosines, then sines, in float32."""
    exponents = torch.arange(width // 2, dtype=torch.float32, device=values.device) / (width // 2)
    angles = values.float()[:, None] * torch.exp(-torch.log(torch.tensor(10000.0, device=values.device)) * exponents)
    return torch.cat([angles.cos(), angles.sin()], -1)
