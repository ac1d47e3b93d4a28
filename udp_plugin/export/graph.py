"""What exported graphs compute, how they are written, and what files say of them."""

import inspect
import json
import re
import secrets
import warnings
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import onnx
import torch
from torch import Tensor, nn

from udp_plugin import functional as F
from udp_plugin.codecs.base import MapReading
from udp_plugin.errors import UserError
from udp_plugin.runtime.metadata import LONGEST_NAME, plain
from udp_plugin.runtime.session import BOX_INPUTS, DATA, IDENTITY
from udp_plugin.version import __version__

from . import OPSET
from .forms import ONNXForms
from .trained import Trained

#: Of the graphs that give keypoints in input px.
OUTPUTS = ['keypoints', 'scores']
#: Protobuf's limit for a file; what is larger has its weights in a file beside it.
LARGEST = 2**31 - 2**20


class Decoding(nn.Module):
    """A codec's reading of maps, to be recorded alone.

    It can be given to ``torch.jit.trace`` and ``torch.onnx.export``, and with torch
    2.7 or later to ``torch.export.export``. The number of samples is free.
    """

    def __init__(self, codec: MapReading) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, maps: Tensor) -> Tuple[Tensor, Tensor]:
        """Keypoints (B, K, 2) in input px and scores (B, K) of maps (B, C, H, W)."""
        with ONNXForms() if torch.onnx.is_in_onnx_export() else nullcontext():
            return self.codec.decode_tensors(maps)


class CropsToKeypoints(nn.Module):
    """A trained model from crops to keypoints, as the toolbox tests it.

    Args:
        trained: The model.
        flip_test: Average over the mirrored crop, too.
        normalized: Crops are given as the network takes them.
    """

    def __init__(
        self, trained: Trained, flip_test: bool = False, normalized: bool = False
    ) -> None:
        super().__init__()
        self.model, self.head = trained.model, trained.head
        self.decoding, self.chosen = Decoding(trained.codec), trained.chosen
        self.flip_indices = trained.flip_indices if flip_test else None
        self.dither = trained.dither
        self.normalized = normalized

    def forward(
        self,
        crops: Tensor,
        centers: Optional[Tensor] = None,
        scales: Optional[Tensor] = None,
        rotations: Optional[Tensor] = None,
    ) -> Tuple[Tensor, ...]:
        """Find keypoints (B, K, 2) in input px and their scores (B, K).

        Args:
            crops: Shape (B, 3, H, W), or (B, 1, H, W) of grey photographs: their
                colours, 0 to 255, or what the network takes, if they are normalized.
            centers, scales, rotations: Of the crops' boxes, shapes (B, 2), (B, 2) and
                (B), source px and degrees; with them there are keypoints (B, K, 2) in
                source px, too (Eq. 47).
        """
        keypoints, scores = self.decoding(self.maps(crops))
        if self.chosen is not None:
            keypoints, scores = keypoints[:, self.chosen], scores[:, self.chosen]
        if centers is None:
            return keypoints, scores
        box = centers, scales, rotations, self.decoding.codec.input_size
        unbiased = self.decoding.codec.measure == F.UNIT_LENGTH
        return keypoints, scores, F.input_to_source(keypoints, *box, unbiased)

    def maps(self, crops: Tensor) -> Tensor:
        """The maps (B, K * channels, H, W) to be read."""
        preprocessor, inputs = self.model.data_preprocessor, crops.float()
        if not self.normalized and preprocessor._channel_conversion:
            inputs = inputs.flip(1)
        if not self.normalized and preprocessor._enable_normalize:
            inputs = (inputs - preprocessor.mean) / preprocessor.std
        if self.flip_indices is None:
            return self.head._outputs(self.model.extract_feat(inputs))[-1]
        mirrored = inputs.flip(-1)
        if any(self.dither):
            mirrored = F.move(mirrored, self.dither)
        # Mirror images as further samples, so that the graph has one network.
        both = torch.cat((inputs, mirrored))
        maps = self.head._outputs(self.model.extract_feat(both))[-1]
        count, codec = crops.shape[0], self.decoding.codec
        flips = self.flip_indices, codec.channels_per_keypoint
        apart = codec.misalignment(self.dither)
        with ONNXForms() if torch.onnx.is_in_onnx_export() else nullcontext():
            return F.flip_average(maps[:count], maps[count:], *flips, apart)


