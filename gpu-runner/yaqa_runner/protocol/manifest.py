"""``manifest.json``: what is published beside the files. Mirrors ``src/protocol/manifest.ts``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from yaqa_runner.protocol.job_spec import CommitSha, RepoName
from yaqa_runner.wire_model import Sha256Hex, WireModel

MANIFEST_VERSION = 1

PublishedPath = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")
]
QuantizerName = Literal["two-sided-tuned", "two-sided", "two-sided-cautious", "one-sided", "rtn"]
SplitName = Literal["selection", "report"]


class Estimate(WireModel):
    """A mean with its standard error over sequences."""

    mean: float
    standard_error: Annotated[float, Field(ge=0)]


class KlEstimate(Estimate):
    """KL in nats a token, natural log, with quantiles over tokens."""

    median: float
    p90: float
    p99: float


class Perplexity(WireModel):
    """exp of the mean negative log-likelihood of the text's own next tokens."""

    original: float
    quantized: float
    ratio: float


class Metrics(WireModel):
    """KL(original ‖ quantized) and its company, over ``tokens`` positions of ``sequences`` sequences."""

    kl_nats: KlEstimate
    top_one_agreement: Annotated[float, Field(ge=0, le=1)]
    perplexity: Perplexity
    sequences: Annotated[int, Field(ge=1)]
    tokens: Annotated[int, Field(ge=1)]


class Measured(WireModel):
    """One quantizer's files on the report split."""

    quantizer: QuantizerName
    bytes: Annotated[int, Field(ge=1)]
    report: Metrics
    by_domain: dict[str, Metrics]


class ProxyError(WireModel):
    """tr(H_O E H_I Eᵀ) of each quantizer."""

    two_sided: float
    one_sided: float
    rtn: float


class TokenConcentration(WireModel):
    """On how few tokens a factor rests: shares of its trace that the heaviest 1, 10 and 100 tokens hold.

    ``effective_tokens`` equal ones would estimate it as well.
    """

    top_one: float
    top_ten: float
    top_hundred: float
    effective_tokens: float
    tokens: int


class HeldOutLoss(WireModel):
    """What rounding noise costs tokens that are not in the factors, as a share of what it costs one-sided."""

    predicted_loss: float
    standard_error: float
    tokens: int


class LayerEvidence(WireModel):
    """What is known of one quantized linear."""

    name: str
    shape: tuple[int, int]
    type: str
    proxy_error: ProxyError
    effective_rank_output: float
    effective_rank_input: float
    cosine_similarity: float | None
    sigma_input: float
    sigma_output: float
    concentration_input: TokenConcentration | None = None
    concentration_output: TokenConcentration | None = None
    held_out: HeldOutLoss | None = None


class ManifestBase(WireModel):
    """The model that an adapter was merged onto, at the commit that it had then."""

    repo: RepoName
    revision: CommitSha
    license: str | None


class ManifestSource(WireModel):
    """The model that was quantized; ``stored``: the form its weights are released in, where they are not plain.

    With ``base`` it is an adapter, and ``stored`` is of the base.
    """

    repo: RepoName
    revision: CommitSha
    license: str | None
    stored: Literal["float8", "mxfp4"] | None = None
    base: ManifestBase | None = None


class ManifestFile(WireModel):
    """One published file."""

    path: PublishedPath
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256Hex


class Generator(WireModel):
    """What wrote the files."""

    name: Literal["yaqa-runner"] = "yaqa-runner"
    version: str


class Device(WireModel):
    """What the run computed on."""

    kind: Literal["cpu", "cuda"]
    name: str
    driver: str | None


class ManifestCalibration(WireModel):
    """The tokens that the sketch was taken on."""

    kind: str
    sha256: Sha256Hex
    sequences: int
    length: int
    tokens: int


class ManifestSketch(WireModel):
    """The sketch that guided rounding."""

    kind: Literal["a", "b"]
    key: str
    iterations: int
    reused: bool
    effective_tokens: float | None = None
    """Of the median linear: as many equal tokens would estimate its factors as well."""
    warning: str | None = None
    """Why the sketch is to be trusted less, for the card."""


class GateRow(WireModel):
    """One contender on the selection split."""

    quantizer: QuantizerName
    kl_nats: Estimate


class Gate(WireModel):
    """Who won on the selection split, and by how much."""

    selection: Annotated[list[GateRow], Field(min_length=1)]
    winner: QuantizerName
    reason: str


class TextRecord(WireModel):
    """One evaluation text as tokens."""

    split: SplitName
    domain: str
    sha256: Sha256Hex
    sequences: int
    length: int
    tokens: int


class ManifestEvaluation(WireModel):
    """Figures, and how they were taken."""

    convention: str
    texts: list[TextRecord]
    measured: Annotated[list[Measured], Field(min_length=1)]


class FittedGroup(WireModel):
    """A smaller group than the recipe's, as that one divides the widths of few linears (``asked_linears``)."""

    asked: Annotated[int, Field(ge=1)]
    used: Annotated[int, Field(ge=1)]
    asked_linears: Annotated[int, Field(ge=0)]


