import multiprocessing
import pickle
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.data import store as store_module
from ganseg_dist.data.cohort import Source
from ganseg_dist.data.labels import BRATS, BRATS_2023, LabelScheme
from ganseg_dist.data.preprocess import prepare_scan
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.scan import load_scan
from ganseg_dist.data.store import PreparedCase, content_hash, prepare_case, prepared_folder
from ganseg_dist.errors import DataError
from tests.data.cohorts import write_classes, write_pictures
from tests.modes import odd_modes

CONFIG = DataConfig(size=32, spacing_mm=6.0)
PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture
def case(cohort):
    return cohort.cases[0]


@pytest.fixture
def case_copy(case, tmp_path):
    """A copy of the case that tests may damage."""
    folder = tmp_path / "images"
    folder.mkdir()

    def copied(source: Source) -> Source:
        return Source(tuple(Path(shutil.copy(file, folder)) for file in source.files), source.channel)

    return replace(case, images={name: copied(source) for name, source in case.images.items()}, mask=copied(case.mask))


def contents(folder: Path) -> dict[str, int]:
    """Every file and folder under one, with its time of change in nanoseconds."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_prepared_case_holds_prepared_scan(case, tmp_path):
    stored = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    prepared = prepare_scan(load_scan(case), CONFIG, case.regions)
    assert (stored.id, stored.patient, stored.site) == (case.id, case.patient, case.site)
    assert stored.modalities == tuple(case.images)
    assert stored.regions == ("wt", "tc", "et")
    assert np.abs(stored.image - prepared.image).max() <= 2**-11
    assert np.array_equal(stored.masks, prepared.masks)
    assert np.array_equal(stored.lesion, prepared.lesion)
    assert np.array_equal(stored.usable, prepared.usable)
    assert stored.usable.any()
    assert not stored.usable.all()


def test_prepared_case_float16_separates_tissue_from_background(case, tmp_path):
    stored = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    prepared = prepare_scan(load_scan(case), CONFIG, case.regions)
    deep = prepared.image > -0.9995
    assert (stored.image[deep] > -1).all()
    assert (stored.image[prepared.image == -1] == -1).all()


def test_prepare_case_keeps_prepared_case_unchanged(case, tmp_path):
    content = content_hash(case)
    folder = prepare_case(tmp_path, case, CONFIG, content)
    before = contents(tmp_path)
    assert prepare_case(tmp_path, case, CONFIG, content) == folder
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "to"), [("size", 64), ("spacing_mm", 4.0), ("enhance", "corrected"), ("intensities", "colour")]
)
def test_prepared_folder_differs_by_preprocessing_setting(case, tmp_path, change, to):
    other = CONFIG.model_copy(update={change: to})
    content = content_hash(case)
    assert prepared_folder(tmp_path, case, other, content) != prepared_folder(tmp_path, case, CONFIG, content)


def test_prepared_folder_ignores_training_settings(case, tmp_path):
    other = CONFIG.model_copy(update={"blank_rate": 0.9, "test_fraction": 0.4, "intensities": "tissue"})
    content = content_hash(case)
    assert prepared_folder(tmp_path, case, other, content) == prepared_folder(tmp_path, case, CONFIG, content)


@pytest.mark.parametrize("which", ["t1", "flair", "mask"])
def test_content_hash_changes_with_a_bit(case_copy, which):
    before = content_hash(case_copy)
    assert content_hash(case_copy) == before
    source = case_copy.mask if which == "mask" else case_copy.images[which]
    content = bytearray(source.files[0].read_bytes())
    content[len(content) // 2] ^= 1
    source.files[0].write_bytes(content)
    assert content_hash(case_copy) != before


def test_content_hash_ignores_path(case, case_copy):
    assert content_hash(case_copy) == content_hash(case)


@pytest.mark.parametrize(
    "change",
    [
        {"patient": "other"},
        {"site": "other"},
        {"scheme": BRATS.of_regions(("wt", "tc"))},
        {"scheme": BRATS_2023},
        {"colours": {0: 0, 1: 3}},
        {"mask": None},
    ],
)
def test_content_hash_changes_with_case_metadata(case, change):
    assert content_hash(replace(case, **change)) != content_hash(case)


def test_content_hash_ignores_label_names(case):
    names = {name.upper() if name != "background" else name: value for name, value in BRATS.labels.items()}
    regions = {region: tuple(name.upper() for name in own) for region, own in BRATS.regions.items()}
    assert content_hash(replace(case, scheme=LabelScheme(names, regions))) == content_hash(case)


def test_content_hash_changes_when_modalities_swap(case):
    swapped = {**case.images, "t1": case.images["t2"], "t2": case.images["t1"]}
    assert content_hash(replace(case, images=swapped)) != content_hash(case)


def test_prepare_case_leaves_nothing_when_image_is_unreadable(case_copy, tmp_path):
    case_copy.images["t2"].files[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="is not a readable NIfTI file"):
        prepare_case(tmp_path / "store", case_copy, CONFIG, content_hash(case_copy))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_prepare_case_leaves_nothing_when_interrupted(case, tmp_path, monkeypatch, error):
    saved = []

    def interrupted(path, array):
        saved.append(path)
        if len(saved) == 2:
            raise error
        np.lib.format.write_array(path.open("wb"), array)

    monkeypatch.setattr(store_module.np, "save", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        prepare_case(tmp_path, case, CONFIG, content_hash(case))
    assert len(saved) == 2
    assert list((tmp_path / "cases").iterdir()) == []


def prepare_when_all_are_ready(store, case, content, ready, results):
    ready.wait(timeout=60)
    results.put(str(prepare_case(store, case, CONFIG, content)))


def test_prepare_case_is_safe_for_concurrent_processes(case, tmp_path):
    ready, results = PROCESSES.Barrier(3), PROCESSES.Queue()
    arguments = (tmp_path, case, content_hash(case), ready, results)
    processes = [PROCESSES.Process(target=prepare_when_all_are_ready, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    folders = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [str(path) for path in (tmp_path / "cases").iterdir()] == list(folders)
    assert PreparedCase.open(Path(folders.pop())).image.shape[2:] == (32, 32)


def test_prepared_case_pickles_without_voxels(case, tmp_path):
    stored = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    assert stored.image.shape[0] > 10
    packed = pickle.dumps(stored)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).image, stored.image)


def test_prepared_case_memory_maps_only_large_arrays(case, tmp_path):
    content = content_hash(case)
    small = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content))
    large = PreparedCase.open(prepare_case(tmp_path, case, CONFIG.model_copy(update={"size": 128}), content))
    assert small.image.nbytes < store_module.MAPPED_FROM_BYTES < large.image.nbytes
    assert not isinstance(small.image, np.memmap)
    assert not isinstance(small.masks, np.memmap)
    assert isinstance(large.image, np.memmap)


@pytest.fixture
def count_open_files():
    """How many files this process holds open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("open files can only be counted under /proc")
    return lambda: len(list(folder.iterdir()))


