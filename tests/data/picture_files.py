"""Picture files and tars for tests of readers."""

import io
import tarfile

from PIL import Image


def picture_bytes(shade, size=(16, 16), form="PNG"):
    """A file with a picture of one shade of grey; ``size`` is width and height."""
    out = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(out, form)
    return out.getvalue()


def write_tar(path, members):
    """A tar with the members, names to bytes, in their order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
