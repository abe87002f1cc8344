"""What a model file scores, and what its parts may be."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxfair.data import greys
from jaxfair.errors import InputError
from jaxfair.model_file import operations, tensors
from jaxfair.model_file.container import packed
from jaxfair.model_file.function import exported, restored
from jaxfair.model_file.model import load_model
from jaxfair.model_file.tensors import tensors_from_bytes, tensors_to_bytes
from tests.model_file.made import ABOUT, PARAMS, SIDE, SPEC, made_file, made_parts, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(made_file(tmp_path_factory.mktemp("model") / "m.jaxfair"))


@pytest.fixture(scope="module")
def images():
    shape = (70, SIDE, SIDE, 1)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def by_hand(images, sexes):
    flat = images.reshape(len(images), -1).astype(np.float64) / 255
    shift = [{"F": 0.25, "M": 0.5}.get(sex, 0.0) for sex in sexes]
    return flat @ np.asarray(PARAMS["weight"], np.float64) / 8 + shift


@pytest.mark.parametrize("rows", [1, 2, 5, 32, 33, 70])
def test_any_number_of_images_gets_the_scores_of_the_method(model, images, rows):
    sexes = ["F", "M", "unknown", "diverse", "F", "M", "M"] * 10
    found = model.score(images[:rows], {"sex": sexes[:rows]})
    assert np.allclose(found["mass"], by_hand(images[:rows], sexes[:rows]), atol=1e-5)
    assert np.allclose(found["maps"], images[:rows, ..., 0] / 255)


def test_no_image_gets_no_score(model, images):
    assert model.score(images[:0])["mass"].shape == (0,)


def test_an_attribute_that_is_not_given_is_unknown(model, images):
    assert np.allclose(model.score(images)["mass"], by_hand(images, ["unknown"] * 70), atol=1e-5)


def test_bytes_and_their_floats_score_alike(model, images):
    as_floats = images.astype(np.float32) / np.float32(255)
    assert np.array_equal(model.score(images)["mass"], model.score(as_floats)["mass"])


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8, 8)), np.full((2, 8, 8, 1), 2.0), np.full((1, 8, 8, 1), np.nan)]
)
def test_images_that_do_not_fit_are_refused(model, wrong):
    with pytest.raises(InputError, match="The images have"):
        model.score(wrong)


def test_groups_of_another_number_are_refused(model, images):
    with pytest.raises(InputError, match="70 images and 1 values of sex"):
        model.score(images, {"sex": ["F"]})


def test_a_program_that_cannot_be_run_is_one_sentence(model, images):
    """As one that asks for a terabyte does."""

    def failing(image):
        raise MemoryError("no terabyte")

    def program(leaves, given):
        kind = jax.ShapeDtypeStruct((4,), jnp.float32)
        return {"mass": jax.pure_callback(failing, kind, given["image"])}

    hungry = dataclasses.replace(model, program=program)
    with pytest.raises(InputError, match="program cannot be run here") as caught:
        hungry.score(images[:4])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_pixels_read_by_another_rule_are_refused(tmp_path):
    changed = ABOUT["images"] | {"greys": greys.RULE + 1}
    with pytest.raises(InputError, match="read pixels by the rule"):
        load_model(made_file(tmp_path / "m.jaxfair", images=changed))


@pytest.mark.parametrize("name", sorted(set(ABOUT) - {"population", "passing_on"}))
def test_a_model_json_that_lacks_a_word_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"model\.json"):
        load_model(made_file(tmp_path / "m.jaxfair", **{name: None}))


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b"[" * 100_000, b"\xff", b'{"a": NaN', b'{"a": 1e999}']
)
def test_json_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "m.jaxfair").write_bytes(packed(made_parts() | {"privacy.json": text}))
    with pytest.raises(InputError, match=r"privacy\.json is no JSON"):
        load_model(tmp_path / "m.jaxfair")


PYTHON = "xla_ffi_python_cpu_callback"


def test_a_program_that_calls_into_python_is_refused():
    """Such a call names an address in this process, which a hostile file may choose."""

    def score(params, frozen, batch):
        image = batch["image"]
        return {"mass": jax.ffi.ffi_call(PYTHON, image)(image, descriptor=np.uint64(4096))}

    call = jax.jit(lambda leaves, given: score({}, {}, given))
    named = [export.DisabledSafetyCheck.custom_call(PYTHON)]
    batch = {"image": jax.ShapeDtypeStruct((2, SIDE, SIDE, 1), jnp.float32)}
    content = bytes(
        export.export(call, platforms=("cpu",), disabled_checks=named)({}, batch).serialize()
    )
    with pytest.raises(InputError, match=f"calls {PYTHON}"):
        restored(content)
    with pytest.raises(InputError, match="cannot be exported"):
        exported(tiny()._replace(score=score), PARAMS, {"offset": jnp.zeros(())}, SPEC)


def test_a_program_is_read_for_its_calls_again_when_it_is_loaded(monkeypatch):
    """So who writes a file by hand does not get round it."""
    call = jax.jit(lambda leaves, given: jnp.linalg.eigh(given["image"])[0])
    named = [export.DisabledSafetyCheck.custom_call("lapack_ssyevd_ffi")]
    made = export.export(call, platforms=("cpu",), disabled_checks=named)(
        {}, {"image": jax.ShapeDtypeStruct((3, 3), jnp.float32)}
    )
    content = bytes(made.serialize())
    assert callable(restored(content))
    monkeypatch.setattr(operations, "_CALLS", operations.re.compile("shape_assertion"))
    with pytest.raises(InputError, match="calls lapack_ssyevd_ffi"):
        restored(content)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not a program", b"\xff" * 999])
def test_a_program_that_is_none_is_refused(content):
    with pytest.raises(InputError, match="program"):
        restored(content)


def test_arrays_are_written_as_safetensors_writes_them():
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {
        "b/c": rng.normal(size=(2, 3)).astype(np.float32),
        "a": np.array([True, False]),
        "scalar": np.array(3, np.float16),
        "empty": np.zeros((0, 4), np.int32),
    }
    for found in (library.load(tensors_to_bytes(arrays)), tensors_from_bytes(library.save(arrays))):
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def framed(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        framed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
        framed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        framed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        framed({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, b""),
        framed({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"\0" * 4),
        framed({"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        framed({"a": 3}, b""),
        framed({}, b"\0"),
    ],
)
def test_bytes_that_are_no_arrays_are_refused(content):
    with pytest.raises(InputError, match="its"):
        tensors_from_bytes(content)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_numbers_that_are_not_finite_are_refused_when_written_and_when_read(dtype, value):
    array = np.array([0, value], tensors._TYPES[dtype])
    with pytest.raises(InputError, match="'a' holds numbers that are not finite"):
        tensors_to_bytes({"a": array})
    body = array.tobytes()
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, len(body)]}
    with pytest.raises(InputError, match="'a' holds numbers that are not finite"):
        tensors_from_bytes(framed({"a": entry}, body))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"tasks": []}, "the tasks"),
        ({"tasks": ["mass", "mass"]}, "the tasks"),
        ({"tasks": ["mass", 7]}, "no tasks"),
        ({"tasks": ["heart"]}, "gives other scores"),
        ({"maps": False}, "gives other scores"),
        ({"groups": {"sex": "FM"}}, "no groups"),
        ({"groups": {}}, "does not take its parameters"),
        ({"needs": [["sex"]]}, "no needs"),
        ({"maps": 1}, "no maps"),
        ({"name": "\ud800"}, "no JSON"),
        ({"images": ABOUT["images"] | {"views": 5}}, "how images are read"),
        ({"images": ABOUT["images"] | {"kind": "volume"}}, "a volume's size"),
        ({"images": ABOUT["images"] | {"kind": ["picture"]}}, "how images are read"),
        ({"images": ABOUT["images"] | {"stored": {"image_size": 10**9}}}, "8 to 1024"),
        ({"images": ABOUT["images"] | {"stored": {"image_size": "8"}}}, "m.jaxfair"),
        ({"images": ABOUT["images"] | {"stored": {"rm": "-rf"}}}, "m.jaxfair"),
        ({"images": ABOUT["images"] | {"stored": {"image_size": 16}}}, "does not take"),
    ],
    ids=str,
)
def test_a_model_json_that_does_not_hold_is_refused_in_one_sentence(tmp_path, about, said):
    """Before anything is scored: whoever writes a file can seal it."""
    path = tmp_path / "m.jaxfair"
    path.write_bytes(packed(made_parts() | {"model.json": json.dumps(ABOUT | about).encode()}))
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"thresholds": []},
        {"thresholds": {"mass": 0.5}},
        {"thresholds": {"mass": {"youden": "0.5"}}},
        {"thresholds": {"mass": {"youden": {"sex": {"F": 1.0}}}}},
        {"thresholds": {"mass": {"youden": 0.5, "groups": {"sex": {"F": 0.5}}}}},
        {"thresholds": {"mass": {"youden": float("nan")}}},
        {"ranges": {"mean": [0.5]}},
        {"ranges": {"mean": [True, 1]}},
    ],
    ids=str,
)
def test_thresholds_and_ranges_that_are_no_numbers_are_refused(tmp_path, evaluation):
    path = tmp_path / "m.jaxfair"
    path.write_bytes(packed(made_parts() | {"evaluation.json": json.dumps(evaluation).encode()}))
    with pytest.raises(InputError, match=r"evaluation\.json"):
        load_model(path)


def test_parameters_of_another_model_are_refused(tmp_path):
    path = tmp_path / "m.jaxfair"
    other = tensors_to_bytes({"params/weight": np.zeros(3, np.float32)})
    path.write_bytes(packed(made_parts() | {"parameters.safetensors": other}))
    with pytest.raises(InputError, match="does not take its parameters and images"):
        load_model(path)
