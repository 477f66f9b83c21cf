"""Automation of a desktop: say what to click, and know whether it worked.

```python
from screen_agent import ScreenAgent

agent = ScreenAgent()
agent.click("the Save button")
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from screen_agent.agent import ScreenAgent
    from screen_agent.capture import Screen, Shot, View, screenshot
    from screen_agent.ground import Target
    from screen_agent.log import ActionLog
    from screen_agent.pointer import Pointer
    from screen_agent.policy import Policy, Proposal
    from screen_agent.results import Result, Sighting
    from screen_agent.windows import Window

_WHERE = {
    "ActionLog": "log",
    "Pointer": "pointer",
    "Policy": "policy",
    "Proposal": "policy",
    "Result": "results",
    "Screen": "capture",
    "ScreenAgent": "agent",
    "Shot": "capture",
    "Sighting": "results",
    "Target": "ground",
    "View": "capture",
    "Window": "windows",
    "screenshot": "capture",
}
"""Public names and their modules, imported at first use: the command line asks for one picture without the rest."""

__all__ = [
    "ActionLog",
    "Pointer",
    "Policy",
    "Proposal",
    "Result",
    "Screen",
    "ScreenAgent",
    "Shot",
    "Sighting",
    "Target",
    "View",
    "Window",
    "screenshot",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'screen_agent' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"screen_agent.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
