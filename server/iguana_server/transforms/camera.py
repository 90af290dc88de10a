"""A printed picture is photographed: all transforms in a row, drawn anew for each row."""

from collections.abc import Mapping

from torch import Tensor

from iguana_server.transforms.affine import affine
from iguana_server.transforms.blur import blur
from iguana_server.transforms.brightness import brightness
from iguana_server.transforms.contrast import contrast
from iguana_server.transforms.jpeg import jpeg
from iguana_server.transforms.noise import noise
from iguana_server.transforms.perspective import perspective
from iguana_server.transforms.rows import on_rows

DRAWS = 20  # uniform numbers a row (17 are used: whole blocks of four)


def camera(images: Tensor, u: Tensor, normal: Tensor, strengths: Mapping[str, Tensor]) -> Tensor:
    """Photograph prints: turn, tilt, light, blur, sensor noise, JPEG. A strength of 0 leaves a row's bits alone.

    Args:
        images: [n, C, H, W] in [0, 1], as the answer.
        u: [n, DRAWS] uniform in [0, 1): what is drawn. All draws are uniform.
        normal: [n, C, H, W] standard normal, the sensor's noise.
        strengths: [n] each. rotation: most degrees, either way. scale, shift: most, as a share, either way.
            perspective: most that a corner moves, as a share of the side, below 0.25. brightness: most light
            added or taken. contrast: most relative change. blur: largest standard deviation in pixels. noise:
            largest standard deviation. jpeg: by how much the least quality is below 100.

    """
    around = 2 * u - 1
    amount = {name: strength[:, None] for name, strength in strengths.items()}
    angle, scale = amount["rotation"] * around[:, :1], 1 + amount["scale"] * around[:, 1:2]
    move = amount["shift"] * around[:, 2:4]
    corners = (amount["perspective"] * around[:, 4:12]).view(-1, 4, 2)
    light, steepness = amount["brightness"] * around[:, 12:13], 1 + amount["contrast"] * around[:, 13:14]
    focus, grain = amount["blur"] * u[:, 14:15], amount["noise"] * u[:, 15:16]
    quality = (100 - amount["jpeg"] * u[:, 16:17]).round().long()
    on = {name: strength > 0 for name, strength in strengths.items()}
    x = on_rows(
        images,
        on["rotation"] | on["scale"] | on["shift"],
        lambda x, i: affine(x, angle[i], scale[i], move[i, 0], move[i, 1]),
    )
    x = on_rows(x, on["perspective"], lambda x, i: perspective(x, corners[i]))
    x = on_rows(x, on["brightness"], lambda x, i: brightness(x, light[i]))
    x = on_rows(x, on["contrast"], lambda x, i: contrast(x, steepness[i]))
    x = on_rows(x, on["blur"], lambda x, i: blur(x, focus[i, 0]))
    x = on_rows(x, on["noise"], lambda x, i: noise(x, grain[i], normal[i]))
    x = x.clamp(0, 1)
    return on_rows(x, on["jpeg"], lambda x, i: jpeg(x, quality[i, 0]))
