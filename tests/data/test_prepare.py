"""Preparation of CIFAR, against small archives from a local file and from loopback HTTP."""

import functools
import http.server
import json
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ltdd_jax.data import prepare, sources
from ltdd_jax.types import UserError
from tests.data import cifar_archive


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Keeps the test output clean."""

    def do_GET(self) -> None:
        self.server.requests += 1
        super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server of tmp_path/served on the loopback interface; counts the requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    handler = functools.partial(_Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requests = 0
        server.url = f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def served(tmp_path, server, monkeypatch):
    """CIFAR-10's small archive on the server, registered under the server's address."""
    archive = cifar_archive.make_archive("cifar10", tmp_path / "served" / "cifar.tar.gz")
    builder = cifar_archive.make_builder(archive, server.url)
    monkeypatch.setitem(prepare.BUILDERS, "cifar10", builder)
    return archive


@pytest.fixture
def local(tmp_path, monkeypatch):
    """CIFAR-100's small archive in a file, registered under the real address."""
    archive = cifar_archive.make_archive("cifar100", tmp_path / "my own name.tgz")
    monkeypatch.setitem(prepare.BUILDERS, "cifar100", cifar_archive.make_builder(archive))
    return archive


def _assert_prepared(archive: cifar_archive.Archive, data_dir: str) -> None:
    for split in ("train", "test"):
        loaded = sources.load_source(archive.name, split, data_dir=data_dir)
        np.testing.assert_array_equal(loaded.images, archive.images[split])
        np.testing.assert_array_equal(loaded.labels, archive.labels[split])
        assert loaded.class_names == archive.class_names


def test_download_is_prepared_once_and_readable_by_tfds(served, server, tmp_path, capsys):
    data_dir = str(tmp_path / "data")
    assert prepare.main(["cifar10", f"--data_dir={data_dir}"]) == 0
    _assert_prepared(served, data_dir)
    source = tfds.data_source("cifar10", split="train", data_dir=data_dir)
    ids = [example["id"] for example in source]
    assert sorted(ids) == [b"train_%05d" % i for i in range(len(source))]
    assert ids != sorted(ids)  # the disk has TFDS's shuffled order, so sorting matters

    requests = server.requests
    assert prepare.main(["cifar10", f"--data_dir={data_dir}"]) == 0
    assert server.requests == requests
    assert "already prepared" in capsys.readouterr().out


def test_local_archive_needs_no_network(local, tmp_path, capsys):
    data_dir = str(tmp_path / "data")
    assert prepare.main(["cifar100", f"--data_dir={data_dir}", f"--archive={local.path}"]) == 0
    _assert_prepared(local, data_dir)
    (folder,) = (tmp_path / "data" / "cifar100").iterdir()
    assert f"is prepared in {folder}" in capsys.readouterr().out
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["moduleName"] == "tensorflow_datasets.image_classification.cifar"
    assert info["downloadSize"] == str(local.path.stat().st_size)
    source = tfds.data_source("cifar100", split="train", data_dir=data_dir)
    assert source.dataset_info.features["coarse_label"].num_classes == 20


def test_real_builders_have_tfds_checksums_and_metadata():
    """A renamed or moved builder class would lose the checksum check without a word."""
    for name, builder in prepare.BUILDERS.items():
        original = tfds.builder_cls(name)
        assert builder.url_infos == original.url_infos
        assert builder.url_infos
        assert (builder.name, builder.VERSION) == (original.name, original.VERSION)


@pytest.mark.parametrize("how", ["missing", "wrong"])
def test_bad_archive_is_refused(how, local, tmp_path, capsys):
    other = tmp_path / "other.tgz"
    if how == "wrong":
        cifar_archive.make_archive("cifar100", other, images_per_file=3)
    data_dir = str(tmp_path / "data")
    assert prepare.main(["cifar100", f"--data_dir={data_dir}", f"--archive={other}"]) == 2
    assert {"missing": "is not a file", "wrong": "SHA-256"}[how] in capsys.readouterr().err
    with pytest.raises(UserError, match=r"python -m ltdd_jax.data.prepare cifar100 --data_dir="):
        sources.load_source("cifar100", "train", data_dir=data_dir)


def test_bad_download_is_refused_and_then_repeated(served, tmp_path):
    good = served.path.read_bytes()
    served.path.write_bytes(good[:-20])
    with pytest.raises(UserError, match="SHA-256"):
        prepare.prepare("cifar10", str(tmp_path / "data"))
    assert not list((tmp_path / "data" / "downloads").rglob("*.tmp.*"))
    served.path.write_bytes(good)
    prepare.prepare("cifar10", str(tmp_path / "data"))
    _assert_prepared(served, str(tmp_path / "data"))


@pytest.mark.parametrize("status", ["refused", "not found"])
def test_unreachable_address_names_the_way_out(status, served, server, tmp_path):
    if status == "not found":
        served.path.unlink()
    else:
        server.socket.close()
    with pytest.raises(UserError, match=r"--archive=FILE"):
        prepare.prepare("cifar10", str(tmp_path / "data"))


def test_interruption_leaves_nothing_half_done(served, server, tmp_path, monkeypatch, capsys):
    """Ctrl-C while records are written: no data set, and the download is used again."""
    data_dir = tmp_path / "data"
    full = prepare._Examples.__iter__

    def interrupted(self):
        yield next(full(self))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare._Examples, "__iter__", interrupted)
        assert prepare.main(["cifar10", f"--data_dir={data_dir}"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not list((data_dir / "cifar10").iterdir())
    requests = server.requests
    prepare.prepare("cifar10", str(data_dir))
    assert server.requests == requests
    _assert_prepared(served, str(data_dir))


def test_remains_of_a_killed_run_are_removed(served, tmp_path):
    data_dir = tmp_path / "data"
    version = str(prepare.Cifar10.VERSION)
    remains = [
        data_dir / "cifar10" / f"incomplete.ABC123_{version}",
        data_dir / "cifar10" / version,
        data_dir / "downloads" / "cifar10" / "cifar.tar.gz.tmp.0123",
    ]
    for folder in remains:
        folder.mkdir(parents=True)
        (folder / "cifar10-train.array_record-00000-of-00001").write_bytes(b"half")
    with pytest.raises(UserError, match="is not prepared"):
        sources.load_source("cifar10", "train", data_dir=str(data_dir))
    prepare.prepare("cifar10", str(data_dir))
    assert [f.name for f in (data_dir / "cifar10").iterdir()] == [version]
    assert not remains[2].exists()
    _assert_prepared(served, str(data_dir))


def test_damaged_cached_download_is_refused(served, tmp_path):
    """TFDS itself would read whatever lies under the registered name."""
    data_dir = tmp_path / "data"
    prepare.prepare("cifar10", str(data_dir))
    for file in (data_dir / "cifar10").rglob("*"):
        if file.is_file():
            file.unlink()
    (cached,) = (data_dir / "downloads" / "cifar10").glob("*.tar.gz")
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        prepare.prepare("cifar10", str(data_dir))


def test_prepared_set_that_lacks_a_file_is_not_taken_for_complete(local, tmp_path):
    folder = prepare.prepare("cifar100", str(tmp_path), str(local.path))
    next(folder.glob("cifar100-test.array_record*")).unlink()
    with pytest.raises(UserError, match=r"cifar100-test.array_record.* is missing; delete"):
        prepare.prepare("cifar100", str(tmp_path), str(local.path))
