"""The Triton kernels: run in Triton's interpreter or on a GPU, compiled for GPUs that are not here, laid out rightly."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from pyconv_search.errors import UserError
from pyconv_search.ops import kernels
from pyconv_search.ops.kernels import Level, available, executed_macs, multi_scale_conv2d
from pyconv_search.ops.kernels.choice import bucket, choose
from pyconv_search.ops.kernels.level import decode, encode
from pyconv_search.ops.kernels.plan import Problem, Tile, make_plan

HERE = Path(__file__).parent
# Shared memory that one program may have, by compute capability.
SHARED = {80: 163 << 10, 90: 227 << 10}


def poly(pattern):
    t = len(pattern)
    return tuple(tuple(pattern[(i - o) % t] for i in range(t)) for o in range(t))


SORTED = Level(64, (3, 3), 1, poly((1, 2, 1, 4)), (0, 2, 1, 3), (0, 2, 1, 3))
PYCONV4 = tuple(Level(16, (k, k), g) for k, g in [(3, 1), (5, 4), (7, 8), (9, 16)])


def release(package):
    return tuple(int(part) for part in package.__version__.split(".")[:2])


def run(tmp_path, *arguments, **variables):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def run_against_the_reference(tmp_path, chosen="", **variables):
    """How many tests have passed."""
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(HERE), str(HERE / "interpreted.py")]
    done = run(tmp_path, *command, "-k", chosen, **variables)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return int(re.search(r"(\d+) passed", done.stdout)[1])


@pytest.mark.parametrize(
    ("chosen", "fewest"),
    [("pyconv2 or axis or 1x1", 8), pytest.param("", 61, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_kernels_equal_the_reference_in_the_interpreter(tmp_path, chosen, fewest):
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if release(triton) < (3, 9) and release(np) >= (2, 4):
        pytest.skip("older interpreters cannot take a loop's bounds from memory with NumPy 2.4")
    assert run_against_the_reference(tmp_path, chosen, TRITON_INTERPRET="1") >= fewest


@pytest.mark.skipif(available("cuda") is not None, reason=str(available("cuda")))
def test_kernels_equal_the_reference_on_a_gpu(tmp_path):
    assert run_against_the_reference(tmp_path) > 60


def test_without_triton_everything_else_works(tmp_path):
    code = """
        import sys
        sys.modules["triton"] = None  # as if it were not installed
        import torch
        import pyconv_search.ops as ops
        from pyconv_search.ops import kernels
        level = kernels.Level(4, (3, 3))
        assert "not installed" in kernels.available("cuda")
        assert kernels.executed_macs((level,), 4).nominal == 144
        ops.PSConv2d(4, 4)(torch.zeros(1, 4, 5, 5))
        try:
            kernels.multi_scale_conv2d(torch.zeros(1, 4, 5, 5), [torch.zeros(4, 4, 3, 3)], (level,))
        except ValueError as error:
            print(error)
    """
    done = run(tmp_path, "-c", textwrap.dedent(code))
    assert done.stdout.startswith("the Triton kernels cannot run here: Triton is not installed"), done.stderr


def test_importing_the_operators_does_not_import_triton(tmp_path):
    code = "import sys, pyconv_search.ops, pyconv_search.ops.kernels; print(any(m.split('.')[0] == 'triton' for m in sys.modules))"
    assert run(tmp_path, "-c", code).stdout.strip() == "False"


@pytest.mark.skipif(torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="they can run here")
def test_where_they_cannot_run_they_say_why():
    pytest.importorskip("triton")
    assert available("cpu") == "an NVIDIA GPU is needed, but the device is cpu"
    with pytest.raises(UserError, match="the Triton kernels cannot run here: an NVIDIA GPU is needed"):
        multi_scale_conv2d(torch.zeros(1, 64, 5, 5), [torch.zeros(64, 64, 3, 3)], (SORTED,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, (2, 3)), r"kernel must be odd, but got \(2, 3\)"),
        ((8, (3, 3), 3), r"groups must divide .*but got 3"),
        ((8, (3, 3), 1, ()), r"dilations must be a matrix"),
        ((8, (3, 3), 1, ((1, 2), (1,))), r"dilations must be a matrix"),
        ((8, (3, 3), 1, ((0,),)), r"dilations must hold integers of 1 or more, but got 0"),
        ((8, (3, 3), 1, ((1, 2),), (0, 0)), r"sorted_in must be None or an order of the classes 0 to 1"),
        ((8, (3, 3), 1, ((1, 2),), None, (1,)), r"sorted_out must be None or an order of the classes 0 to 0"),
    ],
)
def test_wrong_levels_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        Level(*arguments)


def test_levels_go_through_text_unchanged():
    levels = (SORTED, *PYCONV4, Level(6, (3, 5), 2, ((1, 2, 3),), None, (0,)))
    assert decode(encode(levels)) == levels


def true_connections(problem):
    """Every weight by what it connects: (output channel, input channel, row and column distance in the input)."""
    found, position = {}, 0
    first = 0
    for level in problem.levels:
        fan_in, fan_out = problem.in_channels // level.groups, level.width // level.groups

        def classes(count, t, order):
            return [r for r in order for k in range(count) if k % t == r] if order else [k % t for k in range(count)]

        inputs = classes(fan_in, len(level.dilations[0]), level.sorted_in)
        outputs = classes(fan_out, len(level.dilations), level.sorted_out)
        for c, k in itertools.product(range(level.width), range(fan_in)):
            d = level.dilations[outputs[c % fan_out]][inputs[k]]
            for y, x in itertools.product(*(range(-(side // 2), side // 2 + 1) for side in level.kernel)):
                found[first + c, c // fan_out * fan_in + k, y * d, x * d] = position
                position += 1
        first += level.width
    return found


def planned_connections(problem, tile):
    """The same read off a plan's tables, with the output pixel's place in the patch; fails where one is there twice."""
    plan, found = make_plan(problem, tile), {}
    depth, columns = tile.block
    for first, steps, column, count, phase_y, phase_x in plan.blocks.tolist():
        for step, k, n in itertools.product(range(first, first + steps), range(depth), range(columns)):
            weight = int(plan.index[step, k, n])
            if weight < 0:
                continue
            y, x, channel, _ = plan.steps[step].tolist()
            source = channel * plan.vectors[0] + k % tile.depth * plan.strides[0]
            target = column * plan.vectors[1] + n % tile.columns * plan.strides[1]
            pixel = n // tile.columns
            assert n % tile.columns < count
            down = phase_y + pixel // tile.patch[1] * plan.spacing[0]
            right = phase_x + pixel % tile.patch[1] * plan.spacing[1]
            x += k // tile.depth
            if problem.transposed:
                key = source, target, down - y * problem.stride[0], right - x * problem.stride[1]
            else:
                key = target, source, y - down * problem.stride[0], x - right * problem.stride[1]
            assert (key, down, right) not in found
            found[key, down, right] = weight
    return found


def random_problem(draw, transposed):
    groups = draw.choice([1, 1, 2])
    channels = groups * draw.choice([3, 4, 6])

    def level():
        t_in, t_out = draw.choice([(1, 1), (2, 2), (3, 1), (1, 2)])
        dilations = tuple(tuple(draw.randint(1, 4) for _ in range(t_in)) for _ in range(t_out))
        orders = [draw.choice([None, tuple(draw.sample(range(t), t))]) for t in (t_in, t_out)]
        kernel = draw.choice([1, 3, 5]), draw.choice([1, 3])
        return Level(groups * draw.choice([2, 5]), kernel, groups, dilations, *orders)

    levels = tuple(level() for _ in range(draw.choice([1, 1, 2])))
    return Problem(levels, channels, (draw.choice([1, 2, 3]), draw.choice([1, 2])), transposed)


@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
def test_a_plan_has_every_weight_where_it_belongs(transposed):
    for seed in range(60):
        draw = random.Random(seed)
        problem = random_problem(draw, transposed)
        patch, modes = draw.choice([(1, 1), (1, 2), (2, 2), (2, 1)]), ["whole", "class", "strided"]
        tile = Tile(
            patch,
            draw.choice([1, 4, 8]),
            draw.choice([1, 2, 4]),
            draw.choice([2, 4, 8]),
            draw.choice(modes),
            draw.choice(modes),
        )
        period = problem.stride if transposed else (1, 1)
        found = planned_connections(problem, tile)
        expected = {}
        for down, right in itertools.product(range(patch[0] * period[0]), range(patch[1] * period[1])):
            for key, weight in true_connections(problem).items():
                # A pixel of the transposed convolution's output meets every stride-th tap.
                if not transposed or ((down - key[2]) % period[0] == 0 and (right - key[3]) % period[1] == 0):
                    expected[key, down, right] = weight
        assert found == expected, (problem, tile)


def test_sorted_classes_execute_what_the_convolution_has():
    wide = Level(512, (3, 3), 1, poly((1, 2, 1, 4)), (0, 2, 1, 3), (0, 2, 1, 3))
    work = executed_macs((wide,), 512, size=(7, 7))
    assert work.nominal == work.forward == work.grad_input == work.grad_weight == 512 * 512 * 9


PYRAMIDS = {
    "3-5-7-9": PYCONV4,
    "3-5-7": (Level(64, (3, 3)), Level(32, (5, 5), 4), Level(32, (7, 7), 8)),
    "3-5": (Level(128, (3, 3)), Level(128, (5, 5), 4)),
}


def test_the_documented_surplus_is_what_is_executed():
    rows = re.findall(r"^ +(?:PSConv|PyConv) (\S+) +(\d+) +(\d+) +([\d.]+) ([\d.]+) ([\d.]+)$", kernels.__doc__, re.M)
    assert len(rows) == 11
    for name, channels, side, *printed in rows:
        width, order = int(channels), (0, 2, 1, 3) if name == "sorted" else None
        levels = PYRAMIDS.get(name, (Level(width, (3, 3), 1, poly((1, 2, 1, 4)), order, order),))
        work = executed_macs(levels, width, size=(int(side), int(side)))
        found = [one / work.nominal for one in (work.forward, work.grad_input, work.grad_weight)]
        assert [f"{ratio:.2f}" for ratio in found] == printed, name


def compiled(kernel, config, problem, dtype, capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pyconv_search.ops.kernels import gemm, launch

    function, plan = getattr(gemm, kernel), make_plan(problem, choose(problem, kernel == "correlate", bucket((56, 56))))
    widths = problem.in_channels, sum(level.width for level in problem.levels)
    ends = [torch.empty(1, width, 8, 8, dtype=dtype, device="meta") for width in widths]
    constants = {**launch.geometry(plan, *ends), **config.kwargs} | ({"HAS_BIAS": True} if kernel == "convolve" else {})
    number = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    pointers = dict.fromkeys(("src", "packed", "bias", "dst", "grad"), number)
    pointers |= {"partial": "*fp32", "blocks": "*i32", "steps": "*i32"}
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name in pointers}
    source = ASTSource(function, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def stack_bytes(cubin, folder):
    """Bytes of local memory that a program spills to, as the toolkit's own reader tells."""
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([str(reader), "-res-usage", str(file)], capture_output=True, text=True, check=True).stdout
    stack, local = re.search(r"STACK:(\d+).*LOCAL:(\d+)", told).groups()
    return int(stack) + int(local)