def test_prepared_pictures_hold_no_files_open(tmp_path, count_open_files):
    root = write_pictures(tmp_path / "pictures", [f"{number:02d}" for number in range(20)])
    folders = [prepare_case(tmp_path, case, CONFIG, content_hash(case)) for case in read_cohort(root).cases]
    before = count_open_files()
    stored = [PreparedCase.open(folder) for folder in folders]
    assert sum(int(case.masks.sum()) > 0 and case.image.shape == (1, 3, 32, 32) for case in stored) == 20
    assert count_open_files() == before


def test_prepared_case_of_class_folder_has_class_and_no_mask(tmp_path):
    cohort = read_cohort(write_classes(tmp_path / "classes", {"Training/glioma": 1, "Testing/none": 1}))
    stored = [PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case))) for case in cohort.cases]
    assert [(case.class_name, case.regions, case.modalities) for case in stored] == [
        ("none", (), ("grey",)),
        ("glioma", (), ("grey",)),
    ]
    assert all(case.usable.all() and not case.has_lesion.any() for case in stored)


def test_content_hash_changes_with_colour_reading(case):
    coded = replace(case, mask=replace(case.mask, reads="colour code"))
    assert content_hash(coded) != content_hash(case)


def test_prepared_case_without_mask_has_no_regions(case, tmp_path):
    unmasked = replace(case, mask=None)
    stored = PreparedCase.open(prepare_case(tmp_path, unmasked, CONFIG, content_hash(unmasked)))
    assert stored.regions == ()
    assert not stored.has_lesion.any()
    assert stored.usable.any()


def test_prepare_case_applies_umask(umask, case, tmp_path):
    prepare_case(tmp_path, case, CONFIG, content_hash(case))
    assert odd_modes(tmp_path, umask) == {}


@pytest.fixture
def small_case(tmp_path):
    """One slice of 32 x 32 pixels, with a mask: small enough to try every bit of its description."""
    return read_cohort(write_pictures(tmp_path / "pictures", ["a"])).cases[0]


