"""Build definition: `pip install .`, also into an environment that has MMPose."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def read_version():
    """Reads the version without importing the package, which would need torch."""
    names = {}
    exec((ROOT / 'udp_plugin/version.py').read_text(encoding='utf-8'), names)
    return names['__version__']


def read_readme():
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


class BuildWithConfigs(build_py):
    """Puts `configs/` into the package, where MMPose's own wheel has its configs.

    An editable install needs no copy: there the configs are those of the clone.
    """

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib, 'udp_plugin/.mim/configs')
        shutil.rmtree(target, ignore_errors=True)
        if (ROOT / 'configs').is_dir():
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / 'configs', target, ignore=ignore)


setup(
    name='udp-plugin',
    version=read_version(),
    description='Unbiased data processing (UDP) for MMPose 1.x',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    author='The udp_plugin authors',
    license='Apache-2.0',
    keywords='human pose estimation, keypoints, heatmap, UDP, MMPose',
    packages=find_packages(include=['udp_plugin', 'udp_plugin.*']),
    package_data={'udp_plugin.audit': ['findings.yaml']},
    cmdclass={'build_py': BuildWithConfigs},
    python_requires='>=3.8',
    # Names without versions, so that pip leaves what an environment has as it is.
    # MMPose is not among them: udp_plugin.functional works without it; installing it
    # takes several steps (requirements.txt), which no list here can express; and there
    # are forks that provide the same modules under other distribution names.
    # OpenCV comes with mmcv, in whichever of its variants was chosen there.
    install_requires=[
        'numpy',
        'torch',
        'scipy',
        'rich',
        'matplotlib',
        'numba',
        'wrapt',
    ],
    extras_require={
        'export': ['onnx', 'onnxruntime'],
        'tests': [
            *('pytest', 'pytest-xdist', 'hypothesis', 'onnx', 'onnxruntime'),
            # What the benchmarks' pages take.
            *('jinja2', 'psutil'),
        ],
    },
    entry_points={'console_scripts': ['udp-plugin = udp_plugin.cli:main']},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.8',
        'Programming Language :: Python :: 3.9',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    zip_safe=False,
)
