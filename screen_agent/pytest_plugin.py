"""Fixtures for tests of graphical programs, by description.

```python
def test_saving(screen_agent):
    screen_agent.type_into("the Name field", "Ada")
    screen_agent.click("the Save button", expect="Saved")
```

The plugin is found by pytest wherever groundlink is installed, and loads nothing before a fixture is used. Where a test
fails, the last picture of the screen and the log of what was done stay in the test's temporary folder, and the report
says where.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from groundlink.locator import Locator
    from screen_agent.agent import ScreenAgent
    from screen_agent.policy import Policy

_AGENT = pytest.StashKey["tuple[ScreenAgent, Path]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--screen-backend` and the setting `screen_backend`."""
    group = parser.getgroup("groundlink")
    group.addoption("--screen-backend", help="the backend of the fixture screen_agent; see `groundlink doctor`")
    parser.addini("screen_backend", "the backend of the fixture screen_agent", default="")


@pytest.fixture(scope="session")
def screen_locator(request: pytest.FixtureRequest) -> Iterator[Locator]:
    """The backend that finds things, loaded once for all tests; define a fixture of this name for one of your own."""
    import groundlink

    name = request.config.getoption("--screen-backend") or request.config.getini("screen_backend") or None
    with groundlink.load(name) as locator:
        yield locator


@pytest.fixture
def screen_policy() -> Policy:
    """What the agent may do; define a fixture of this name for a policy of your own.

    By default words such as "delete", Enter and hotkeys are refused, as everywhere: a test of those says so, such as by
    `Policy(confirm=lambda proposal: True)`.
    """
    from screen_agent.policy import Policy

    return Policy()


@pytest.fixture
def screen_agent(
    request: pytest.FixtureRequest, screen_locator: Locator, screen_policy: Policy, tmp_path: Path
) -> Iterator[ScreenAgent]:
    """A `ScreenAgent` on the display that DISPLAY names; without one the test is an error, with the remedy."""
    from screen_agent.agent import ScreenAgent

    folder = tmp_path / "screen_agent"
    with ScreenAgent(screen_locator, policy=screen_policy, log=folder) as agent:
        agent.screen.monitors()  # no display: say so now, and not in the middle of a test
        request.node.stash[_AGENT] = (agent, folder)
        yield agent
        del request.node.stash[_AGENT]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Keep a picture of the screen where a test fails."""
    report = yield
    kept = item.stash.get(_AGENT, None)
    if kept is not None and report.when == "call" and report.failed:
        from groundlink.errors import GroundlinkError
        from groundlink.files import save_picture

        agent, folder = kept
        try:
            save_picture(agent.screenshot().image, folder / "failed.png")
            report.sections.append(("screen", f"the screen and what was done on it: {folder}"))
        except GroundlinkError as error:
            report.sections.append(("screen", f"no picture of the screen: {error}"))
    return report
