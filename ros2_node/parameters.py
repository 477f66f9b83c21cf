"""The node's parameters: what they are called, mean and may be. One place for all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import Parameter

from groundlink import TASKS, BadQuery, Query

MAX_PROMPTS = 256
"""Prompts that the node takes; more would take minutes for each frame."""


@dataclass(frozen=True)
class Spec:
    """One parameter. `low` and `high` bound a number, `choices` a string; one of `dynamic` can be set at run time."""

    default: Any
    description: str
    dynamic: bool = False
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> Parameter.Type:
        """The parameter's type in ROS."""
        return Parameter.Type.from_parameter_value(self.default)

    def descriptor(self) -> ParameterDescriptor:
        """What ROS tools show of the parameter, and hold it to."""
        described = ParameterDescriptor(description=self.description, read_only=not self.dynamic)
        if self.high:
            described.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        if self.choices:
            described.additional_constraints = "one of: " + ", ".join(repr(choice) for choice in self.choices)
        return described

    def problem(self, name: str, value: Any) -> str | None:
        """Return why `value` is not one for this parameter, with the remedy; None where it is."""
        # An empty list has no type of its own in ROS.
        if Parameter.Type.from_parameter_value(value) != self.type and not (self.default == [""] and value == []):
            return (
                f"the parameter {name!r} is a {_in_words(self.type)}, but got {value!r:.80}, "
                f"a {_in_words(Parameter.Type.from_parameter_value(value))}"
            )
        if self.choices and value not in self.choices:
            return f"the parameter {name!r} is one of {', '.join(self.choices)}, not {value!r:.80}"
        if self.high and not self.low <= value <= self.high:
            return f"the parameter {name!r} lies in {self.low:g}…{self.high:g}, and {value:g} does not"
        return None


PARAMETERS: dict[str, Spec] = {
    "backend": Spec("", "the model that looks, such as 'ocr', 'locateanything' or 'demo'; empty: groundlink's choice"),
    "model": Spec("", "the folder or hub name of the model's weights; empty: the backend's own"),
    "device": Spec("", "where the model runs: 'cpu', 'cuda', 'cuda:1'; empty: the backend's choice"),
    "settings": Spec("", 'further settings of the backend, a JSON object such as \'{"mode": "fast"}\''),
    "task": Spec(
        "",
        "what is asked with the prompts; empty: 'detect' (all in one question) where the backend does it, "
        "else its first task",
        choices=("", *(task for task in TASKS if task != "example")),
    ),
    "prompts": Spec([""], "what to look for, one phrase each", dynamic=True),
    "threshold": Spec(0.0, "detections with a lower score are left out", dynamic=True, high=1.0),
    "max_rate": Spec(
        0.0, "frames a second that are looked at, at most; 0: as many as can be", dynamic=True, high=1000.0
    ),
    "deadline": Spec(
        0.0,
        "seconds for each question, after which what was found by then is the answer; 0: none",
        dynamic=True,
        high=86_400.0,
    ),
    "request_timeout": Spec(
        30.0, "seconds that ~/locate may take where the caller names none", dynamic=True, low=0.001, high=86_400.0
    ),
    "enabled": Spec(True, "whether the camera's images are looked at; ~/enable sets it, too", dynamic=True),
    "image_reliability": Spec(
        "best_effort", "reliability of the image subscription (REP 2003)", choices=("best_effort", "reliable")
    ),
    "image_transport": Spec(
        "auto", "'raw' images, 'compressed' ones, or what there is", choices=("auto", "raw", "compressed")
    ),
    "autostart": Spec(False, "configure and activate at start, without a lifecycle manager"),
}


def declare(node: Any, report: Callable[[str], None]) -> None:
    """Declare all parameters on `node`.

    A value given at start that does not fit is told to `report`, and the default stands in its place: a node that dies
    of a typing error in a launch file is of no use to a robot. A whole number is taken for a number with a fraction.
    """
    for name, spec in PARAMETERS.items():
        # First with any type, since a value of the wrong one would end the construction of the node.
        given = node.declare_parameter(name, spec.default, ParameterDescriptor(dynamic_typing=True)).value
        node.undeclare_parameter(name)
        value = fitting(name, given)
        problem = spec.problem(name, value)
        if problem is not None:
            report(f"{problem}; {spec.default!r} is taken instead")
            value = spec.default
        if value == []:  # which has no type of its own
            value = spec.default
        try:
            node.declare_parameter(name, value, spec.descriptor(), ignore_override=True)
        except InvalidParameterValueException as error:
            report(f"{error}; {spec.default!r} is taken instead")
            node.declare_parameter(name, spec.default, spec.descriptor(), ignore_override=True)


def fitting(name: str, value: Any) -> Any:
    """Return the value as the parameter's type has it, where nothing is lost by that; else as it is."""
    wanted = PARAMETERS[name].type
    if wanted == Parameter.Type.DOUBLE and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def refusal(name: str, value: Any) -> str | None:
    """Return why a parameter of ours cannot be set to a value, beyond what ROS itself checks; None where it can."""
    problem = PARAMETERS[name].problem(name, value)
    if problem is None and name == "prompts":
        try:
            phrases(value)
        except BadQuery as error:
            problem = str(error)
    return problem


def phrases(prompts: list[str]) -> tuple[str, ...]:
    """Return the phrases of a list of prompts, each once, white space folded.

    Raises:
        BadQuery: there is none, there are too many, or one cannot be a question.
    """
    if not prompts or prompts == [""]:
        raise BadQuery("there is no prompt; name what to look for, or stop the looking with ~/enable")
    if len(prompts) > MAX_PROMPTS:
        raise BadQuery(f"there are {len(prompts)} prompts, and at most {MAX_PROMPTS} are taken")
    return tuple(dict.fromkeys(Query("ground", (prompt,)).phrases[0] for prompt in prompts))


def backend_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments for `groundlink.load` that the parameters ask for.

    Raises:
        BadQuery: `settings` is no JSON object.
    """
    settings: dict[str, Any] = {}
    if values["settings"]:
        try:
            settings = json.loads(values["settings"])
        except ValueError as error:
            raise BadQuery(f"the parameter 'settings' is not JSON ({error}): {values['settings']!r:.80}") from error
        if not isinstance(settings, dict):
            raise BadQuery(f"the parameter 'settings' is a JSON object, not {values['settings']!r:.80}")
    return settings | {name: values[name] for name in ("model", "device") if values[name]}


def accepted() -> SetParametersResult:
    """The answer to a change of parameters that is taken."""
    return SetParametersResult(successful=True)


def refused(reason: str) -> SetParametersResult:
    """The answer to a change of parameters that is not."""
    return SetParametersResult(successful=False, reason=reason)


def _in_words(kind: Parameter.Type) -> str:
    return str(kind.name).lower().replace("_", " ")
