"""The FLOPs of plain networks in closed form, from the paper's rule and the layout of the network alone."""


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) behind a layer of stride 2."""
    return -(-size[0] // 2), -(-size[1] // 2)


def extractor_flops(
    units: tuple[int, ...], base_channels: int, height: int, width: int, root_channels: int = 64
) -> int:
    """FLOPs of the root convolution and the first len(units) blocks of a plain ResNet on one image, in closed form.

    Args:
        units: residual units per block, e.g. (3, 4, 23) for the extractor of ResNet-101.
        base_channels: bottleneck width of block 1 (64 in ResNet-50/101).
        height, width: of the image, in pixels.
    """
    size = halved((height, width))
    flops = 7 * 7 * 3 * root_channels * size[0] * size[1]
    size, channels = halved(size), root_channels
    for block, num_units in enumerate(units):
        width_, out = base_channels * 2**block, base_channels * 2**block * 4
        size_in, size = size, size if block == 0 else halved(size)
        positions = size[0] * size[1]
        flops += channels * width_ * size_in[0] * size_in[1] + (9 * width_ * width_ + width_ * out) * positions
        if channels != out or block > 0:
            flops += channels * out * positions
        flops += (num_units - 1) * (2 * width_ * out + 9 * width_ * width_) * positions
        channels = out
    return 2 * flops
