import json
import sys
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ganseg_dist.data.phantom import anatomy, scanner
from ganseg_dist.data.phantom.folder import make_phantom
from ganseg_dist.data.phantom.tumour import no_tumour
from ganseg_dist.errors import ConfigError, DataError, MissingDependency
from tests.data.cohorts import read_rows

MODALITIES = ("t1", "t1ce", "t2", "flair")
SETTINGS = {"patients": 6, "sites": 3, "seed": 0, "healthy": 2, "spacing_mm": 5.0}


@pytest.fixture(scope="module")
def atlas():
    """Read and smoothed once for the whole file: it takes a second or two each time."""
    pytest.importorskip("nilearn", reason="phantoms are made of nilearn's MNI152 maps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anatomy, "load_atlas", cache(anatomy.load_atlas))
        yield anatomy.load_atlas(5.0)


@pytest.fixture(scope="module")
def phantom_folder(atlas, tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "cohort"
    make_phantom(out, **SETTINGS)
    return out


@pytest.fixture
def phantom_copy(phantom_folder, tmp_path):
    """A copy that a test may damage."""
    out = tmp_path / "copy"
    for path in contents(phantom_folder):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes((phantom_folder / path).read_bytes())
    return out


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "name_mapping.csv")


def volume(folder: Path, case: str, name: str) -> np.ndarray:
    return np.asanyarray(nib.load(folder / case / f"{case}_{name}.nii.gz").dataobj)


def cases(folder: Path, *grades: str) -> list[str]:
    return [row["BraTS_2020_subject_ID"] for row in rows(folder) if row["Grade"] in grades]


def test_make_phantom_writes_brats_2020_layout(phantom_folder):
    ids = [f"BraTS20_Training_{number:03d}" for number in range(1, 9)]
    images = {Path(case) / f"{case}_{name}.nii.gz" for case in ids for name in ("t1", "t1ce", "t2", "flair", "seg")}
    assert set(contents(phantom_folder)) == {Path("PHANTOM.json"), Path("name_mapping.csv")} | images
    assert not (phantom_folder / ".unfinished-cases").exists()
    assert [row["BraTS_2020_subject_ID"] for row in rows(phantom_folder)] == ids
    patients, healthy = rows(phantom_folder)[:6], rows(phantom_folder)[6:]
    assert [row["site"] for row in patients] == ["site_1", "site_2", "site_3"] * 2
    assert {row["Grade"] for row in patients} == {"HGG", "LGG"}
    assert [row["Grade"] for row in healthy] == ["NA", "NA"]


def test_phantom_folder_is_marked_synthetic(phantom_folder):
    about = json.loads((phantom_folder / "PHANTOM.json").read_text())
    assert about["phantom"] is True
    assert about["notice"].startswith("Synthetic")
    assert about["settings"] == SETTINGS
    assert sorted(about["sites"]) == ["site_1", "site_2", "site_3"]
    assert about["healthy"] == ["BraTS20_Training_007", "BraTS20_Training_008"]


def test_phantom_images_share_ras_grid_in_mni_space(phantom_folder):
    for row in rows(phantom_folder):
        case = row["BraTS_2020_subject_ID"]
        files = [nib.load(phantom_folder / case / f"{case}_{name}.nii.gz") for name in (*MODALITIES, "seg")]
        for image in files:
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == (5.0, 5.0, 5.0)
            np.testing.assert_array_equal(image.affine, files[0].affine)
        assert [image.get_data_dtype() for image in files] == [np.int16] * 4 + [np.uint8]
        middle_mm = files[0].affine[:3] @ [*((np.array(files[0].shape) - 1) / 2), 1]
        np.testing.assert_allclose(middle_mm, anatomy.CENTRE_MM)
        brain_mm = files[0].affine[:3, :3] @ ndimage.center_of_mass(volume(phantom_folder, case, "t1") > 0)
        np.testing.assert_allclose(brain_mm + files[0].affine[:3, 3], anatomy.CENTRE_MM, atol=10)


def test_phantom_modalities_share_brain_inside_grid(phantom_folder):
    for row in rows(phantom_folder):
        case = row["BraTS_2020_subject_ID"]
        brain = volume(phantom_folder, case, "t1") > 0
        litres = brain.sum() * 5.0**3 / 1e6
        assert 1.4 < litres < 2.2
        for name in MODALITIES:
            image = volume(phantom_folder, case, name)
            assert image.min() == 0
            np.testing.assert_array_equal(image > 0, brain)
        for axis in range(3):
            assert not brain.take([0, -1], axis).any()


def test_phantom_tumours_lie_inside_brain(phantom_folder):
    seen = set()
    for case in cases(phantom_folder, "HGG", "LGG"):
        labels = volume(phantom_folder, case, "seg")
        assert labels.any()
        assert not labels[volume(phantom_folder, case, "flair") == 0].any()
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, 1, 2, 4}


