"""Small pictures of what was measured. They need matplotlib, from the extra `train`; importing this does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundlink.errors import BackendUnavailable, BadOutput
from groundlink.evaluation.calibration import Evidence, expected_calibration_error, reliability_bins
from groundlink.files import check_picture_path, save_whole
from groundlink.image import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#9aa0a6", "#1a66c2", "#d9730d", "#2e8b57", "#8a4fbe")
"""Grey is for what is compared with: the state before."""
_INK = "#333333"


def save_reliability(path: Path, before: Evidence, after: Evidence | None = None, title: str = "") -> None:
    """Draw the share of right answers over their score, in 15 bins of equal mass, to a PNG.

    Args:
        path: where to.
        before: answers with a score.
        after: the same with calibrated scores.
        title: what is drawn.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        BadOutput: the path is no PNG, or cannot be written.
    """
    figure, axes = _figure(path, (3.6, 3.6))
    axes.plot([0, 1], [0, 1], color="#cccccc", linewidth=1, zorder=1)
    given = [("as given", before), ("calibrated", after)]
    for color, (name, evidence) in zip(COLORS, given):
        if evidence is None or not len(evidence.scores):
            continue
        bins = reliability_bins(evidence.scores, evidence.right)
        error = expected_calibration_error(evidence.scores, evidence.right)
        x, y = [bin.score for bin in bins], [bin.right for bin in bins]
        axes.plot(x, y, "o-", color=color, markersize=4, label=f"{name}: ECE {error:.3f}", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="share of right answers", aspect="equal")
    _finish(figure, axes, f"{title} (n = {len(before.scores)})" if title else f"n = {len(before.scores)}", path)


def save_training_curve(path: Path, rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Draw what was logged while training, over its `step`, to a PNG.

    Args:
        path: where to.
        rows: a `step` each, and by their names the numbers to draw, such as `loss`; a row need not have all of them.
        title: what is drawn.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        BadOutput: the path is no PNG, or cannot be written.
    """
    figure, axes = _figure(path, (4.8, 3.2))
    names = list(dict.fromkeys(name for row in rows for name in row if name != "step"))
    for number, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if name in row]
        color = COLORS[(number + 1) % len(COLORS)]
        axes.plot([step for step, _ in points], [value for _, value in points], color=color, linewidth=1.4, label=name)
    axes.set(xlabel="step", ylabel=names[0] if len(names) == 1 else "")
    axes.set_ylim(bottom=0)
    _finish(figure, axes, title, path)


def _figure(path: Path, size: tuple[float, float]) -> tuple[Figure, Axes]:
    if path.suffix.lower() != ".png":
        raise BadOutput(f"{printable(str(path))}: figures are written as .png; give this ending")
    check_picture_path(path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable("figures need the package matplotlib: pip install 'groundlink[train]'") from error
    # Without pyplot: no window, no state of its own, and any thread may draw.
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, title: str, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8, length=3)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=_INK, fontsize=9)
    axes.set_title(title, fontsize=10, color=_INK, loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    save_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))
