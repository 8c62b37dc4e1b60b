"""What the parameters of a run are, in plain values: stored with every checkpoint, read to load one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.described import Distilled, SamplingDefaults, config_from_json
from camctrl_jax.interop.fields import TEXT, Kind, check_fields, or_null, shown
from camctrl_jax.models import ClipFeaturesConfig, MMDiTConfig, VAEConfig

# Of sampling defaults, what the clips of a run were; guidance stands elsewhere in its configuration.
_CLIP_FIELDS = ("frames", "height", "width", "fps", "shift", "retrieved", "reference")
_OBJECT_OR_NULL = or_null(Kind("an object", lambda value: isinstance(value, Mapping)))
_KINDS = dict.fromkeys(("vae", "mmdit", "text", "clip"), _OBJECT_OR_NULL) | {"vae_spec": or_null(TEXT)}


@dataclass(frozen=True)
class Architecture:
    """The ``architecture`` entry of a checkpoint. What a run does not have, or nothing is known of, is None.

    Attributes:
        vae: the autoencoder that is stored, with the latent statistics measured on its data.
        mmdit: the transformer that is stored.
        text: settings of the text embedder.
        clip: ``frames``, ``height``, ``width``, ``fps`` and ``shift`` (None: from the number of tokens)
            of the clips it was trained on; ``retrieved`` and ``reference``, not in that of earlier versions,
            of its extensions.
        vae_spec: weights spec of the autoencoder that belongs to the transformer.
        clip_features: the network of clip features that is stored.
        distilled: of a student, what it was made for; not in the entry of a model that is none.
    """

    vae: VAEConfig | None = None
    mmdit: MMDiTConfig | None = None
    text: Mapping[str, Any] | None = None
    clip: Mapping[str, Any] | None = None
    vae_spec: str | None = None
    clip_features: ClipFeaturesConfig | None = None
    distilled: Distilled | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        distilled = {} if self.distilled is None else {"distilled": dataclasses.asdict(self.distilled)}
        return {
            "vae": None if self.vae is None else dataclasses.asdict(self.vae),
            "mmdit": None if self.mmdit is None else dataclasses.asdict(self.mmdit),
            "text": None if self.text is None else dict(self.text),
            "clip": None if self.clip is None else dict(self.clip),
            "vae_spec": self.vae_spec,
            "clip_features": None if self.clip_features is None else dataclasses.asdict(self.clip_features),
            **distilled,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """What :meth:`to_json` gave, of this or an earlier version.

        Raises:
            InvalidValue: it does not describe models of this package; names the entry.
        """
        if not isinstance(content, Mapping):
            raise InvalidValue(f"the entry 'architecture' is {shown(content)}; expected an object.")
        for name, kind in _KINDS.items():
            if name not in content:
                raise InvalidValue(f"the entry 'architecture' is damaged: {name!r} is missing from it.")
            check_fields(content, {name: kind}, "the entry 'architecture' is damaged")
        vae, mmdit = content["vae"], content["mmdit"]
        features, distilled = (content.get(name) for name in ("clip_features", "distilled"))
        return cls(
            vae=None if vae is None else config_from_json(VAEConfig, vae),
            mmdit=None if mmdit is None else config_from_json(MMDiTConfig, mmdit),
            text=content["text"],
            clip=content["clip"],
            vae_spec=content["vae_spec"],
            clip_features=None if features is None else config_from_json(ClipFeaturesConfig, features),
            distilled=None if distilled is None else config_from_json(Distilled, distilled),
        )

    def sampling(self, guidance: Mapping[str, float]) -> SamplingDefaults | None:
        """The clips it was trained on, with these guidance weights; None if nothing is known of clips.

        Raises:
            InvalidValue: a field of the clips is missing or of another kind.
        """
        if self.clip is None:
            return None
        given = {name: weight for name, weight in guidance.items() if weight is not None}
        if self.distilled is not None:  # what its previews were drawn with is folded in
            given = {"text_guidance": 1.0, "camera_guidance": 1.0, "steps": self.distilled.valid_steps[0]}
        return config_from_json(SamplingDefaults, {**self.clip, **given})


def clip_of(defaults: SamplingDefaults) -> dict[str, Any]:
    """The ``clip`` of an architecture."""
    return {name: getattr(defaults, name) for name in _CLIP_FIELDS}
