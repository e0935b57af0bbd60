"""The Jetson Dockerfile and page, as far as they can be checked without a Jetson: what they name is there."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JETSON = ROOT / "examples" / "jetson"
PAGE, DOCKERFILE = (JETSON / "README.md").read_text(), (JETSON / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ").splitlines()


@pytest.fixture(scope="module")
def project():
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is in Python 3.11 and newer")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def words(name: str) -> list[list[str]]:
    return [line.split()[1:] for line in INSTRUCTIONS if line.startswith(name + " ")]


def test_every_source_is_in_the_repository():
    sources = [source for copied in words("COPY") for source in copied[:-1]]
    assert sources and [source for source in sources if not (ROOT / source).exists()] == []


def test_everything_that_the_package_is_built_from_is_copied(project):
    build, sources = (
        project["tool"]["scikit-build"],
        {source for copied in words("COPY") for source in copied[:-1]},
    )
    needed = {
        *build["wheel"]["packages"].values(),
        build["cmake"]["source-dir"],
        project["project"]["readme"],
        "pyproject.toml",
        *project["project"]["license-files"],
    }
    for path in needed:
        assert any(path == source or path.startswith(f"{source}/") for source in sources), path


def test_extras_and_command_are_the_packages_own(project):
    extras = set(re.findall(r"\.\[([\w,]+)\]", DOCKERFILE + PAGE))
    assert {name for extra in extras for name in extra.split(",")} <= set(
        project["project"]["optional-dependencies"]
    )
    assert words("ENTRYPOINT") == [['["ltbm"]']] and "ltbm" in project["project"]["scripts"]


def test_architectures_and_options_are_the_plugins():
    sources = ROOT / "plugins" / "src"
    cmake = "".join((sources / part).read_text() for part in ("cuda/cuda.cmake", "tensorrt/tensorrt.cmake"))
    known = re.search(r"foreach\(arch ([\d ]+)\)", cmake)[1].split()
    named = re.findall(r"ARCHITECTURES=\"?([\d;]+)", DOCKERFILE + PAGE)
    assert named and {arch for names in named for arch in names.split(";")} <= set(known)
    assert {
        name for name in re.findall(r"cmake\.define\.(\w+)", DOCKERFILE + PAGE) if f"set({name} " not in cmake
    } == set()


def test_page_and_dockerfile_name_the_same_images():
    images = r"nvcr\.io/[\w./:-]+\w"
    assert set(re.findall(images, PAGE)) == set(re.findall(images, DOCKERFILE))


def test_the_decoders_that_the_page_names_are_exported():
    from ltbm.export.flavours import FLAVOURS

    assert set(re.findall(r"`(?:decoder\.)?(std24|trt24|concat20|gqa)`", PAGE)) <= set(FLAVOURS)


def test_every_argument_is_declared_and_used():
    declared = {word[0].split("=")[0] for word in words("ARG")}
    assert set(re.findall(r"--build-arg (\w+)=", DOCKERFILE)) == declared
    assert {name for name in declared if f"${{{name}}}" in DOCKERFILE} == declared
