"""`python -m ros2_node`: the node without an installed ROS package."""

from __future__ import annotations

import sys

from ros2_node.main import main

if __name__ == "__main__":
    sys.exit(main())
