"""The training loop: draw packed rows, sum the loss, take a step, tell of it, and now and then save it all.

Weights are float32 while they are trained; passes run in bfloat16 where the device is made for that. A training that is
broken off goes on by itself when it is started again, and on one machine in float32 ends with the same bits.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import xxhash
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from safetensors import safe_open
from torch import Tensor, nn

from groundlink._version import __version__
from groundlink.backends.locateanything.engine import DTYPES, choose_device
from groundlink.backends.locateanything.hub import find, tensor_files
from groundlink.backends.locateanything.model import LocateAnything
from groundlink.backends.locateanything.room import is_memory
from groundlink.backends.locateanything.weights import Checkpoint, open_checkpoint
from groundlink.errors import BadData, BadOutput, GroundlinkError, OutOfMemory
from groundlink.training import checkpoints
from groundlink.training.feed import Feed, SampleStream
from groundlink.training.initial import from_nothing
from groundlink.training.log import Log
from groundlink.training.objective import SUMS, ExtraLoss, Objective
from groundlink.training.packing import collate
from groundlink.training.sequences import Encoded, SampleEncoder
from groundlink.training.settings import HARMLESS, PARTS, TrainSettings

_EXTRA = "extra."  # begins the names of what an extra loss trains, which is no part of the model
_TABLES = ("embed_tokens.weight", "pos_emb.weight")  # which do not decay
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # what optimizers know of a weight
_MAX_TOLD = 8  # samples named in an error
_SAMPLED = 1024  # numbers at either end of a tensor that its identity is made of

Pass = Sequence[Sequence[Encoded]]


@dataclass(frozen=True)
class Trained:
    """What a training ended with: the folder of the model, its steps, and the figures last logged, if any."""

    folder: Path
    steps: int
    figures: dict[str, Any]


def train(
    model: str | os.PathLike[str] | Checkpoint,
    stream: SampleStream,
    out: str | os.PathLike[str],
    settings: TrainSettings | None = None,
    *,
    device: str = "auto",
    resume: bool = True,
    from_scratch: bool = False,
    extra_loss: ExtraLoss | None = None,
    on_progress: Callable[[str, float], None] = lambda doing, fraction: None,
    on_log: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> Trained:
    """Train a model, and leave it in `out` as a checkpoint that `groundlink.load` takes.

    Args:
        model: the folder of a checkpoint, a repository on the hub, or an opened checkpoint, whose module is trained
            itself (it must not have been decoded with).
        stream: endless samples; where it stands is saved with each checkpoint.
        out: the folder for checkpoints, logs and the model. Where a training was broken off, it goes on.
        settings: see `TrainSettings`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` …; under `accelerate launch`, each process has its own.
        resume: False to refuse a folder with a training in it.
        from_scratch: give the model new weights, whatever its folder holds.
        extra_loss: one more loss, of image features and batch. Where it is a module, its weights are trained too, and
            saved with the trainer's state only.
        on_progress: told what is being done, and how much of the training is done, in 0…1.
        on_log: told the figures that are logged.

    Raises:
        BadData: settings or data are unfit, or `out` holds another training, in what is said.
        BadImage: a picture of a sample cannot be opened.
        BadOutput: `out` cannot be written, is in use, or holds a model that is not from this training.
        WeightsNotFound, WeightsInvalid: as `groundlink.load` does.
        OutOfMemory: the device is too small for the model or for `max_tokens`.
        GroundlinkError: the loss is no number any more. The step is not taken.
        KeyboardInterrupt: it was interrupted (SIGINT, SIGTERM), and a checkpoint written; its words say where. A second
            SIGINT does not wait for the step.
    """
    settings = settings or TrainSettings()
    out = Path(out)
    # Passes without pictures leave the vision tower out.
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    share = (accelerator.process_index, accelerator.num_processes)
    place = choose_device(device) if accelerator.num_processes == 1 else accelerator.device
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(checkpoints.locked(out))
        accelerator.wait_for_everyone()
        on_progress("opening the model", 0.0)
        opened, files, save_as = _open(model, out, settings, from_scratch)
        run = _Run(opened, settings, place, accelerator, extra_loss)
        encoder = SampleEncoder(opened.tokenizer, opened.config, max_tokens=settings.max_tokens, seed=settings.seed)
        feed = Feed(stream, encoder.encode, settings.max_tokens, settings.rows, settings.workers, share)
        stack.enter_context(feed)
        saved = _resume(run, feed, out, resume)
        log = stack.enter_context(Log(out, run.step)) if accelerator.is_main_process else None
        signals = stack.enter_context(_Signals())
        figures: dict[str, Any] = {}

        def save() -> None:
            nonlocal saved
            positions = gather_object([run.position])  # each process has its own
            if accelerator.is_main_process:
                saved = checkpoints.save(out, run.snapshot(save_as, positions), files, settings.keep)
            run.unsaved = False

        try:
            while run.step < settings.steps:
                run.take_step(feed, signals)
                if run.step % settings.log_every == 0 or run.step == settings.steps:
                    figures = run.figures(feed.skipped)
                    if log is not None:
                        log.write(figures)
                    on_log(figures)
                on_progress(f"step {run.step}/{settings.steps}, loss {run.loss:.3f}", run.step / settings.steps)
                if run.step % settings.checkpoint_every == 0 or run.step == settings.steps or run.stopping:
                    save()
                if run.stopping and run.step < settings.steps:
                    raise KeyboardInterrupt(
                        f"stopped after step {run.step} of {settings.steps}, which is kept in {saved}; "
                        "the same command goes on from there"
                    )
        except Exception as error:
            # What was learnt before is good, so it is kept: after a repair, the same command goes on from here.
            if run.unsaved and share[1] == 1 and not isinstance(error, BadOutput):
                with suppress(BadOutput):
                    save()
            raise
        if accelerator.is_main_process and saved is not None:
            checkpoints.publish(saved, out)
        accelerator.wait_for_everyone()
    return Trained(out, run.step, figures)


class _Run:
    """The state of a training: weights, optimizer, and how far it is.

    Attributes:
        step: steps that are done.
        position: where the data stood after the last of them.
        loss: that of the last step, a mean over its labels.
        stopping: a signal came, to this process or another one.
        unsaved: there are whole steps behind the last checkpoint.
    """

    def __init__(
        self,
        opened: Checkpoint,
        settings: TrainSettings,
        place: torch.device,
        accelerator: Accelerator,
        extra: ExtraLoss | None,
    ) -> None:
        self.settings, self.place, self.accelerator = settings, place, accelerator
        self.step, self.samples = 0, 0
        self.position: dict[str, Any] = {}
        self.loss = math.nan
        self.stopping = self.unsaved = False
        self.model = _trainable(opened.model, settings)
        self.identity = _identity(self.model)
        torch.manual_seed(settings.seed)
        self.extra = extra if isinstance(extra, nn.Module) else None
        self.objective = Objective(self.model, settings, extra).to(place).train()
        self.forward = accelerator.prepare_model(self.objective, device_placement=False)
        named = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if self.extra is not None:
            named |= {_EXTRA + name: parameter for name, parameter in self.extra.named_parameters()}
        self.trained = named
        self.optimizers = _optimizers(named, settings)
        self.low = settings.precision == "bfloat16" or (settings.precision == "auto" and has_bfloat16(place))
        self._tally = _Tally()

    def take_step(self, feed: Feed, signals: _Signals) -> None:
        """Draw the passes of one step and take it.

        Raises:
            OutOfMemory: the device is too small for it.
            GroundlinkError: a loss or a gradient is no number, or a sample is unfit; the weights are as before.
        """
        began = time.perf_counter()
        passes = [feed.next() for _ in range(self.settings.accumulation)]
        drawn = time.perf_counter()
        try:
            sums, norm = self._gradients(passes, signals)
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            raise OutOfMemory(
                f"{self.place} has too little memory for a step; lower max_tokens or rows (and raise accumulation), "
                "set recompute to true, or freeze parts of the model"
            ) from error
        plain, plain_labels, block, block_labels, *_ = sums
        weight = plain_labels + self.settings.mtp_weight * block_labels
        loss = (plain + self.settings.mtp_weight * block) / max(weight, 1)
        if not math.isfinite(sum(sums)) or not math.isfinite(norm):
            self._forget_gradients()
            sources = list(dict.fromkeys(encoded.source for rows in passes for row in rows for encoded in row))
            more = f" and {len(sources) - _MAX_TOLD} more" if len(sources) > _MAX_TOLD else ""
            raise GroundlinkError(
                f"step {self.step + 1}: the loss is {loss:g} and its gradient {norm:g}, no numbers to learn from; the "
                f"step is not taken. Its samples: {', '.join(sources[:_MAX_TOLD])}{more}. Look at these, or train with "
                "a lower learning_rate or precision=float32 into another folder, from the last checkpoint if you like"
            )
        self.unsaved = False  # there is nothing to keep of half a step
        rate = self.settings.learning_rate_at(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.step()
        self.step += 1
        self.loss = loss
        self.position = feed.state_dict()
        self.unsaved = True

        samples = [encoded for rows in passes for row in rows for encoded in row]
        self.samples += len(samples)
        self._tally.sums = [a + b for a, b in zip(self._tally.sums, sums)]
        self._tally.norm, self._tally.rate = norm, rate
        self._tally.steps += 1
        self._tally.rows += sum(map(len, passes))
        self._tally.samples += len(samples)
        self._tally.tokens += sum(map(len, samples))
        self._tally.waited += drawn - began
        self._tally.seconds += time.perf_counter() - began

    def figures(self, skipped: int) -> dict[str, Any]:
        """Return what is logged, of all steps since this was asked last; None where there was nothing of a kind.

        The gradient's norm is that of the last step, before clipping. Speed, fill and `waiting`, the share of time
        spent waiting for data, are those of this process.
        """
        tally, self._tally = self._tally, _Tally()
        plain, plain_labels, block, block_labels, exact, near, coordinates, extra = tally.sums
        weight = plain_labels + self.settings.mtp_weight * block_labels
        figures = {
            "step": self.step,
            "loss": _mean(plain + self.settings.mtp_weight * block, weight),
            "ntp_loss": _mean(plain, plain_labels),
            "mtp_loss": _mean(block, block_labels),
            "coordinates_exact": _mean(exact, coordinates),
            "coordinates_within_1_percent": _mean(near, coordinates),
            "gradient_norm": tally.norm,
            "learning_rate": tally.rate,
            "tokens_per_second": _mean(tally.tokens, tally.seconds),
            "samples_per_second": _mean(tally.samples, tally.seconds),
            "fill": _mean(tally.tokens, tally.rows * self.settings.max_tokens),
            "waiting": _mean(tally.waited, tally.seconds),
            "samples": self.samples,
            "skipped": skipped,
        }
        if self.objective.extra is not None:
            figures["extra_loss"] = _mean(extra, tally.steps * self.settings.accumulation * self._processes)
        return figures

    def snapshot(self, save_as: torch.dtype, positions: list[dict[str, Any]]) -> checkpoints.Snapshot:
        """Return all that it takes to go on from here, and the weights as they are saved."""
        saved = {name: p.detach().to("cpu", save_as).contiguous() for name, p in self.model.named_parameters()}
        tensors = {"random": torch.get_rng_state()}
        for name, parameter in self.model.named_parameters():
            exact = parameter.detach().cpu()
            if not torch.equal(saved[name].float(), exact):
                tensors[f"weight.{name}"] = exact.contiguous()
        if self.extra is not None:
            for name, tensor in self.extra.state_dict().items():
                tensors[f"weight.{_EXTRA}{name}"] = tensor.detach().cpu().contiguous()
        for name, parameter in self.trained.items():
            for moment, value in self._known_of(parameter).items():
                tensors[f"{moment}.{name}"] = value.detach().cpu().contiguous()
        facts = {**self.facts(), "samples": self.samples, "data": positions, "groundlink": __version__}
        return checkpoints.Snapshot(self.step, saved, tensors, facts)

    def facts(self) -> dict[str, Any]:
        """Return what has to be the same where a training goes on."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in HARMLESS}
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        return {**settings, "model": self.identity, "processes": self._processes, "trains": sorted(self.trained)}

    @torch.no_grad()
    def restore(self, snapshot: checkpoints.Snapshot) -> None:
        """Go on from a snapshot of the same training."""
        tensors = snapshot.tensors
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors.get(f"weight.{name}", snapshot.model[name]))
        if self.extra is not None:
            head = f"weight.{_EXTRA}"
            self.extra.load_state_dict({n.removeprefix(head): v for n, v in tensors.items() if n.startswith(head)})
        for name, parameter in self.trained.items():
            self._known_of(parameter).update(
                # The count of steps stays on the CPU, where AdamW has it.
                (moment, tensors[key].clone() if moment == "step" else tensors[key].to(self.place, copy=True))
                for moment in _MOMENTS
                if (key := f"{moment}.{name}") in tensors
            )
        torch.set_rng_state(tensors["random"])
        self.step, self.samples = snapshot.step, snapshot.facts["samples"]

    def _known_of(self, parameter: Tensor) -> dict[str, Any]:
        """Return what the optimizer that trains a weight knows of it."""
        for optimizer in self.optimizers:
            if any(parameter is one for group in optimizer.param_groups for one in group["params"]):
                known: dict[str, Any] = optimizer.state[parameter]
                return known
        raise KeyError("nothing trains this weight")

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @property
    def _processes(self) -> int:
        return int(self.accelerator.num_processes)

    def _gradients(self, passes: Sequence[Pass], signals: _Signals) -> tuple[list[float], float]:
        """Sum the gradients of one step over its passes and all processes; return SUMS, and the norm before clipping.

        The loss is divided by all labels of the step at once, so passes of unlike lengths count as one large one.
        """
        batches = [collate(rows) for rows in passes]
        weight = torch.tensor(sum(self.objective.weight_of(batch) for batch in batches), device=self.place)
        # Processes take the mean of their gradients, where the sum is wanted.
        share = self._processes / self._sum(weight).clamp(min=1)
        self._forget_gradients()
        counted: Tensor | None = None
        for number, batch in enumerate(batches, start=1):
            more = self.accelerator.no_sync(self.forward) if number < len(batches) else nullcontext()
            with more:
                with torch.autocast(self.place.type, torch.bfloat16, enabled=self.low):
                    loss, extra, sums = self.forward(batch.to(self.place))
                (loss * share + extra / len(batches)).backward()
            counted = sums if counted is None else counted + sums
        assert counted is not None  # a step has passes
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.clip)
        *values, stopping = self._sum(torch.cat([counted, counted.new_tensor([signals.came])])).tolist()
        self.stopping = stopping > 0
        return values, float(norm)

    def _sum(self, value: Tensor) -> Tensor:
        """Sum a value of each process."""
        total: Tensor = self.accelerator.reduce(value, "sum")
        return total


@dataclass
class _Tally:
    """What is counted between two lines of the log."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(SUMS))
    norm: float = 0.0
    rate: float = 0.0
    steps: int = 0
    rows: int = 0
    samples: int = 0
    tokens: int = 0
    waited: float = 0.0
    seconds: float = 0.0


class _Signals:
    """While it is entered, the first SIGINT or SIGTERM is only noted; another SIGINT interrupts as ever."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt("interrupted at once; the same command goes on from the last checkpoint")
        self.came = True


def _optimizers(trained: dict[str, nn.Parameter], settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or for all but the matrices of the layers where Muon has these.

    A group's `share` is the part of the learning rate that it is trained with.
    """
    matrices: list[nn.Parameter] = []
    if settings.muon_rate > 0:
        inner = (".blocks.", ".layers.", "mlp1.")
        matrices = [p for name, p in trained.items() if p.ndim == 2 and any(part in name for part in inner)]
    rest = [(name, p) for name, p in trained.items() if not any(p is one for one in matrices)]
    plain = [p for name, p in rest if p.ndim <= 1 or name.endswith(_TABLES)]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in rest if p.ndim > 1 and not name.endswith(_TABLES)], "share": 1.0},
        {"params": plain, "weight_decay": 0.0, "share": 1.0},
    ]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay)
    ]
    if matrices:
        if not hasattr(torch.optim, "Muon"):
            raise BadData(
                f"the setting muon_rate needs torch 2.9 or later, and this is {torch.__version__}; set it to 0"
            )
        share = settings.muon_rate / settings.learning_rate
        group = {"params": matrices, "share": share}
        made.append(torch.optim.Muon([group], lr=settings.muon_rate, weight_decay=settings.weight_decay))
    return made


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device is made for bfloat16: CUDA from Ampere on, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def _open(
    model: str | os.PathLike[str] | Checkpoint, out: Path, settings: TrainSettings, from_scratch: bool
) -> tuple[Checkpoint, dict[str, bytes], torch.dtype]:
    """Return the model on the CPU, the files that go with it, and the type that its weights are saved in."""
    folder = model.folder if isinstance(model, Checkpoint) else find(os.fspath(model))
    if folder.resolve() == out.resolve():
        raise BadOutput(f"{out}: is the folder of the model to start from; give another --out")
    stored = torch.float32
    if from_scratch:
        if isinstance(model, Checkpoint):
            raise BadData("from_scratch makes new weights, and an opened checkpoint has some; give its folder")
        opened = from_nothing(folder, settings.seed)
    elif isinstance(model, Checkpoint):
        opened = model
    else:
        opened = open_checkpoint(folder, torch.device("cpu"), torch.float32)
        with safe_open(tensor_files(folder, [])[0], framework="pt") as file:
            kind = file.get_slice(next(iter(file.keys()))).get_dtype()
        stored = {"BF16": torch.bfloat16, "F16": torch.float16}.get(kind, torch.float32)
    save_as = stored if settings.save_as == "auto" else DTYPES[settings.save_as]
    return opened, checkpoints.companions(folder, save_as), save_as


def _trainable(model: LocateAnything, settings: TrainSettings) -> LocateAnything:
    """Make all weights float32 in memory of their own, and say which are trained."""
    names = [name for name, _ in model.named_parameters()]
    for part in settings.freeze:
        if not any(name.startswith(PARTS.get(part, part)) for name in names):
            raise BadData(f"the setting freeze names {part!r}, and no tensor begins like this; use {', '.join(PARTS)}")
    if all(map(settings.is_frozen, names)):
        raise BadData(f"the setting freeze is {list(settings.freeze)!r}, which leaves nothing to train")
    for name, parameter in model.named_parameters():
        # A checkpoint's tensors are parts of its file.
        parameter.data = parameter.data.to(torch.float32, copy=True)
        parameter.requires_grad_(not settings.is_frozen(name))
    return model


def _identity(model: LocateAnything) -> str:
    """Return a word that stands for a model's weights, of numbers at both ends of each tensor."""
    digest = xxhash.xxh3_64()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(torch.cat([flat[:_SAMPLED], flat[-_SAMPLED:]]).cpu().numpy().tobytes())
    return str(digest.hexdigest())


def _resume(run: _Run, feed: Feed, out: Path, resume: bool) -> Path | None:
    """Go on from the latest checkpoint in `out`, and return it; None where there is none.

    Raises:
        BadData: it is from another training, in what is said, or no checkpoint is whole.
        BadOutput: there is one, and `resume` is False.
    """
    path = checkpoints.latest(out)
    if path is None:
        if (out / checkpoints.MODEL).exists():
            raise BadOutput(f"{out}: holds a model already, and no training that could go on; give another --out")
        return None
    if not resume:
        raise BadOutput(f"{out}: holds a training already; let it go on, or give another --out")
    snapshot = checkpoints.load(path)
    now = run.facts()
    differing = [
        f"{name} was {snapshot.facts.get(name)!r:.80} and is {value!r:.80}"
        for name, value in now.items()
        if snapshot.facts.get(name) != value
    ]
    if differing:
        raise BadData(
            f"{path}: is of another training: {'; '.join(differing)}. Make these the same to go on with it, or give "
            "another --out"
        )
    run.restore(snapshot)
    feed.load_state_dict(snapshot.facts["data"][run.accelerator.process_index])
    run.position = feed.state_dict()
    return path


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None