def write_model(
    path: Path,
    trained: Trained,
    flip_test: bool = False,
    dynamic_batch: bool = False,
    normalized: bool = False,
    source_keypoints: bool = False,
    opset: int = OPSET,
) -> None:
    """Write a model as an ONNX file, which nobody has verified yet.

    Args:
        path: The file. What is larger than 2 GB has its weights in one beside it.
        trained: The model.
        flip_test: Average over the mirrored crop, too.
        dynamic_batch: Take any number of crops; else one.
        normalized: Take crops as the network takes them.
        source_keypoints: Take the crops' boxes, too, and return keypoints in source
            px, too.
        opset: Version of ONNX's operators.

    Raises:
        UserError: It cannot be written so.
    """
    keypoints, mirrors = trained.num_keypoints, trained.flip_indices
    if flip_test and len(mirrors) != keypoints:
        raise UserError(
            f'--flip-test: the model has {keypoints} keypoints, and the data set of '
            f'its test_dataloader tells of {len(mirrors)} which are '
            "each other's mirror images; leave --flip-test out"
        )
    module = CropsToKeypoints(trained, flip_test, normalized)
    (width, height), channels = trained.codec.input_size, trained.channels
    # Two, so that no batch of one is taken for a fixed size.
    batch = 2 if dynamic_batch else 1
    dtype = torch.float32 if normalized else torch.uint8
    inputs = dict(crops=torch.zeros(batch, channels, height, width, dtype=dtype))
    outputs = list(OUTPUTS)
    if source_keypoints:
        boxes = torch.zeros(batch, 2), torch.ones(batch, 2), torch.zeros(batch)
        inputs.update(zip(BOX_INPUTS, boxes))
        outputs.append('source_keypoints')
    preprocessor = trained.model.data_preprocessor
    mean, std = [0.0] * channels, [1.0] * channels
    if preprocessor._enable_normalize:
        values = preprocessor.mean, preprocessor.std
        mean, std = (each.flatten().expand(channels).tolist() for each in values)
    # As the crops have them.
    turned = preprocessor._channel_conversion
    order = -1 if turned and not normalized else 1
    color = 'RGB' if turned and normalized else 'BGR'
    metainfo = trained.model.dataset_meta
    names = metainfo['keypoint_id2name']
    metadata = as_metadata(
        trained.codec,
        config=plain(trained.name)[:LONGEST_NAME],
        keypoint_names=[names[k] for k in range(len(names))],
        flip_pairs=[pair for pair in enumerate(mirrors) if pair[0] < pair[1]],
        skeleton=metainfo['skeleton_links'],
        padding=trained.padding,
        warp=trained.warp,
        flip_test=flip_test,
        normalized=normalized,
        color=color if channels == 3 else 'GRAY',
        mean=mean[::order],
        std=std[::order],
    )
    dynamic = [*inputs, *outputs] if dynamic_batch else []
    write_onnx(path, module, inputs, outputs, metadata, dynamic, opset)


def as_metadata(codec: MapReading, **others: Any) -> Dict[str, str]:
    """What a file says of its codec, and other values, each in JSON.

    :class:`~udp_plugin.runtime.PoseModel` reads it.
    """
    values = dict(
        made_by='udp_plugin',
        version=__version__,
        codec=dict(type=type(codec).__name__, **vars(codec)),
        input_size=codec.input_size,
        heatmap_size=codec.heatmap_size,
        measure=codec.measure,
        **others,
    )
    return {name: json.dumps(value) for name, value in values.items()}


