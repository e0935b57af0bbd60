"""The merge op's inputs as arrays, and its outputs held against the numpy reference bit for bit."""

import numpy as np

from ltbm.plugins.onnx_function import OUTPUTS


def feeds(x, lengths, targets, keep, window):
    return {
        "x": x,
        "lengths": np.array(lengths, np.int32),
        "targets": np.array(targets, np.int32),
        "keep": np.array([keep], np.int64),
        "window": np.array([window], np.int32),
    }


def check_bits(outputs, expected):
    for name, output in zip(OUTPUTS, outputs):
        assert output.dtype == expected[name].dtype and output.shape == expected[name].shape
        assert output.tobytes() == expected[name].tobytes(), name