class ManifestWindow(WireModel):
    """A sliding window that the other verification sequences do not pass.

    ``length`` and ``kl_nats`` are of the one sequence that does, over its last positions; absent where the window is
    too long to be passed, or the container's loader cannot.
    """

    tokens: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=1)] | None = None
    kl_nats: float | None = None


class ManifestVerification(WireModel):
    """KL of the published files over the tokens of ``verification.safetensors``, by the format's library."""

    kl_nats: float
    sequences: int
    positions: int
    standard_error: Annotated[float, Field(ge=0)] | None = None
    window: ManifestWindow | None = None


class EngineTokens(WireModel):
    """Hard texts that the engine's tokenizer cuts as the original's does; ``different``: those of small consequence."""

    texts: Annotated[int, Field(ge=0)]
    equal: Annotated[int, Field(ge=0)]
    different: Annotated[list[Annotated[str, Field(max_length=400)]], Field(max_length=200)]


class EngineGreedy(WireModel):
    """Tokens generated by always taking the most likely: how many, and how many first ones are the original's."""

    tokens: Annotated[int, Field(ge=0)]
    equal: Annotated[int, Field(ge=0)]


class EngineKernels(WireModel):
    """The generation of processors whose kernels computed; ``ended``: this processor's own, which died of the files."""

    used: Annotated[str, Field(min_length=1, max_length=60)]
    ended: Annotated[str, Field(min_length=1, max_length=60)] | None


class EngineFigures(WireModel):
    """What the engine that users run measured on the published files, over the tokens of the verification."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    version: Annotated[str, Field(min_length=1, max_length=100)]
    kernels: EngineKernels | None = None
    kl_nats: Estimate
    top_one_agreement: Annotated[float, Field(ge=0, le=1)]
    positions: Annotated[int, Field(ge=1)]
    window_kl_nats: float | None = None
    tokens: EngineTokens
    greedy: EngineGreedy


class Unmeasured(WireModel):
    """Why no engine measured the files; the operator allowed it."""

    reason: Annotated[str, Field(min_length=1, max_length=400)]


class AttentionShape(WireModel):
    """Layers whose cache grows with the context: numbers that each keeps of one token as keys and as values."""

    layers: Annotated[int, Field(ge=0)]
    key_width: Annotated[int, Field(ge=0)]
    value_width: Annotated[int, Field(ge=0)]
    window: Annotated[int, Field(ge=0)] | None


class ModelShape(WireModel):
    """What of a model's configuration says how much memory a run of it takes, its weights aside."""

    architecture: Annotated[str, Field(max_length=200)]
    hidden: Annotated[int, Field(ge=0)]
    feed_forward: Annotated[int, Field(ge=0)]
    vocabulary: Annotated[int, Field(ge=0)]
    layers: Annotated[int, Field(ge=0)]
    context_length: Annotated[int, Field(ge=0)] | None
    attention: Annotated[list[AttentionShape], Field(max_length=1000)]
    state_width: Annotated[int, Field(ge=0)]


class UnquantizedWeight(WireModel):
    """A weight of two or more dimensions that is not quantized, what it is kept as, and why."""

    name: str
    reason: str
    type: str


class UniformTypes(WireModel):
    """The best single type within the same budget, for comparison with a mix."""

    type: str
    bits_per_weight: float
    predicted_kl_nats: Annotated[float, Field(ge=0)]
    kl_nats: Estimate


class MixedTypes(WireModel):
    """A type for every linear, chosen for the least predicted KL within a budget.

    The budget is one of bits a weight of the linears, or of bytes of all files but the manifest: one of the two is set.
    Predictions are sums of ½ tr(H_O E H_I Eᵀ) of two-sided rounding; ``kl_nats`` is measured on the selection split.
    ``published`` says which of the two these files are: a mix that measures worse gives way.
    """

    target_bits_per_weight: float | None
    target_bytes: Annotated[int, Field(ge=1)] | None = None
    bits_per_weight: float
    predicted_kl_nats: Annotated[float, Field(ge=0)]
    kl_nats: Estimate
    uniform: UniformTypes
    published: Literal["mixed", "uniform"]


class Manifest(WireModel):
    """The whole record of one variant."""

    manifest: Literal[1] = 1
    job: str
    fence: Annotated[int, Field(ge=1)]
    variant: str
    recipe: str
    created_at: str
    source: ManifestSource
    files: Annotated[list[ManifestFile], Field(min_length=1)]
    generator: Generator
    versions: dict[str, str]
    device: Device
    seeds: dict[str, int]
    calibration: ManifestCalibration
    sketch: ManifestSketch
    seconds: dict[str, float]
    quantizer: QuantizerName
    gate: Gate
    mixed: MixedTypes | None = None
    fitted_group: FittedGroup | None = None
    evaluation: ManifestEvaluation
    verification: ManifestVerification
    engine: EngineFigures | None = None
    unmeasured: Unmeasured | None = None
    shape: ModelShape | None = None
    layers: list[LayerEvidence]
    unquantized: list[UnquantizedWeight]
