"""The architecture as data: the rooms and their order, which of them know nothing of which, and how large things get.

`tests/test_architecture.py` holds the code to it, `make map` draws it. A room is a package, named here without
`trtllm_port`; "" is what stands in `trtllm_port/` itself. `a.*` means the rooms below `a`, without `a`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The rooms. A file may import its own room and those before it.
ORDER = (
    "",
    "foundation",
    "layers.definition",
    "layers.weights",
    "layers.quantization.layouts",
    "layers.quantization.methods",
    "layers.quantization",
    "huggingface.compatibility",
    "huggingface",
    "layers.config",
    "layers.operations",
    "layers.functional",
    "layers.modules",
    "layers",
    "runtime.network",
    "runtime.reference.evaluators",
    "runtime.reference",
    "runtime.engines",
    "runtime",
    "registry",
    "huggingface.interception",
    "codegen.configs",
    "codegen.ir",
    "codegen.record",
    "codegen.rules",
    "codegen.recognise",
    "codegen.lower",
    "codegen.merge",
    "codegen.solve",
    "codegen.write",
    "codegen",
    "scaffolds",
    "porting",
    "inspection",
    "conversion",
    "building",
    "shipped_model.corpus",
    "shipped_model",
    "evaluation",
    "verification.taps",
    "verification.stimulus",
    "verification.judge",
    "verification.sides",
    "verification.causes",
    "verification.experiments",
    "verification.decode",
    "verification.phases",
    "verification.loss",
    "verification.report",
    "verification.bundle",
    "verification.prove",
    "verification",
    "demo",
    "doctor",
    "cli.terminal",
    "cli.commands",
    "cli",
)

#: Files of `trtllm_port/` itself that belong to another room than the root.
OTHER_ROOM = {
    "trtllm_port.inspection": "inspection",
    "trtllm_port.doctor": "doctor",
    "trtllm_port.__main__": "cli",
}


@dataclass(frozen=True)
class Bar:
    """Rooms that know nothing of some that stand before them."""

    rooms: tuple[str, ...]
    unknown: tuple[str, ...]
    why: str


DEFINING = ("layers.definition", "layers.config", "layers.operations", "layers.functional", "layers.modules", "layers")
QUANTIZATION = ("layers.quantization", "layers.quantization.*")
READING = ("layers.weights", *QUANTIZATION)
RUNTIME = ("runtime", "runtime.*")
HUGGING_FACE = ("huggingface", "huggingface.*")

BARS = (
    Bar(("huggingface",), ("layers.definition",), "Hugging Face's side is there without any network of ours"),
    Bar(
        ("layers.operations", "layers.functional"),
        ("foundation", "huggingface", *READING, "layers.config"),
        "a function is given tensors and numbers, no files and no config",
    ),
    Bar(("layers.modules", "layers"), ("huggingface",), "what a port is made of is there without transformers"),
    Bar(RUNTIME, ("huggingface",), "what runs a network knows of the model what the network file says"),
    Bar(
        ("runtime.network", "runtime.reference", "runtime.reference.*"),
        (*DEFINING, *QUANTIZATION),
        "a network file is read, run and compared without what defined it, and without TensorRT",
    ),
    Bar(
        ("registry",),
        ("huggingface", *DEFINING, *READING, *RUNTIME),
        "which ports there are is known before any of them, or torch, is loaded",
    ),
    Bar(
        ("codegen.*",),
        (*RUNTIME, "registry"),
        "a phase hands data to the next one; only the check of the finished port, in `codegen`, runs anything",
    ),
    Bar(("conversion",), RUNTIME, "a checkpoint is written without anything that runs it"),
    Bar(("building",), HUGGING_FACE, "an engine is built from a checkpoint alone"),
    Bar(
        ("shipped_model", "shipped_model.corpus"),
        (*DEFINING, *READING, *RUNTIME, "registry"),
        "the model that is shipped is Hugging Face's, so that a port of it proves something",
    ),
    Bar(
        ("verification.judge",),
        (*HUGGING_FACE, *DEFINING, *READING, *RUNTIME, "registry"),
        "a verdict is a pure function of numbers, whoever computed them",
    ),
    Bar(
        ("verification.report", "verification.bundle"),
        HUGGING_FACE,
        "a comparison is told, kept and repeated without Hugging Face",
    ),
    Bar(("doctor",), (*HUGGING_FACE, *DEFINING, *READING), "it must run where torch and transformers do not"),
    Bar(
        ("porting", "inspection", "shipped_model", "evaluation", "verification", "verification.*", "cli.*"),
        ("huggingface.interception",),
        "only the generator puts functions of ours in place of Hugging Face's",
    ),
)

#: The stages, each with the rooms below it: functions from paths to a result, which do not know each other.
STAGES = (
    "codegen",
    "porting",
    "inspection",
    "conversion",
    "building",
    "evaluation",
    "verification",
    "demo",
    "doctor",
)
#: What composes stages: room → the stages that it may import. No other room imports a stage.
COMPOSERS = {
    "porting": ("codegen",),  # `new` is done when the generated port has passed its check
    "inspection": ("codegen",),  # `inspect` shows what the generator would find
    "verification.sides": ("conversion", "building"),  # a port is compared as it is converted and built
    "verification": ("building", "evaluation"),  # `verify` is the verdict on the whole way
    "demo": ("porting", "evaluation", "verification"),
    "cli.terminal": ("codegen", "porting", "evaluation", "verification"),  # how their results look
    "cli.commands": STAGES[1:],  # all but `codegen`, which `porting` and `inspection` ask
}

#: Library → the room that alone imports it, with the rooms below: by functions and for type checkers, too.
HOMES = {"transformers": "huggingface", "huggingface_hub": "huggingface"}

#: What is not imported while the command line starts: `--help` is instant.
HEAVY = ("datasets", "evaluate", "numpy", "onnx", "tensorrt", "tensorrt_rtx", "torch", "transformers")
#: Ours, and heavy because of what they import.
HEAVY_OURS = ("trtllm_port.layers", "trtllm_port.runtime")

MAX_FILES = 16  # in a room
MAX_LEVELS = 8  # of files of one room that import one another
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8

#: file or file:function → why it may exceed a limit.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {}


def matches(room: str, patterns: tuple[str, ...]) -> bool:
    """Whether a room is one of these."""
    below = (pattern.removesuffix("*") for pattern in patterns if pattern.endswith(".*"))
    return room in patterns or room.startswith(tuple(below))


def stage_of(room: str) -> str | None:
    """The stage that a room belongs to."""
    return next((stage for stage in STAGES if room == stage or room.startswith(f"{stage}.")), None)


def objection(room: str, other: str) -> str | None:
    """Why a room may not import another one; None if it may."""
    if room == other:
        return None
    if ORDER.index(other) > ORDER.index(room):
        return "it stands later in the order"
    stage = stage_of(other)
    if stage is not None and stage != stage_of(room) and stage not in COMPOSERS.get(room, ()):
        return "stages do not know each other"
    return next((bar.why for bar in BARS if matches(room, bar.rooms) and matches(other, bar.unknown)), None)
