"""The robot's way in: a ROS 2 lifecycle node that publishes where in the camera's images the described things are.

```sh
ros2 launch groundlink_ros locate.launch.py image:=/camera/image_raw prompts:="['red cup', 'door handle']"
```

`LocateNode` is the node, for a program that runs it beside nodes of its own; `main` is the executable. Importing this
package needs no ROS; using either does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ros2_node.main import main
    from ros2_node.node import LocateNode

__all__ = ["LocateNode", "main"]

_AT_FIRST_USE = {"LocateNode": "ros2_node.node", "main": "ros2_node.main"}


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module 'ros2_node' has no attribute {name!r}")
    return getattr(import_module(_AT_FIRST_USE[name]), name)
