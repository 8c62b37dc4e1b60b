"""What a diffusers scheduler's settings mean here: the timestep shift of Euler steps along a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camctrl_jax.errors import InvalidValue
from camctrl_jax.interop.fields import FLAG, SIZE, TEXT, check_fields, number, or_null, shown

SCHEDULER_CLASS = "FlowMatchEulerDiscreteScheduler"
_EULER = (SCHEDULER_CLASS, "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
# Solvers of other processes that follow a flow if they are told to, as Wan's are.
_MAY_FLOW = (
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)
_FLOW = "flow_prediction"
_OTHER_GRIDS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)
_KINDS = {
    "shift": or_null(number(above=0.0)),
    "flow_shift": or_null(number(above=0.0)),
    "use_dynamic_shifting": FLAG,
    "shift_terminal": or_null(number(least=0.0)),
    "use_flow_sigmas": FLAG,
    **dict.fromkeys(("base_shift", "max_shift"), or_null(number())),
    **dict.fromkeys(("base_image_seq_len", "max_image_seq_len"), or_null(SIZE)),
    "time_shift_type": TEXT,
    **dict.fromkeys(_OTHER_GRIDS, or_null(FLAG)),
}


@dataclass(frozen=True)
class SchedulerSettings:
    """What is taken of a scheduler.

    Attributes:
        shift: the timestep shift, or None if the settings give none that is fixed.
        remarks: what of the settings is not done here, for people.
    """

    shift: float | None = None
    remarks: tuple[str, ...] = ()


def scheduler_settings_of(content: Mapping[str, Any], source: str) -> SchedulerSettings:
    """Read ``scheduler_config.json``.

    Args:
        content: of the file.
        source: its name, for errors and remarks.

    Raises:
        InvalidValue: a value of another kind, or a process that is no flow from noise to data: a model of it
            predicts something else.
    """
    check_fields(content, _KINDS, source)
    name = content.get("_class_name", SCHEDULER_CLASS)
    prediction = content.get("prediction_type", _FLOW)
    flows = name in _EULER or (
        name in _MAY_FLOW and content.get("use_flow_sigmas") and "prediction_type" in content
    )
    if not flows or prediction != _FLOW:
        what = f"prediction_type is {shown(prediction)}" if prediction != _FLOW else f"it is of a {name}"
        raise InvalidValue(
            f"{source}: {what}; this package samples a flow from noise to data, as {SCHEDULER_CLASS} does, "
            "and a model of another process would be run wrongly. Is this scheduler the model's own? If not, "
            "mend or remove the file."
        )
    if content.get("num_train_timesteps", 1000) != 1000:
        raise InvalidValue(
            f"{source}: num_train_timesteps is {shown(content['num_train_timesteps'])}; expected 1000: "
            "models are told 1000 times the time here."
        )
    remarks = []
    own, other = ("shift", "flow_shift") if name in _EULER else ("flow_shift", "shift")
    shift = content.get(own)
    if own == "shift" and "shift" in content and shift is None and not content.get("use_dynamic_shifting"):
        raise InvalidValue(f"{source}: shift is null; expected a finite number above 0, which a {name} uses.")
    if content.get(other) is not None:
        remarks.append(f"{other} is {shown(content[other])}, which a {name} does not read: it is ignored")
    if content.get("use_dynamic_shifting"):
        remarks.append(
            "use_dynamic_shifting is true: there the shift grows with the number of tokens, by diffusers' "
            f"own rule, and {own} is not used. Here every clip size is sampled with one shift, so none is "
            "taken from this file: give it when sampling (--shift)"
        )
        shift = None
    if name != SCHEDULER_CLASS:
        remarks.append(f"it is of a {name}: sampling takes Euler steps on the same time grid here")
    remarks += [
        f"{field} is {shown(content[field])}: another time grid, which is not sampled with here"
        for field in (*_OTHER_GRIDS, "shift_terminal")
        if content.get(field)
    ]
    return SchedulerSettings(
        None if shift is None else float(shift), tuple(f"{source}: {remark}." for remark in remarks)
    )