def flip_bit(file: Path, bit: int) -> None:
    """Invert one bit of a file; a negative one is counted from the end."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES = {
    "first bit": (lambda file: flip_bit(file, 0), "is damaged"),
    "middle bit": (lambda file: flip_bit(file, 4 * file.stat().st_size), "is damaged"),
    "last bit": (lambda file: flip_bit(file, -1), "is damaged"),
    "cut": (truncate, "is damaged"),
    "empty": (empty, "is damaged"),
    "gone": (Path.unlink, "is missing"),
}
FILES = ["image.npy", "masks.npy", "case.json"]


def read_arrays(case: PreparedCase) -> None:
    assert len(case.image) == len(case.masks)


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_prepared_case_open_names_damaged_file_and_remedy(small_case, tmp_path, monkeypatch, name, damage, size):
    monkeypatch.setattr(store_module, "MAPPED_FROM_BYTES", 5000)  # with 128 pixels images are mapped
    config = CONFIG.model_copy(update={"size": size})
    folder = prepare_case(tmp_path, small_case, config, content_hash(small_case))
    spoil, problem = DAMAGES[damage]
    spoil(folder / name)
    with pytest.raises(DataError) as caught:
        read_arrays(PreparedCase.open(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: {problem}")
    assert message.endswith(f"; delete {folder} and rerun the same command, which prepares the case again")
    assert "\n" not in message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_prepare_case_repairs_damaged_case_with_warning(small_case, tmp_path, caplog, name, damage):
    content = content_hash(small_case)
    folder = prepare_case(tmp_path, small_case, CONFIG, content)
    written = {file.name: file.read_bytes() for file in folder.iterdir()}
    spoil, problem = DAMAGES[damage]
    spoil(folder / name)
    assert not caplog.messages
    assert prepare_case(tmp_path, small_case, CONFIG, content) == folder
    (message,) = caplog.messages
    assert message.startswith(f"{folder / name}: {problem}")
    assert message.endswith("; a is prepared again")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == written
    assert list((tmp_path / "cases").iterdir()) == [folder]
    read_arrays(PreparedCase.open(folder))


def test_prepared_case_open_detects_any_changed_bit(small_case, tmp_path):
    folder = prepare_case(tmp_path, small_case, CONFIG, content_hash(small_case))
    file = folder / "case.json"
    whole = file.read_bytes()
    written = case_fields(PreparedCase.open(folder))
    noticed = 0
    for bit in range(0, 8 * len(whole), 11):
        flip_bit(file, bit)
        try:
            assert case_fields(PreparedCase.open(folder)) == written, f"bit {bit}"
        except DataError:
            noticed += 1
        file.write_bytes(whole)
    assert noticed > 200


def case_fields(case: PreparedCase) -> dict:
    return {field.name: np.asarray(getattr(case, field.name)).tolist() for field in fields(case)}


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"digest": 1}', "NaN", "[" * 100_000])
def test_prepared_case_open_rejects_json_of_no_case(small_case, tmp_path, content):
    folder = prepare_case(tmp_path, small_case, CONFIG, content_hash(small_case))
    (folder / "case.json").write_text(content)
    with pytest.raises(DataError, match=r"case\.json: is damaged"):
        PreparedCase.open(folder)


def test_prepared_case_is_verified_once_per_process(case, tmp_path, monkeypatch):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    digested = []
    digest = store_module.verify_file
    monkeypatch.setattr(
        store_module, "verify_file", lambda file, known: (digested.append(file.name), digest(file, known))
    )
    for _ in range(3):
        read_arrays(PreparedCase.open(folder))
        pickle.loads(pickle.dumps(PreparedCase.open(folder)))
    assert sorted(digested) == ["image.npy", "masks.npy"]


def test_prepared_case_is_verified_before_pickling(case, tmp_path):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    stored = PreparedCase.open(folder)
    flip_bit(folder / "masks.npy", -1)
    with pytest.raises(DataError, match=r"masks\.npy: is damaged"):
        pickle.dumps(stored)


def test_unpickled_prepared_case_is_not_verified_again(case, tmp_path):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    sent = pickle.dumps(PreparedCase.open(folder))
    flip_bit(folder / "image.npy", -1)
    assert pickle.loads(sent).image.shape[2:] == (32, 32)


def test_prepare_case_fails_when_case_is_damaged_and_images_are_gone(case_copy, tmp_path):
    content = content_hash(case_copy)
    folder = prepare_case(tmp_path / "store", case_copy, CONFIG, content)
    flip_bit(folder / "image.npy", -1)
    case_copy.images["t1"].files[0].unlink()
    with pytest.raises(DataError, match="no such file"):
        prepare_case(tmp_path / "store", case_copy, CONFIG, content)
    assert list((tmp_path / "store" / "cases").iterdir()) == []


def test_prepare_case_repairs_damage_in_concurrent_processes(case, tmp_path):
    content = content_hash(case)
    folder = prepare_case(tmp_path, case, CONFIG, content)
    written = (folder / "image.npy").read_bytes()
    flip_bit(folder / "image.npy", -1)
    ready, results = PROCESSES.Barrier(3), PROCESSES.Queue()
    arguments = (tmp_path, case, content, ready, results)
    processes = [PROCESSES.Process(target=prepare_when_all_are_ready, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert {results.get(timeout=60) for _ in processes} == {str(folder)}
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert list((tmp_path / "cases").iterdir()) == [folder]
    assert (folder / "image.npy").read_bytes() == written
