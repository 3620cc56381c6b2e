import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ganseg_dist.config import DataConfig
from ganseg_dist.data import store as store_module
from ganseg_dist.data.cohort import Source
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
def own_case(case, tmp_path):
    """A copy that may be changed."""
    folder = tmp_path / "images"
    folder.mkdir()

    def copied(source: Source) -> Source:
        return Source(tuple(Path(shutil.copy(file, folder)) for file in source.files), source.channel)

    return replace(case, images={name: copied(source) for name, source in case.images.items()}, mask=copied(case.mask))


def contents(folder: Path) -> dict[str, int]:
    """Every file and folder under one, with its time of change in nanoseconds."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_what_is_stored_is_what_was_prepared(case, tmp_path):
    opened = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    prepared = prepare_scan(load_scan(case), CONFIG, case.regions)
    assert (opened.id, opened.patient, opened.site) == (case.id, case.patient, case.site)
    assert opened.modalities == tuple(case.images)
    assert opened.regions == ("wt", "tc", "et")
    assert np.abs(opened.image - prepared.image).max() <= 2**-11
    assert np.array_equal(opened.masks, prepared.masks)
    assert np.array_equal(opened.lesion, prepared.lesion)
    assert np.array_equal(opened.usable, prepared.usable)
    assert opened.usable.any()
    assert not opened.usable.all()


def test_half_precision_keeps_tissue_and_background_apart(case, tmp_path):
    opened = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    prepared = prepare_scan(load_scan(case), CONFIG, case.regions)
    deep = prepared.image > -0.9995
    assert (opened.image[deep] > -1).all()
    assert (opened.image[prepared.image == -1] == -1).all()


def test_preparing_again_does_nothing(case, tmp_path):
    content = content_hash(case)
    folder = prepare_case(tmp_path, case, CONFIG, content)
    before = contents(tmp_path)
    assert prepare_case(tmp_path, case, CONFIG, content) == folder
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "to"), [("size", 64), ("spacing_mm", 4.0), ("enhance", "sound"), ("intensities", "colour")]
)
def test_a_setting_that_shapes_slices_makes_another_folder(case, tmp_path, change, to):
    other = CONFIG.model_copy(update={change: to})
    content = content_hash(case)
    assert prepared_folder(tmp_path, case, other, content) != prepared_folder(tmp_path, case, CONFIG, content)


def test_settings_of_training_alone_do_not(case, tmp_path):
    other = CONFIG.model_copy(update={"blank_rate": 0.9, "test_fraction": 0.4, "intensities": "tissue"})
    content = content_hash(case)
    assert prepared_folder(tmp_path, case, other, content) == prepared_folder(tmp_path, case, CONFIG, content)


@pytest.mark.parametrize("which", ["t1", "flair", "mask"])
def test_the_key_changes_with_a_byte(own_case, which):
    before = content_hash(own_case)
    assert content_hash(own_case) == before
    source = own_case.mask if which == "mask" else own_case.images[which]
    content = bytearray(source.files[0].read_bytes())
    content[len(content) // 2] ^= 1
    source.files[0].write_bytes(content)
    assert content_hash(own_case) != before


def test_the_key_does_not_change_with_the_place(case, own_case):
    assert content_hash(own_case) == content_hash(case)


@pytest.mark.parametrize(
    "change", [{"patient": "other"}, {"site": "other"}, {"regions": ("wt",)}, {"labels": {0: 0, 1: 3}}, {"mask": None}]
)
def test_the_key_changes_with_what_the_reader_says(case, change):
    assert content_hash(replace(case, **change)) != content_hash(case)


def test_modalities_that_change_places_change_the_key(case):
    swapped = {**case.images, "t1": case.images["t2"], "t2": case.images["t1"]}
    assert content_hash(replace(case, images=swapped)) != content_hash(case)


def test_a_case_that_cannot_be_read_leaves_nothing(own_case, tmp_path):
    own_case.images["t2"].files[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="is not a readable NIfTI file"):
        prepare_case(tmp_path / "store", own_case, CONFIG, content_hash(own_case))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(case, tmp_path, monkeypatch, error):
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


def test_processes_that_prepare_the_same_case_at_once_agree(case, tmp_path):
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


def test_a_pickled_case_does_not_carry_its_voxels(case, tmp_path):
    opened = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case)))
    assert opened.image.shape[0] > 10
    packed = pickle.dumps(opened)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).image, opened.image)


def test_only_large_arrays_are_memory_mapped(case, tmp_path):
    content = content_hash(case)
    small = PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content))
    large = PreparedCase.open(prepare_case(tmp_path, case, CONFIG.model_copy(update={"size": 128}), content))
    assert small.image.nbytes < store_module.MAPPED_FROM_BYTES < large.image.nbytes
    assert not isinstance(small.image, np.memmap)
    assert not isinstance(small.masks, np.memmap)
    assert isinstance(large.image, np.memmap)


@pytest.fixture
def open_files():
    """How many files this process holds open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("open files can only be counted under /proc")
    return lambda: len(list(folder.iterdir()))


def test_pictures_do_not_hold_files_open(tmp_path, open_files):
    root = write_pictures(tmp_path / "pictures", [f"{number:02d}" for number in range(20)])
    folders = [prepare_case(tmp_path, case, CONFIG, content_hash(case)) for case in read_cohort(root).cases]
    before = open_files()
    opened = [PreparedCase.open(folder) for folder in folders]
    assert sum(int(case.masks.sum()) > 0 and case.image.shape == (1, 3, 32, 32) for case in opened) == 20
    assert open_files() == before


def test_a_cohort_of_classes_has_no_masks_and_keeps_its_classes(tmp_path):
    cohort = read_cohort(write_classes(tmp_path / "classes", {"Training/glioma": 1, "Testing/none": 1}))
    opened = [PreparedCase.open(prepare_case(tmp_path, case, CONFIG, content_hash(case))) for case in cohort.cases]
    assert [(case.class_name, case.regions, case.modalities) for case in opened] == [
        ("none", (), ("grey",)),
        ("glioma", (), ("grey",)),
    ]
    assert all(case.usable.all() and not case.has_lesion.any() for case in opened)


def test_the_key_changes_with_how_colours_are_read(case):
    coded = replace(case, mask=replace(case.mask, reads="colour code"))
    assert content_hash(coded) != content_hash(case)


def test_a_case_without_a_mask(case, tmp_path):
    unmasked = replace(case, mask=None)
    opened = PreparedCase.open(prepare_case(tmp_path, unmasked, CONFIG, content_hash(unmasked)))
    assert opened.regions == ()
    assert not opened.has_lesion.any()
    assert opened.usable.any()


def test_a_prepared_case_has_the_modes_that_the_umask_gives(umask, case, tmp_path):
    prepare_case(tmp_path, case, CONFIG, content_hash(case))
    assert odd_modes(tmp_path, umask) == {}
