"""Muon, an optimiser for the weight matrices of hidden layers.

The momentum of each matrix is replaced by the nearest orthogonal matrix, found with a few Newton–Schulz steps, so that every
direction learns at the same speed (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024;
Bernstein & Newhouse, arXiv:2409.20325). Convolution filters count as matrices of (out, in·height·width).
"""

import torch

# Coefficients of the quintic iteration from Jordan's article: steep at zero, so that few steps suffice.
A, B, C = 3.4445, -4.7750, 2.0315
# bfloat16 is much faster on processors that have instructions for it, and slower on others.
PRECISION = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def orthogonalise(matrices, steps=4):
    """(N, rows, columns) → the same shape with singular values near one. Half precision is exact enough for values near one."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(PRECISION)
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            # Matrices of the same shape are orthogonalized together, because many small products take longer on a CPU.
            by_shape = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1)
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(momentum, group["momentum"])  # Nesterov's look-ahead
                by_shape.setdefault(update.shape, []).append((parameter, update))
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalise(torch.stack([update for _, update in pairs]))
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                for (parameter, _), update in zip(pairs, updates):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-rate)


def split_parameters(module, exclude=()):
    """(matrices of hidden layers, for Muon; everything else, for AdamW)."""
    matrices, rest = [], []
    for name, parameter in module.named_parameters():
        hidden = parameter.ndim >= 2 and parameter.shape[0] >= 16 and parameter[0].numel() >= 16
        (matrices if hidden and not any(word in name for word in exclude) else rest).append(parameter)
    return matrices, rest
