"""PyTorch with the rounding of an int8 encoder: what its engine is held against."""

import torch

from .int8_products import (
    ACTIVATION_TOP,
    SMALLEST_ROW,
    dequantize_columns,
    quantize_columns,
)


class Int8Linear(torch.nn.Module):
    """A linear layer with int8 weights, a scale a column, and inputs rounded to int8, a scale a row."""

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        columns = quantize_columns(linear.weight.detach().numpy())
        self.weight = torch.nn.Parameter(torch.from_numpy(dequantize_columns(columns)))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_ROW)
        rounded = torch.round(x / largest * ACTIVATION_TOP) / ACTIVATION_TOP
        product = torch.nn.functional.linear(rounded, self.weight) * largest
        return product if self.bias is None else product + self.bias


def round_linear_layers(layers: torch.nn.Module) -> None:
    """Give every linear layer within `layers` the rounding of `ltbm export --encoder-precision int8`."""
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                parent.register_module(name, Int8Linear(child))
