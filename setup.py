"""Puts configs/ into the package as jaxfair/configs; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jaxfair", "jaxfair.*"]), "jaxfair.configs"],
    package_dir={"jaxfair.configs": "configs"},
)