def write_decoding(path: Path, codec: MapReading, keypoints: int, opset: int) -> None:
    """Write a codec's reading of maps alone, of any number of samples.

    Args:
        path: Its suffix says as what: ``.onnx``, ``.pt`` (TorchScript) or ``.pt2``
            (``torch.export``, with torch 2.7 or later).
        codec: What reads.
        keypoints: ``K``.
        opset: For ONNX, version of its operators.

    Raises:
        UserError: It cannot be written so.
    """
    width, height = codec.heatmap_size
    channels = keypoints * codec.channels_per_keypoint
    maps = torch.rand(2, channels, height, width)
    module, metadata = Decoding(codec).eval(), as_metadata(codec)
    if path.suffix == '.onnx':
        inputs, dynamic = dict(maps=maps), ['maps', *OUTPUTS]
        write_onnx(path, module, inputs, OUTPUTS, metadata, dynamic, opset)
        return
    if path.suffix == '.pt2' and not hasattr(torch.compiler, 'is_exporting'):
        raise UserError(
            f'--out {path.name}: programs of torch.export take torch 2.7 or later, '
            f'this is {torch.__version__}; take .pt or .onnx'
        )
    # On a full disk torch would abort the process.
    content = BytesIO()
    with recorded():
        if path.suffix == '.pt':
            traced = torch.jit.trace(module, (maps,))
            torch.jit.save(traced, content, _extra_files=metadata)
        else:
            batch = torch.export.Dim('batch', min=1, max=2**16)
            program = torch.export.export(
                module, (maps,), dynamic_shapes={'maps': {0: batch}}
            )
            torch.export.save(program, content, extra_files=metadata)
    path.write_bytes(content.getvalue())


def write_onnx(
    path: Path,
    module: nn.Module,
    inputs: Dict[str, Tensor],
    outputs: Sequence[str],
    metadata: Dict[str, str],
    dynamic: Sequence[str],
    opset: int,
) -> None:
    """Record a module as an ONNX file.

    Args:
        path: The file.
        module: What is recorded, in evaluation.
        inputs: Examples by name.
        outputs: Names.
        metadata: Written into the file.
        dynamic: Names of those whose first axis is free.
        opset: Version of ONNX's operators.

    Raises:
        UserError: An operator is not in this opset, or cannot be exported.
    """
    # Later releases of torch would take their other exporter.
    other = 'dynamo' in inspect.signature(torch.onnx.export).parameters
    # A folder of its own: of what is too large for a file, torch leaves one a tensor.
    with recorded(), TemporaryDirectory(prefix='.export', dir=path.parent) as folder:
        recording = str(Path(folder, path.name))
        try:
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                recording,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: 'batch'} for name in dynamic},
                **(dict(dynamo=False) if other else {}),
            )
        except OSError:
            raise  # A full disk is not the model's fault.
        except Exception as error:
            raise UserError(_why(error, opset)) from error
        model = onnx.load(recording)
    model.producer_name, model.producer_version = 'udp_plugin', __version__
    if model.ByteSize() > LARGEST:
        # By it the runtime knows which two files belong together.
        identity, data = secrets.token_hex(IDENTITY // 2), path.name + DATA
        metadata = {**metadata, 'weights': json.dumps(identity)}
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, str(path), save_as_external_data=True, location=data)
        with path.with_name(data).open('ab') as weights:
            weights.write(identity.encode())
    else:
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, str(path))
    onnx.checker.check_model(str(path))


def _why(error: Exception, opset: int) -> str:
    """What to do about an error of torch's exporter."""
    text = ' '.join(str(error).split(' Please feel free')[0].split())
    operator = re.search(r"operator '?([\w:]+)|ONNX export of (\w+)", text)
    versions = f'torch {torch.__version__}'
    if operator:
        name = f'the operator {operator[1] or operator[2]}'
        newer = f'has a form of {name} that {versions} does not write'
        problem = newer if opset > OPSET else f'lacks {name}'
        other = ', or a network without it' if opset == OPSET else ''
        return f'--opset {opset} {problem} ({text[:200]}); take --opset {OPSET}{other}'
    if re.search('opset.version', text):
        return f'--opset {opset} is none that {versions} writes; take --opset {OPSET}'
    return f'{versions} cannot record the model: {type(error).__name__}: {text[:500]}'


@contextmanager
def recorded() -> Iterator[None]:
    """Without gradients, nor warnings of sizes that are taken as fixed, as they are."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
