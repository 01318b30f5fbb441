"""Stage 2: dual-attention face rendering (paper section 3.2) on a window around the lower face.

The paper's cross-attention with its candidates chosen by geometry. Both meshes are known, so the
place of every target point in every reference is known before any training; attention decides
which reference to trust and reads texture latents there, and the pixels themselves are copied from
the references with the same weights. The decoder only repairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import NEVER, Attended, attend_rows, candidates, query_rows, table_rows, take_rows

STRIDE = 4  # picture pixels per latent token
REACH = 3  # tokens: how far the decoder's coarse layers look


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the stage-2 networks; stored in their checkpoint."""

    geometry_width: int = 32  # channels of E_geo's latents, queries and keys
    texture_width: int = 40  # channels of E_tex's latents
    window: int = 3  # tokens: side of Lip-Attention's candidate window in each reference
    decoder_width: int = 48
    blur: float = 2.4  # px: what is finer than this belongs to the detail band


@dataclass(frozen=True)
class LipReferences:
    """What Lip-Attention reads from N references, computed once per reference.

    Attributes:
        key: [B, N, C, H/4, W/4]; texture: [B, N, D, H/4, W/4]; pncc: [B, N, 3, H/4, W/4] averaged
            maps.
    """

    key: Tensor
    texture: Tensor
    pncc: Tensor


@dataclass  # not frozen: training frameworks move and cast its fields in place
class Correspondence:
    """Where a target window lies in N references.

    Attributes:
        place: [B, N, h, w, 2] (x, y) of each target pixel in the reference window, in its pixels
            with pixel centres at +0.5.
        cost: [B, N, h, w] how differently the face is deformed there (lengths of expression
            differences, about 0..3).
        turn: [B, N] angle between the head poses in radians.
        mouth: [B, N] how different the whole mouths look: mean of the expression difference over
            the lips, in the unit of `cost`, and more where the heads are turned against each other.
    """

    place: Tensor
    cost: Tensor
    turn: Tensor
    mouth: Tensor


