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
    ("change", "to"), [("size", 64), ("spacing_mm", 4.0), ("enhance", "corrected"), ("intensities", "colour")]
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
def test_the_key_changes_with_what_the_reader_says(case, change):
    assert content_hash(replace(case, **change)) != content_hash(case)


def test_the_key_does_not_change_with_a_labels_name(case):
    names = {name.upper() if name != "background" else name: value for name, value in BRATS.labels.items()}
    regions = {region: tuple(name.upper() for name in own) for region, own in BRATS.regions.items()}
    assert content_hash(replace(case, scheme=LabelScheme(names, regions))) == content_hash(case)


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


@pytest.fixture
def small_case(tmp_path):
    """One slice of 32 x 32 pixels, with a mask: small enough to try every bit of its description."""
    return read_cohort(write_pictures(tmp_path / "pictures", ["a"])).cases[0]


def flip(file: Path, bit: int) -> None:
    """Invert one bit of a file; a negative one is counted from the end."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES = {
    "first bit": (lambda file: flip(file, 0), "is damaged"),
    "middle bit": (lambda file: flip(file, 4 * file.stat().st_size), "is damaged"),
    "last bit": (lambda file: flip(file, -1), "is damaged"),
    "cut": (truncate, "is damaged"),
    "empty": (empty, "is damaged"),
    "gone": (Path.unlink, "is missing"),
}
FILES = ["image.npy", "masks.npy", "case.json"]


def read(case: PreparedCase) -> None:
    assert len(case.image) == len(case.masks)


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_reading_a_damaged_file_names_it_and_what_to_do(small_case, tmp_path, monkeypatch, name, damage, size):
    monkeypatch.setattr(store_module, "MAPPED_FROM_BYTES", 5000)  # with 128 pixels images are mapped
    config = CONFIG.model_copy(update={"size": size})
    folder = prepare_case(tmp_path, small_case, config, content_hash(small_case))
    spoil, problem = DAMAGES[damage]
    spoil(folder / name)
    with pytest.raises(DataError) as caught:
        read(PreparedCase.open(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: {problem}")
    assert message.endswith(f"; delete {folder} and rerun the same command, which prepares the case again")
    assert "\n" not in message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_case_is_prepared_again_with_a_warning(small_case, tmp_path, caplog, name, damage):
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
    read(PreparedCase.open(folder))


def test_no_bit_of_a_description_can_change_unnoticed(small_case, tmp_path):
    folder = prepare_case(tmp_path, small_case, CONFIG, content_hash(small_case))
    file = folder / "case.json"
    whole = file.read_bytes()
    written = described(PreparedCase.open(folder))
    noticed = 0
    for bit in range(0, 8 * len(whole), 11):
        flip(file, bit)
        try:
            assert described(PreparedCase.open(folder)) == written, f"bit {bit}"
        except DataError:
            noticed += 1
        file.write_bytes(whole)
    assert noticed > 200


def described(case: PreparedCase) -> dict:
    return {field.name: np.asarray(getattr(case, field.name)).tolist() for field in fields(case)}


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"digest": 1}', "NaN", "[" * 100_000])
def test_json_that_describes_no_case_is_damage(small_case, tmp_path, content):
    folder = prepare_case(tmp_path, small_case, CONFIG, content_hash(small_case))
    (folder / "case.json").write_text(content)
    with pytest.raises(DataError, match=r"case\.json: is damaged"):
        PreparedCase.open(folder)


def test_a_case_is_verified_once_in_a_process(case, tmp_path, monkeypatch):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    digested = []
    digest = store_module.verify_file
    monkeypatch.setattr(
        store_module, "verify_file", lambda file, known: (digested.append(file.name), digest(file, known))
    )
    for _ in range(3):
        read(PreparedCase.open(folder))
        pickle.loads(pickle.dumps(PreparedCase.open(folder)))
    assert sorted(digested) == ["image.npy", "masks.npy"]


def test_a_case_is_verified_before_it_is_sent_to_another_process(case, tmp_path):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    opened = PreparedCase.open(folder)
    flip(folder / "masks.npy", -1)
    with pytest.raises(DataError, match=r"masks\.npy: is damaged"):
        pickle.dumps(opened)


def test_another_process_does_not_verify_again_what_it_is_sent(case, tmp_path):
    folder = prepare_case(tmp_path, case, CONFIG, content_hash(case))
    sent = pickle.dumps(PreparedCase.open(folder))
    flip(folder / "image.npy", -1)
    assert pickle.loads(sent).image.shape[2:] == (32, 32)


def test_a_damaged_case_whose_images_are_gone_is_an_error(own_case, tmp_path):
    content = content_hash(own_case)
    folder = prepare_case(tmp_path / "store", own_case, CONFIG, content)
    flip(folder / "image.npy", -1)
    own_case.images["t1"].files[0].unlink()
    with pytest.raises(DataError, match="no such file"):
        prepare_case(tmp_path / "store", own_case, CONFIG, content)
    assert list((tmp_path / "store" / "cases").iterdir()) == []


def test_processes_that_find_the_same_damage_at_once_agree(case, tmp_path):
    content = content_hash(case)
    folder = prepare_case(tmp_path, case, CONFIG, content)
    written = (folder / "image.npy").read_bytes()
    flip(folder / "image.npy", -1)
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
