"""Pictures of more than eight bits."""

import struct
import warnings
import zlib

import numpy
import pytest
import torch
from PIL import Image

from polyad.data.tensors import read_tensors

PIXELS = (numpy.arange(120).reshape(12, 10) * 500).astype(numpy.uint16)


def write_png(path, pixels):
    """A PNG of 16 bits a colour, which Pillow cannot write."""
    kind = {2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "big-endian.tif"])
def test_sixteen_bits_of_grey_are_read_as_stored(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(PIXELS.astype(">u2" if name == "big-endian.tif" else "<u2")).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (pixels,) = read_tensors(path).values()
    assert pixels.dtype == torch.int32
    assert pixels.tolist() == PIXELS.tolist()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_that_are_cut_to_eight_bits_are_said_to_be(tmp_path, channels):
    write_png(tmp_path / "colour.png", numpy.stack([PIXELS] * channels, -1))
    with pytest.warns(UserWarning, match="holds 16 bits a colour, of which Pillow gives the upper 8"):
        (pixels,) = read_tensors(tmp_path / "colour.png").values()
    assert torch.equal(pixels[..., 0].int(), torch.from_numpy(PIXELS.astype(numpy.int32)) // 256)