class Residual(nn.Module):
    """Two 3 x 3 convolutions around an identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.silu(self.conv1(F.silu(x))))
        return x + change


class LatentEncoder(nn.Module):
    """E_geo or E_tex: two down-sampling convolutions, as in the paper, and one residual block."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 4, 2, 1)
        self.conv2 = nn.Conv2d(width // 2, width, 4, 2, 1)
        self.block = Residual(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] in 0..1 -> [B, C, H/4, W/4]."""
        latent: Tensor = self.block(self.conv2(F.silu(self.conv1(2 * x - 1))))
        return latent


class Priors(nn.Module):
    """What both heads know before any feature: logits fall with geometric distance.

    softplus of the parameters are the learned multiples of the distances.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cost_scale = nn.Parameter(torch.tensor(4.0))  # expression difference
        self.turn_scale = nn.Parameter(torch.tensor(6.0))  # pose difference
        self.sharpness = nn.Parameter(torch.tensor(3.0))  # detail band: softplus + 1 times sharper

    def prior(self, cost: Tensor, turn: Tensor) -> Tensor:
        """cost [B, N, h, w] and turn [B, N] (see `Correspondence`) -> logits [B, N, h, w]."""
        by_turn = F.softplus(self.turn_scale) * turn[..., None, None]
        return -(F.softplus(self.cost_scale) * cost + by_turn)

    @property
    def detail_sharpness(self) -> Tensor:
        """Factor (at least 1) on the logits for the detail band."""
        return 1 + F.softplus(self.sharpness)


class FaceHead(Priors):
    """Face-Attention, over the references that show the surface of the face.

    On the surface the correspondence is known to a fraction of a pixel, so each query has one
    candidate per reference, and its queries and keys are the geometry itself: how the face is
    deformed at the point, and how the head is turned. Features as queries made it switch between
    references from token to token, seen as patches along the jaw.
    """

    def forward(self, texture: Tensor, match: Correspondence) -> Attended:
        """texture [B, N, D, H/4, W/4] -> value [B, D, h/4, w/4], logits [B, N, h, w] at pixels."""
        logits = self.prior(match.cost, match.turn)
        taken = sample_pixels(texture, _token_places(match.place) + 0.5)
        return Attended(mix(taken, F.avg_pool2d(logits, STRIDE)), logits)


class LipHead(Priors):
    """Lip-Attention: inside the mouth geometry says little, so features decide as well.

    A mouth is one thing: teeth of one picture and a tongue of another make a grey haze. So the
    difference between the whole mouths counts beside that at the point.
    """

    def __init__(self, width: int, window: int):
        super().__init__()
        self.window = window
        self.query = nn.Conv2d(width, width, 1)
        self.map_scale = nn.Parameter(torch.tensor(3.0))  # PNCC distance inside the window
        self.mouth_scale = nn.Parameter(torch.tensor(60.0))  # difference between whole mouths
        with torch.no_grad():  # geometry alone decides until training says otherwise
            self.query.weight.mul_(0.1)

    def forward(
        self, geometry: Tensor, pncc: Tensor, references: LipReferences, match: Correspondence,
        seen: Tensor | None = None,
    ) -> Attended:  # fmt: skip
        """Guided attention; its logits come at the target's pixels.

        Args:
            geometry: [B, C, h/4, w/4] target latent; pncc: [B, 3, h, w] target map.
            seen: [B, 1, h, w] above 0 where the result will be used; elsewhere it is only right
                within REACH tokens of such a place. None: everywhere.
        """
        key, texture = references.key, references.texture
        index, inside = candidates(_token_places(match.place), self.window, *key.shape[-2:])
        count = index.shape[1]
        prior = self.prior(F.avg_pool2d(match.cost, STRIDE), match.turn)
        prior = prior - F.softplus(self.mouth_scale) * match.mouth[..., None, None]
        prior = torch.where(inside, prior[..., None], NEVER)
        rows, bias = table_rows(index, key.shape[-2] * key.shape[-1]), query_rows(prior)
        colour = F.avg_pool2d(pncc, STRIDE).flatten(2).transpose(1, 2).reshape(-1, 1, 3)
        chosen = None
        if seen is not None:
            side = STRIDE * (2 * REACH + 1)
            active = F.max_pool2d(seen, side, STRIDE, STRIDE * REACH) > 0
            chosen = active.reshape(-1).nonzero()[:, 0]
            rows, bias, colour = rows[chosen], bias[chosen], colour[chosen]
        away = take_rows(references.pncc, rows) - colour
        squared = away[..., 0] ** 2 + away[..., 1] ** 2 + away[..., 2] ** 2
        bias = bias - F.softplus(self.map_scale) * (squared + 1e-10).sqrt()
        found = attend_rows(self.query(geometry), key, texture, rows, bias, count, chosen)
        logits = F.interpolate(
            found.reference_logits, scale_factor=STRIDE, mode="bilinear", align_corners=False
        )
        return Attended(found.value, logits)


def _token_places(place: Tensor) -> Tensor:
    """Pixel places [B, N, H, W, 2] to token places [B, N, H/4, W/4, 2], token centres at
    integers."""
    batch, count = place.shape[:2]
    mean = F.avg_pool2d(place.flatten(0, 1).permute(0, 3, 1, 2), STRIDE)
    return torch.unflatten(mean.permute(0, 2, 3, 1), 0, (batch, count)) / STRIDE - 0.5


def sample_pixels(pictures: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """Samples of pictures [B, N, C, H, W] at place [B, N, h, w, 2] (pixels, centres at +0.5; the
    border repeats) -> [B, N, C, h, w]. `mode` "bicubic" keeps what is fine, and may overshoot."""
    batch, count = pictures.shape[:2]
    # filled where they are needed: numbers from the host would make a GPU wait
    height, width = pictures.shape[-2:]
    size = torch.stack([place.new_full((), width), place.new_full((), height)])
    grid = (place.flatten(0, 1) * 2 / size - 1).to(pictures.dtype)
    taken = F.grid_sample(
        pictures.flatten(0, 1), grid, mode=mode, padding_mode="border", align_corners=False
    )
    return torch.unflatten(taken, 0, (batch, count))


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, C, H, W] with the border repeated."""
    reach = max(int(3 * sigma + 0.5), 1)
    x = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = pictures.shape[1]
    padded = F.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    row = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    column = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    return F.conv2d(F.conv2d(padded, row, groups=channels), column, groups=channels)


def mix(values: Tensor, logits: Tensor, sharpness: Tensor | float = 1.0) -> Tensor:
    """Values [B, N, C, h, w] of N references, mixed by the softmax over references of logits
    [B, N, h, w] times `sharpness`: [B, C, h, w]."""
    return (values * (sharpness * logits).softmax(1)[:, :, None]).sum(1)


def copy_pixels(low: Tensor, detail: Tensor, logits: Tensor, sharpness: Tensor) -> Tensor:
    """Copy pixels from references in two bands.

    The coarse band is the attention-weighted mean, which is accurate; the fine band uses the same
    logits, sharpened, so that detail comes from about one reference and is not averaged away.

    Args:
        low: [B, N, 3, h, w] coarse band of the warped references; detail: what it lacks.
        logits: [B, N, h, w]; sharpness: scalar, at least 1.

    Returns:
        [B, 3, h, w].
    """
    return mix(low, logits) + mix(detail, logits, sharpness)


class Decoder(nn.Module):
    """D_tex: two up-sampling convolutions, latents to a correction of the copied picture."""

    def __init__(self, latent: int, width: int):
        super().__init__()
        half, quarter = width * 3 // 4, width // 2
        self.inp = nn.Conv2d(latent + 3, width, 3, padding=1)
        self.block = Residual(width)
        self.up1 = nn.Conv2d(width, 4 * half, 1)
        self.mid = nn.Conv2d(half + 6, half, 3, padding=1)
        self.up2 = nn.Conv2d(half, 4 * quarter, 1)
        self.fine = nn.Conv2d(quarter + 6, quarter, 3, padding=1)
        self.out = nn.Conv2d(quarter, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.out.parameters():
                parameter.zero_()

    def changes_something(self) -> bool:
        """Whether the correction can differ from zero: it is all zeros at first, and stays so where
        training found nothing to repair."""
        return any(bool(parameter.any()) for parameter in self.out.parameters())

    def forward(self, latent: Tensor, pncc: Tensor, copied: Tensor) -> Tensor:
        """latent [B, C, h/4, w/4], pncc and copied [B, 3, h, w] -> correction [B, 3, h, w]."""
        x = torch.cat([latent, F.avg_pool2d(pncc, 4)], 1)
        x = self.block(self.inp(x))
        x = F.pixel_shuffle(self.up1(F.silu(x)), 2)
        half = torch.cat([F.avg_pool2d(pncc, 2), 2 * F.avg_pool2d(copied, 2) - 1], 1)
        x = self.mid(torch.cat([F.silu(x), half], 1))
        x = F.pixel_shuffle(self.up2(F.silu(x)), 2)
        x = self.fine(torch.cat([F.silu(x), pncc, 2 * copied - 1], 1))
        correction: Tensor = self.out(F.silu(x))
        return correction


class Renderer(nn.Module):
    """Both encoders, both attention heads and the decoder."""

    def __init__(self, config: RendererConfig | None = None):
        super().__init__()
        self.config = c = config or RendererConfig()
        self.geometry_encoder = LatentEncoder(c.geometry_width)
        self.texture_encoder = LatentEncoder(c.texture_width)
        self.key = nn.Conv2d(c.geometry_width, c.geometry_width, 1)
        self.lip = LipHead(c.geometry_width, c.window)
        self.face = FaceHead()
        self.decoder = Decoder(c.texture_width, c.decoder_width)

    def encode_textures(self, pictures: Tensor) -> Tensor:
        """Texture latents [B, N, D, H/4, W/4] of pictures [B, N, 3, H, W], RGB in 0..1."""
        return _last(self.texture_encoder(pictures.flatten(0, 1)), pictures)

    def lip_references(self, texture: Tensor, pncc: Tensor) -> LipReferences:
        """Lip references from their latents (see `encode_textures`) and maps [B, N, 3, H, W]."""
        key = self.key(self.geometry_encoder(pncc.flatten(0, 1)))
        colours = F.avg_pool2d(pncc.flatten(0, 1), STRIDE)
        return LipReferences(_last(key, pncc), texture, _last(colours, pncc))

    def encode_target(self, pncc: Tensor) -> Tensor:
        """Geometry latent [B, C, h/4, w/4] of target maps [B, 3, h, w]."""
        latent: Tensor = self.geometry_encoder(pncc)
        return latent


def _last(maps: Tensor, like: Tensor) -> Tensor:
    """[B * N, ...] as [B, N, ...], channels last in memory: attention reads whole tokens, and its
    table is then a view."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    return torch.unflatten(maps, 0, tuple(like.shape[:2]))
