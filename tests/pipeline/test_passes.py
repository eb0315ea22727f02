"""What every pass has from its base: selection, candidates, options that explain themselves."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from onnxcomp import Context, Pass, Stage, Verdict, load_model, skip, weights
from onnxcomp.errors import OptionError


class Sample(Pass):
    """Have options of every kind."""

    name: ClassVar[str] = "sample"
    stage: ClassVar[Stage] = Stage.PRUNE

    share: Annotated[float, Field(ge=0, lt=1, description="A share.")] = 0.5
    mode: Annotated[Literal["one", "two"], Field(description="A word.")] = "one"
    limit: Annotated[int | None, Field(ge=1, description="A number or none.")] = None

    def apply(self, model, context):
        del model, context
        return []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1}, "sample: share = 1: input should be less than 1"),
        ({"share": "much"}, "sample: share = 'much': input should be a valid number, "),
        ({"mode": "three"}, "sample: mode = 'three': input should be 'one' or 'two'"),
        ({"limit": 0}, "sample: limit = 0: input should be greater than or equal to 1"),
        ({"limits": 3}, "sample: unknown option 'limits'; did you mean 'limit'?"),
        (
            {"colour": 3},
            "sample: unknown option 'colour'; known are exclude, include, limit, mode, share",
        ),
        ({"include": "w*"}, "sample: include = 'w*': input should be a valid tuple"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionError) as caught:
        Sample(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_equal_options_are_equal_passes():
    assert Sample(share=0.25) == Sample(share=0.25)
    assert Sample(share=0.25) != Sample()
    assert len({Sample(), Sample(), Sample(limit=2)}) == 2


@pytest.mark.parametrize(
    ("include", "exclude", "selected"),
    [
        ((), (), ["block.0.w", "block.1.w", "head"]),
        (("block.*",), (), ["block.0.w", "block.1.w"]),
        ((), ("block.*",), ["head"]),
        (("block.*", "head"), ("*.1.w",), ["block.0.w", "head"]),
        (("BLOCK.*",), (), []),
        (("block.?.w",), ("*",), []),
    ],
)
def test_selection(include, exclude, selected):
    sample = Sample(include=include, exclude=exclude)
    assert [
        name for name in ("block.0.w", "block.1.w", "head") if sample.selects(name)
    ] == selected


def test_candidates(models):
    model = load_model(models["convnet"].proto)
    chosen, skipped = Sample(exclude=("head",)).candidates(model)
    assert [weight.name for weight in chosen] == ["first", "depthwise", "grouped", "transposed"]
    assert {each.name: each.reason for each in skipped} == {
        **dict.fromkeys(("gain", "shift", "mean", "variance"), "belongs to a normalisation"),
        **dict.fromkeys(("bias", "head_bias"), "is a bias"),
        "head": "was not selected by include and exclude",
    }


def test_a_skipped_weight(models):
    weight = next(weights(load_model(models["mlp"].proto)))
    assert skip(weight, "is not wanted") == Verdict(
        name="w1",
        op_types=("Gemm",),
        shape=(48, 32),
        verdict="skipped",
        reason="is not wanted",
        bytes_before=6144,
        bytes_after=6144,
    )


def test_a_context_that_nobody_listens_to():
    context = Context()
    context.progress(0.5)
    assert (context.samples, context.seed) == (None, 0)
