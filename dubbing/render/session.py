"""Stage 2 at work: one speaker's frames rendered with new geometry, at the frame's own resolution.

Attention runs in the window's scale; the pixels are copied from the references at the resolution
of the frame, so that a large face is not a small picture enlarged.

Where things lie (a few hundred points a frame) is computed on the CPU, what they look like on the
renderer's device: a GPU would spend more time on starting hundreds of such steps than on the
picture, and on telling the CPU what it found. A frame's geometry goes there in one piece.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dubbing.geometry.morphable import MorphableModel
from dubbing.models.attention import Attended
from dubbing.models.renderer import (
    Correspondence,
    LipReferences,
    Renderer,
)
from dubbing.render.ablation import FULL, NoRegistration, RenderAblation
from dubbing.render.copying import Reference, Sources
from dubbing.render.mesh import RenderMesh
from dubbing.render.mouths import Moments, MouthBank
from dubbing.render.painting import Painter, Patch, Sketch
from dubbing.render.pictures import (
    FacePicture,
    join_states,
    posed_states,
    tracked_states,
    window_of,
)
from dubbing.render.precision import fast_convolutions
from dubbing.render.registration import Registration, carried, shifted
from dubbing.render.scene import (
    LIP_WINDOW,
    FaceStates,
    TargetMaps,
    correspond,
    cut,
    lip_corner,
    needed_mask,
    part_of_match,
    reference_maps,
    target_maps,
)
from dubbing.render.smooth import smoothed

MAX_LIPS = 8  # references of the bank that a frame's attention reads: those deformed most like it
APART = 0.7  # logit per frame of distance: of face references that fit alike the nearest in time
# is preferred, whose light and pose are the frame's own
MAX_APART = 3  # frames, from where on, and for the bank, time makes no more difference
AROUND = 3  # frames, from where on a frame no more helps to tell where the head is
MAX_EXPECTED = 4  # face references that are registered ahead of the frames that use them

Placed = tuple[FaceStates, Tensor, Tensor]
"""Of a picture, on the CPU: tracked geometry, window [1, 3, 144, 192], registration [V + R, 2]"""


class RenderSession:
    """Renders frames of one speaker.

    Args:
        renderer: on the device that draws.
        model, mesh: on the CPU.
        template: [V, 3] the speaker's neutral face, on the CPU.
        lip_references: the persona's reference bank, fixed for the whole clip.
        ablation: what to do without, to see what it is worth.
    """

    def __init__(
        self,
        renderer: Renderer,
        model: MorphableModel,
        mesh: RenderMesh,
        template: Tensor,
        lip_references: list[FacePicture],
        ablation: RenderAblation = FULL,
    ):
        self.renderer, self.model, self.mesh, self.template = renderer, model, mesh, template
        self.device = next(renderer.parameters()).device
        self._device_mesh = mesh.to(self.device)
        self._painter = Painter(renderer)
        self.repairs = self._painter.repairs
        self.ablation = ablation
        self._cache: OrderedDict[int, Reference] = OrderedDict()
        self._placing: OrderedDict[int, Future[Placed]] = OrderedDict()
        self._ahead = ThreadPoolExecutor(1, "registration")
        tracked = [self._tracked(picture) for picture in lip_references]
        windows = [
            window_of(picture, states)
            for picture, states in zip(lip_references, tracked, strict=True)
        ]
        register = Registration if ablation.registration else NoRegistration
        self.registration = register(
            mesh, torch.cat(windows), join_states(tracked), self._known(lip_references)
        )
        bank = [
            self._encode(picture, states, window, offset, latents=self.repairs)
            for picture, states, window, offset in zip(
                lip_references, tracked, windows, self.registration.offset, strict=True
            )
        ]
        self._bank = bank
        self._bank_states = join_states([r.states for r in bank])
        scale = F.softplus(renderer.lip.mouth_scale).detach().cpu()
        self._mouths = MouthBank.of(self._bank_states, scale)
        maps = reference_maps(self._device_mesh, self._bank_states.to(self.device))
        self._lip_references = renderer.lip_references(
            _joined([r.texture for r in bank]), maps[None]
        )

    @torch.inference_mode()
    def render(
        self,
        key: int,
        frame: FacePicture,
        displacement: Tensor,
        references: list[tuple[int, FacePicture]],
        strength: float = 1.0,
        around: Moments | None = None,
    ) -> Patch:
        """The lower face of `frame` with new geometry.

        Args:
            key: the frame's number.
            displacement: [V, 3] target displacement from the template (canonical), on the CPU.
            references: the face references (paper: the five frames centred on this one) with
                their numbers, under which their encodings are kept while they stay in use.
            strength: 0..1 weight of the result against the source (eases transitions).
            around: what the frame's time and those around it show: they tell which mouths of the
                bank follow each other (`MouthBank`). None: the frame alone.
        """
        near = [self._reference(number, picture) for number, picture in references]
        while len(self._cache) > 2 * len(references):
            self._cache.popitem(last=False)
        numbers = [number for number, _ in references]
        source, target = self._geometry(key, frame, displacement[None], numbers)
        corner = lip_corner(self.mesh, target, frame.pose[None])
        moments = around or Moments(displacement[None], frame.pose[None])
        like, mouths = self._mouths.shown(moments, MAX_LIPS)
        bank = [self._bank[k] for k in like.tolist()]
        known = [target, source, *(r.states for r in near), self._bank_states[like]]
        states = join_states(known).to(self.device)
        new, old, shown = states[:1], states[1:2], states[2:]  # the frame's, the references'
        maps = target_maps(self._device_mesh, new)
        if not self.ablation.lip_attention:
            maps = replace(maps, lips=torch.zeros_like(maps.lips))
        lips, mouths = _chosen(self._lip_references, like), mouths.to(self.device)
        match = correspond(maps.raster, new, shown, len(near) + len(bank))
        lip_match = part_of_match(match, len(bank), corner, LIP_WINDOW)
        lip_match = replace(lip_match, mouth=mouths[None])
        by_lips = self._attend_lips(maps, corner, lips, lip_match)
        mouth = Sources(bank, lip_match, by_lips, self.renderer.lip)
        apart = [min(abs(number - key), MAX_APART) for number in numbers]
        if self.ablation.face_attention:
            face = self._attend_face(match, near, bank, apart)
        else:
            face = self._lips_everywhere(maps, match, bank, lips, mouths)
        drift = self._drift(maps, new, old)
        maps = replace(maps, mask=needed_mask(self._device_mesh, maps, drift))
        sketch = Sketch(target.window[0], maps, corner, face, mouth, drift)
        return self._painter.paint(frame, sketch, strength)

    def _known(self, bank: list[FacePicture]) -> Tensor | None:
        """What the bank agreed on before [N, V + R, 2], where all of it knows for this mesh; on the
        CPU."""
        offsets = [p.offset for p in bank if p.offset is not None]
        if len(offsets) < len(bank) or any(len(o) != len(self.mesh.colours) for o in offsets):
            return None
        return torch.stack(offsets)

    def forget(self) -> None:
        """Drop the encoded face references: their keys will be given to other frames."""
        self._cache.clear()
        self._placing.clear()

    def expect(self, key: int, picture: FacePicture) -> None:
        """Begin to register a face reference of the frames to come, beside the drawing of the
        frames before them; the pictures stay the same. What is not used after all is forgotten."""
        if key not in self._cache and key not in self._placing:
            self._placing[key] = self._ahead.submit(self._placed, picture)
        while len(self._placing) > MAX_EXPECTED:
            self._placing.popitem(last=False)

    def _tracked(self, picture: FacePicture) -> FaceStates:
        """The geometry that the tracker saw in a picture."""
        return tracked_states(self.model, self.mesh, self.template, picture)

    def _geometry(
        self, key: int, frame: FacePicture, displacement: Tensor, near: list[int]
    ) -> tuple[FaceStates, FaceStates]:
        """Registered geometry of a frame: as it is, and with another displacement [1, V, 3];
        `near` are the numbers of its face references."""
        tracked = self._tracked(frame)
        target = posed_states(self.mesh, self.template, displacement, frame.pose[None])
        known = key in self._cache and frame.offset is None
        offset = self._cache[key].offset if known else self._registered(frame, tracked)
        moved = (target.vertices - tracked.vertices)[0, :, :2].norm(dim=-1) / target.window[0, 2]
        kept = carried(offset, tracked, moved, self._around(key, offset, near))
        return shifted(tracked, offset[None]), shifted(target, kept[None])

    def _around(self, key: int, offset: Tensor, near: list[int]) -> Tensor:
        """Mean registration [V + R, 2] of a frame, whose own is `offset`, and of those around it
        (`near`), which count less the farther they are."""
        total, whole = offset * AROUND, AROUND
        for number in near:
            weight = AROUND - abs(number - key)
            if number != key and weight > 0:
                total, whole = total + self._cache[number].offset * weight, whole + weight
        return total / whole

    def _reference(self, key: int, picture: FacePicture) -> Reference:
        if key not in self._cache:
            known = self._placing.pop(key, None)
            placed = self._placed(picture) if known is None else known.result()
            # without a repair nobody reads the latents
            self._cache[key] = self._encode(picture, *placed, latents=self.repairs)
        self._cache.move_to_end(key)
        return self._cache[key]

    def _placed(self, picture: FacePicture) -> Placed:
        """A picture's tracked geometry, its window and its registration; all on the CPU."""
        states = self._tracked(picture)
        window = window_of(picture, states)
        return states, window, self._registered(picture, states, window)

    def register(self, picture: FacePicture) -> Tensor:
        """Offsets [V + R, 2] of a frame's mesh in window pixels, see `Registration.register`."""
        return self._registered(picture, self._tracked(picture))

    def _registered(
        self, picture: FacePicture, states: FaceStates, window: Tensor | None = None
    ) -> Tensor:
        if picture.offset is not None:
            return picture.offset
        window = window_of(picture, states) if window is None else window
        return self.registration.register(window, states)

    @torch.inference_mode()
    def _encode(
        self, picture: FacePicture, tracked: FaceStates, image: Tensor, offset: Tensor,
        latents: bool,
    ) -> Reference:  # fmt: skip
        """Encode one reference; `image` is its window, on the CPU."""
        states = shifted(tracked, offset[None])
        texture = torch.zeros(1, 1, 0, 1, 1, device=self.device)
        if latents:
            with fast_convolutions(self.device):
                texture = self.renderer.encode_textures(image[None].to(self.device)).float()
        coarse = smoothed(image, self.renderer.config.blur)[0].to(self.device)
        place = torch.tensor(picture.origin).float()
        return Reference(coarse, picture.pixels, place, offset, states, texture)

    def _attend_face(
        self, match: Correspondence, near: list[Reference], bank: list[Reference],
        apart: list[int],
    ) -> Sources:  # fmt: skip
        """Face-Attention over the face references, `apart` frames away each, and the bank."""
        kept = slice(None) if self.ablation.lip_attention else slice(len(near))
        references, match = [*near, *bank][kept], _of(match, kept)
        if self.repairs:
            found = self.renderer.face(_joined([r.texture for r in references]), match)
        else:  # nobody reads the latents
            prior = self.renderer.face.prior(match.cost, match.turn)
            found = Attended(prior.new_zeros(1, 0, 1, 1), prior)
        away = torch.tensor([*apart, *[MAX_APART] * len(bank)][kept], device=self.device)
        logits = found.reference_logits - APART * away[:, None, None]
        return Sources(references, match, Attended(found.value, logits), self.renderer.face)

    def _lips_everywhere(
        self, maps: TargetMaps, match: Correspondence, bank: list[Reference], lips: LipReferences,
        mouths: Tensor,
    ) -> Sources:  # fmt: skip
        """Lip-Attention in place of Face-Attention, see `RenderAblation`."""
        match = replace(_of(match, slice(-len(bank), None)), mouth=mouths[None])
        geometry = self.renderer.encode_target(maps.pncc)
        found = self.renderer.lip(geometry, maps.pncc, lips, match)
        return Sources(bank, match, found, self.renderer.lip)

    def _attend_lips(
        self, maps: TargetMaps, corner: Tensor, lips: LipReferences, match: Correspondence
    ) -> Attended:
        r = self.renderer
        with fast_convolutions(self.device):
            geometry = r.encode_target(maps.pncc).float()
        geometry = cut(geometry, corner // 4, (LIP_WINDOW[0] // 4, LIP_WINDOW[1] // 4))
        pncc, seen = cut(maps.pncc, corner, LIP_WINDOW), cut(maps.lips, corner, LIP_WINDOW)
        found: Attended = r.lip(geometry, pncc, lips, match, seen)
        return found

    def _drift(self, maps: TargetMaps, target: FaceStates, source: FaceStates) -> Tensor:
        """[1, 1, h, w] distance between target and source geometry in window pixels."""
        away = (target.drawn() - source.drawn())[..., :2].norm(dim=-1, keepdim=True)
        return maps.raster.interpolate(away)


def _of(match: Correspondence, kept: slice) -> Correspondence:
    """The correspondence with some of the references."""
    parts = (match.place, match.cost, match.turn, match.mouth)
    return Correspondence(*(part[:, kept] for part in parts))


def _joined(textures: list[Tensor]) -> Tensor:
    """References [1, 1, D, h, w] side by side [1, N, D, h, w], channels last in memory."""
    return torch.cat([t.permute(0, 1, 3, 4, 2) for t in textures], 1).permute(0, 1, 4, 2, 3)


def _chosen(references: LipReferences, index: Tensor) -> LipReferences:
    """The references `index` [K]."""
    index = index.to(references.key.device)
    maps = (references.key, references.texture, references.pncc)
    last = (m.permute(0, 1, 3, 4, 2)[:, index].permute(0, 1, 4, 2, 3) for m in maps)
    return LipReferences(*last)  # channels stay last in memory
