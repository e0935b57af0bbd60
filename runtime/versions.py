"""Version numbers as tuples, from text and from the integers of NVIDIA's libraries."""


def version_tuple(version: str) -> tuple[int, ...]:
    """Major and minor number: 10.15.1.29 -> (10, 15)."""
    return tuple(int(part) for part in version.split(".")[:2])


def dots(version: tuple[int, ...]) -> str:
    """(10, 15) -> 10.15."""
    return ".".join(map(str, version))


def cuda_version(number: int) -> tuple[int, int]:
    """CUDA's 12060 -> (12, 6)."""
    return number // 1000, number % 1000 // 10


def tensorrt_version(number: int) -> tuple[int, int, int]:
    """TensorRT's 101600 -> (10, 16, 0), and its 8602, as it was before version 10, -> (8, 6, 2)."""
    step = 10_000 if number >= 10_000 else 1000
    return number // step, number % step // 100, number % 100


def cudnn_version(number: int) -> tuple[int, int, int]:
    """cuDNN's 90300 -> (9, 3, 0), and its 8907, as it was before version 9, -> (8, 9, 7)."""
    return tensorrt_version(number)