def test_phantom_masks_of_healthy_subjects_are_empty(phantom_folder):
    healthy = cases(phantom_folder, "NA")
    assert len(healthy) == 2
    for case in healthy:
        assert not volume(phantom_folder, case, "seg").any()
        assert volume(phantom_folder, case, "t1").any()


def test_phantom_hgg_is_necrosis_in_rim_in_oedema(phantom_folder):
    necrotic_voxels = 0
    for case in cases(phantom_folder, "HGG"):
        labels = volume(phantom_folder, case, "seg")
        necrotic, core = labels == 1, np.isin(labels, (1, 4))
        necrotic_voxels += necrotic.sum()
        assert not (ndimage.binary_dilation(necrotic) & ~core).any()
        around = ndimage.binary_dilation(core) & ~core & (volume(phantom_folder, case, "t1") > 0)
        assert (labels[around] == 2).mean() > 0.3
    assert necrotic_voxels > 0


def test_phantom_lgg_enhances_little(phantom_folder):
    labels = np.stack([volume(phantom_folder, case, "seg") for case in cases(phantom_folder, "LGG")])
    assert (labels == 1).any()
    assert (labels == 4).sum() < 0.2 * (labels == 1).sum()


def test_phantom_contrasts_are_ordered_as_in_mri(phantom_folder):
    """Medians against the case's own white matter, taken as what is brightest on T1."""
    for case in cases(phantom_folder, "HGG"):
        labels = volume(phantom_folder, case, "seg")
        t1, t1ce, t2, flair = (volume(phantom_folder, case, name).astype(float) for name in MODALITIES)
        healthy = (t1 > 0) & (labels == 0)
        white = healthy & (t1 > np.percentile(t1[healthy], 75))
        fluid = healthy & (t2 > np.percentile(t2[healthy], 97))
        assert np.median(t1[fluid]) < np.median(t1[white])
        assert np.median(flair[fluid]) < np.median(flair[white]) < np.median(flair[labels == 2])
        assert np.median(t2[white]) < np.median(t2[labels == 2]) < np.median(t2[fluid])
        enhancement = t1ce / np.median(t1ce[white]) - t1 / np.median(t1[white])
        assert np.median(enhancement[labels == 4]) > np.median(enhancement[healthy]) + 0.1


def test_phantom_tumours_are_not_found_by_flair_threshold(phantom_folder):
    best = []
    for case in cases(phantom_folder, "HGG", "LGG"):
        flair, tumour = volume(phantom_folder, case, "flair"), volume(phantom_folder, case, "seg") > 0
        cuts = np.percentile(flair[flair > 0], np.arange(50, 100))
        best.append(max(2 * (tumour & (flair > cut)).sum() / (tumour.sum() + (flair > cut).sum()) for cut in cuts))
    assert 0.2 < np.mean(best) < 0.75


