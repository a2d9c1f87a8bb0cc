"""The layers of which goldens are made: one line each, what is special about it in its name."""

from dataclasses import dataclass

from module import Config


@dataclass(frozen=True)
class Case:
    name: str
    config: Config
    tokens: int
    training: bool
    inputs: str = "normal"
    """normal, integers (router logits exact in float32), or far (a mean far from 0)"""
    router: str = "normal"
    """normal, zero (all rows), zero_rows (every other row), repeated_rows"""
    storage: str = "F32"
    """dtype of inputs, incoming gradient and weights; expectations are computed from the rounded values"""
    batches_tracked: int | None = 3
    """None leaves num_batches_tracked out of the file"""
    extra_gradients: bool = False
    """also gradients that enter at the router logits and the routing weights"""


def layer(variant, norm, act, hidden, inner, experts, k, keys=None, normalize=False) -> Config:
    return Config(hidden, inner, act, experts, k, normalize, variant, norm, keys)


def flash(*args, **options) -> Config:
    return layer("flash", "hidden", *args, **options)


def omni(*args, **options) -> Config:
    return layer("omni", "logits", *args, **options)


def plain(*args, **options) -> Config:
    return layer("flash", "none", *args, **options)


# Arguments of flash, omni and plain: activation, H, I, N, k; then tokens and whether it trains.
CASES = [
    Case("flash-train-silu", flash("silu", 16, 24, 64, 4), 7, True),
    Case("flash-eval-silu", flash("silu", 16, 24, 64, 4), 7, False),
    Case("flash-train-gelu-normalized", flash("gelu", 17, 9, 49, 5, normalize=True), 11, True),
    Case("flash-eval-gelu-normalized", flash("gelu", 17, 9, 49, 5, normalize=True), 5, False),
    Case("flash-train-gelu-tanh-5x9", flash("gelu_tanh", 12, 20, 45, 6, keys=(5, 9)), 9, True),
    Case("flash-eval-gelu-new-9x5", flash("gelu_new", 12, 20, 45, 6, keys=(9, 5)), 9, False),
    Case("flash-train-relu-k-over-sqrt-n", flash("relu", 10, 15, 36, 11), 6, True),
    Case("flash-eval-relu-normalized", flash("relu", 24, 40, 100, 8, normalize=True), 5, False),
    Case("flash-train-swish-top-1", flash("swish", 9, 8, 25, 1), 8, True),
    Case("flash-train-top-1-normalized", flash("silu", 8, 8, 16, 1, normalize=True), 6, True),
    Case("flash-train-all-experts-5x7", flash("silu", 11, 13, 35, 35, keys=(5, 7)), 4, True),
    Case("flash-eval-all-experts-normalized", flash("gelu_tanh", 8, 8, 36, 36, normalize=True), 3, False),
    Case("flash-train-not-square-n-50", flash("silu", 13, 16, 50, 6), 6, True),
    Case("flash-eval-not-square-n-90-k-12",
         flash("gelu_pytorch_tanh", 8, 12, 90, 12, normalize=True), 5, False, batches_tracked=None),
    Case("flash-eval-one-token", flash("silu", 20, 16, 64, 7), 1, False),
    Case("flash-train-two-tokens", flash("silu", 14, 10, 36, 4), 2, True),
    Case("flash-train-ties-zero-rows", flash("silu", 8, 8, 48, 30, keys=(6, 8)), 5, True, router="zero_rows"),
    Case("flash-eval-ties-all-equal", flash("silu", 8, 8, 35, 9, keys=(7, 5)), 3, False, router="zero"),
    Case("flash-eval-far-mean", flash("silu", 16, 8, 64, 5), 6, False, inputs="far"),
    Case("flash-train-far-mean", flash("silu", 16, 8, 64, 5), 6, True, inputs="far"),
    Case("flash-train-1x12", flash("silu", 8, 8, 12, 5, keys=(1, 12)), 4, True),
    Case("flash-eval-12x1", flash("gelu", 8, 8, 12, 5, keys=(12, 1)), 4, False),
    Case("flash-train-n-1024-k-40", flash("silu", 8, 16, 1024, 40), 5, True),
    Case("flash-train-extra-gradients",
         flash("silu", 12, 12, 56, 6, keys=(7, 8)), 6, True, extra_gradients=True),
    Case("flash-train-bfloat16", flash("silu", 16, 12, 36, 5), 6, True, storage="BF16"),
    Case("flash-eval-float16", flash("gelu_tanh", 16, 12, 36, 5, normalize=True), 5, False, storage="F16"),
    Case("omni-train-silu", omni("silu", 16, 24, 64, 4), 7, True),
    Case("omni-eval-silu", omni("silu", 16, 24, 64, 4), 7, False),
    Case("omni-train-gelu-normalized", omni("gelu", 40, 33, 121, 6, normalize=True), 20, True),
    Case("omni-eval-relu-4x13-k-17", omni("relu", 10, 12, 52, 17, keys=(4, 13)), 5, False),
    Case("omni-train-gelu-tanh-13x4", omni("gelu_tanh", 10, 12, 52, 7, keys=(13, 4)), 8, True),
    Case("omni-eval-gelu-all-experts", omni("gelu", 9, 11, 25, 25), 4, False),
    Case("omni-train-not-square-n-40", omni("silu", 11, 8, 40, 5), 7, True, batches_tracked=None),
    Case("omni-eval-one-token", omni("silu", 18, 12, 36, 9, normalize=True), 1, False),
    Case("omni-train-ties-zero-rows", omni("silu", 8, 8, 42, 25, keys=(6, 7)), 6, True, router="zero_rows"),
    Case("omni-train-relu-top-1", omni("relu", 12, 10, 49, 1), 9, True),
    Case("omni-train-far-mean", omni("silu", 12, 8, 36, 4), 6, True, inputs="far"),
    Case("omni-eval-n-576-k-30", omni("silu", 8, 10, 576, 30, normalize=True), 4, False),
    Case("omni-train-extra-gradients",
         omni("silu", 12, 12, 36, 7, normalize=True), 6, True, extra_gradients=True),
    Case("omni-eval-bfloat16", omni("silu", 16, 12, 36, 5), 5, False, storage="BF16"),
    Case("none-train-silu-normalized", plain("silu", 16, 24, 100, 7, normalize=True), 7, True),
    Case("none-eval-gelu-3x50", plain("gelu", 12, 9, 150, 24, keys=(3, 50)), 6, False),
    Case("none-train-one-token-top-1", plain("silu", 10, 8, 16, 1), 1, True),
    Case("none-eval-ties-integers", plain("silu", 8, 8, 42, 20, keys=(6, 7)), 6, False, inputs="integers"),
    Case("none-eval-ties-repeated-rows",
         plain("silu", 8, 8, 64, 28, normalize=True), 4, False, inputs="integers", router="repeated_rows"),
]