CASES = [
    pytest.param("psconv", (SORTED,), torch.bfloat16, 90, marks=pytest.mark.slow),
    pytest.param("psconv", (SORTED,), torch.bfloat16, 80, marks=pytest.mark.slow),
    pytest.param("pyconv4", PYCONV4, torch.bfloat16, 90, marks=pytest.mark.slow),
    ("psconv", (SORTED,), torch.float32, 90),
]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile")
@pytest.mark.parametrize("kernel", ["convolve", "correlate"])
@pytest.mark.parametrize(("name", "levels", "dtype", "capability"), CASES, ids=lambda value: str(value)[:12])
def test_every_config_compiles_for_gpus_and_fits(kernel, name, levels, dtype, capability, tmp_path, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    from pyconv_search.ops.kernels import launch

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    problem, size = Problem(levels, 64, (1, 1)), dtype.itemsize
    tile = choose(problem, kernel == "correlate", bucket((56, 56)))
    meta = {
        "RUN": tile.run,
        "DEPTH": tile.depth,
        "COLUMNS": tile.columns,
        "PATCH_H": tile.patch[0],
        "PATCH_W": tile.patch[1],
    }
    meta |= {"HAS_BIAS": True} if kernel == "convolve" else {}
    configs = launch.fitting_sizes(launch.configs(kernel), meta, size, SHARED[capability], capability == 90)
    assert len(configs) > 1
    for config in configs:
        made = compiled(kernel, config, problem, dtype, capability)
        assert made.metadata.shared <= SHARED[capability], config
        assert stack_bytes(made.asm["cubin"], tmp_path) == 0, config
        # Both factors go through the asynchronous copies that the pipeline lives on, 8 bytes at least at once.
        assert set(re.findall(r"ld\.global[.a-z0-9]*", made.asm["ptx"])) <= {
            "ld.global.b32",
            "ld.global.b16",
            "ld.global.v4.b32",
            "ld.global.v2.b32",
        }
        assert "cp.async" in made.asm["ptx"]
        if dtype == torch.bfloat16:
            assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in made.asm["ptx"], config


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not tune")
@pytest.mark.parametrize("kernel", ["convolve", "correlate"])
def test_tuning_gives_the_kernel_every_argument_and_runs_the_fastest(kernel, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")
    from pyconv_search.ops.kernels import launch

    launch.tuned.cache_clear()
    tuner, ran = launch.tuned(kernel), []
    assert tuner.cache_results
    # No GPU: a kernel that is slowest with the most rows stands in for the compiled one, and nothing is kept on disk.
    monkeypatch.setattr(tuner, "cache_results", False)
    monkeypatch.setattr(tuner.fn, "run", lambda *args, **named: ran.append((len(args), named)))

    def bench(call, quantiles):
        call()
        return [ran[-1][1]["BLOCK_M"] * 3 - ran[-1][1]["num_warps"]] * 3

    monkeypatch.setattr(tuner, "_do_bench", bench)
    monkeypatch.setattr(tuner, "do_bench", bench, raising=False)
    monkeypatch.setattr(launch, "shared_limit", lambda: SHARED[90])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    problem = Problem((SORTED,), 64, (1, 1))
    x = torch.zeros(2, 64, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weights = torch.zeros(64 * 64 * 9, dtype=torch.bfloat16)
    if kernel == "convolve":
        launch.convolve(x, weights, None, problem, (8, 8))
    else:
        launch.correlate(x, x, problem)
    names, (given, named) = tuner.fn.arg_names, ran[-1]
    assert len(ran) > 3
    assert set(names[given:]) <= set(named)
    assert not set(names[:given]) & set(named)
    assert named["BLOCK_M"] == min(other["BLOCK_M"] for _, other in ran)
    launch.tuned.cache_clear()