def test_acquire_varies_more_between_sites_than_within(atlas):
    grid = anatomy.phantom_grid(5.0)
    points = anatomy.sample_deformation(np.random.default_rng(0), grid)
    brain = anatomy.sample_brain(atlas, points, grid)

    def scan(site: int, seed: int) -> np.ndarray:
        """Each modality's intensities in the brain, standardised: what is left when gain is taken away."""
        images = scanner.acquire(np.random.default_rng(seed), scanner.sample_site(0, site), brain, no_tumour(grid))
        inside = np.stack([images[name][brain.inside] for name in MODALITIES]).astype(float)
        standard = (inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True)
        return np.percentile(standard, np.arange(5, 100, 5), axis=1)

    scans = np.array([[scan(site, seed) for seed in range(4)] for site in range(3)])
    typical = scans.mean(axis=1)
    within = np.abs(scans - typical[:, None]).mean(axis=(1, 2, 3))
    between = [np.abs(typical[a] - typical[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(between) > 1.5 * max(within)


def test_sample_site_depends_on_seed_and_index_only():
    sites = [scanner.sample_site(0, index) for index in range(4)]
    assert len({site.gamma for site in sites}) == len({site.noise for site in sites}) == 4
    assert scanner.sample_site(0, 2) == sites[2]
    assert scanner.sample_site(1, 2) != sites[2]


def test_make_phantom_is_deterministic(phantom_folder, tmp_path):
    make_phantom(tmp_path / "again", **SETTINGS)
    assert contents(tmp_path / "again") == contents(phantom_folder)


def test_make_phantom_patients_do_not_depend_on_count(phantom_folder, tmp_path):
    make_phantom(tmp_path / "fewer", patients=3, sites=3, seed=0, healthy=0, spacing_mm=5.0)
    whole = contents(phantom_folder)
    images = {path: data for path, data in contents(tmp_path / "fewer").items() if len(path.parts) == 2}
    assert len(images) == 15
    assert all(whole[path] == data for path, data in images.items())


def test_make_phantom_with_another_seed_differs(phantom_folder, tmp_path):
    make_phantom(tmp_path / "other", patients=1, sites=1, seed=5, healthy=0, spacing_mm=5.0)
    first = "BraTS20_Training_001"
    for name in (*MODALITIES, "seg"):
        assert not np.array_equal(volume(tmp_path / "other", first, name), volume(phantom_folder, first, name))


def test_smooth_noise_does_not_depend_on_spacing():
    coarse, fine = (anatomy.phantom_grid(spacing) for spacing in (8.0, 4.0))
    fields = [anatomy.smooth_noise(np.random.default_rng(0), grid, 40) for grid in (coarse, fine)]
    # Each 8 mm voxel's centre is the corner that eight 4 mm voxels share.
    blocks = fields[1].reshape(22, 2, 26, 2, 22, 2).mean((1, 3, 5))
    np.testing.assert_allclose(blocks, fields[0], atol=0.05)
    assert fields[0].std() > 0.5


def test_make_phantom_resumes_interrupted_cohort(phantom_folder, phantom_copy):
    lost, kept = "BraTS20_Training_002", phantom_copy / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz"
    for path in (phantom_copy / lost).iterdir():
        path.unlink()
    (phantom_copy / lost).rmdir()
    (phantom_copy / "BraTS20_Training_005" / "BraTS20_Training_005_seg.nii.gz").unlink()
    (phantom_copy / ".unfinished-cases" / lost).mkdir(parents=True)
    (phantom_copy / ".unfinished-cases" / lost / "half.nii.gz").write_bytes(b"")
    written = kept.stat().st_mtime_ns
    calls = []
    make_phantom(phantom_copy, **SETTINGS, progress=lambda done, total: calls.append((done, total)))
    assert contents(phantom_copy) == contents(phantom_folder)
    assert kept.stat().st_mtime_ns == written
    assert calls == [(done, 8) for done in range(1, 9)]


def test_make_phantom_leaves_only_whole_cases_when_interrupted(atlas, tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    settings = {"patients": 2, "sites": 1, "seed": 0, "healthy": 0, "spacing_mm": 5.0}
    with pytest.raises(KeyboardInterrupt):
        make_phantom(tmp_path, **settings, progress=interrupt)
    assert [len(list(case.iterdir())) for case in tmp_path.glob("BraTS20_*")] == [5]
    make_phantom(tmp_path, **settings)
    assert [len(list(case.iterdir())) for case in tmp_path.glob("BraTS20_*")] == [5, 5]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [("seed", 9, "seed 0, not 9"), ("patients", 5, "patients 6, not 5"), ("spacing_mm", 4.0, "5.0, not 4.0")],
)
def test_make_phantom_rejects_other_settings_in_same_folder(phantom_folder, name, value, problem):
    before = contents(phantom_folder)
    with pytest.raises(DataError, match=problem):
        make_phantom(phantom_folder, **{**SETTINGS, name: value})
    assert contents(phantom_folder) == before


def test_make_phantom_rejects_folder_of_other_files(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"mine")
    with pytest.raises(DataError, match="is no phantom"):
        make_phantom(tmp_path, patients=1, sites=1, seed=0)
    assert contents(tmp_path) == {Path("scan.nii.gz"): b"mine"}


def test_make_phantom_rejects_unreadable_description(tmp_path):
    (tmp_path / "PHANTOM.json").write_text("{")
    with pytest.raises(DataError, match=r"PHANTOM\.json: cannot be read"):
        make_phantom(tmp_path, patients=1, sites=1, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 0), ("sites", 0), ("sites", 7), ("seed", -1), ("healthy", -1), ("spacing_mm", 0.1)],
)
def test_make_phantom_rejects_arguments_out_of_range(tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        make_phantom(tmp_path / "out", **{**SETTINGS, name: value})
    assert not (tmp_path / "out").exists()


def test_make_phantom_without_nilearn_names_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(MissingDependency, match=r"pip install 'ganseg-dist\[phantom\]'"):
        make_phantom(tmp_path / "out", patients=1, sites=1, seed=0)
    assert not (tmp_path / "out").exists()
