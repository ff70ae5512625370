"""UNet and ControlNet as one function of a batch of slots, constant work taken out of it.

What depends only on an image (the ControlNet's conditioning embedding) or only on a prompt
(keys and values of the text attentions) is computed once and handed in; both halves of
classifier-free guidance go through one ControlNet and one UNet call.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class SlotInputs:
    """What stays the same for a slot from its first step to its last.

    Attributes:
        condition: conditioning embedding of each row, [R, C, h, w].
        prompt: index of each row's prompt in the prompt table, int64 [R].
        negative: index of each row's negative prompt, int64 [R].
        guidance: strength of the guidance of each row, float32 [R, 1, 1, 1].
        scale: weight of the ControlNet residuals of each row, [R, 1, 1, 1].
    """

    condition: Tensor
    prompt: Tensor
    negative: Tensor
    guidance: Tensor
    scale: Tensor

    def rows(self, chosen: slice) -> "SlotInputs":
        """The same for some of the rows."""
        return SlotInputs(*(value[chosen] for value in vars(self).values()))


class _Lookup(nn.Module):
    """Stands in for a text attention's key or value projection: rows of a table."""

    table: Tensor

    def __init__(self, table: Tensor, choice: "_Choice") -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self._choice = choice

    def forward(self, text: Tensor) -> Tensor:
        """Return the projections of the prompts chosen for this call; `text` is not read."""
        rows: Tensor = self.table[self._choice.rows]
        return rows


class _Choice:
    """Which prompt each row of the present call uses, shared by all `_Lookup` of a net."""

    rows: Tensor


class PromptedNets:
    """Noise prediction for rows that may differ in timestep, image, prompt and guidance.

    The nets given are not modified: shallow copies share their parameters.

    Args:
        unet: UNet with pixel-aware attention, in evaluation mode.
        controlnet: its ControlNet, same device and number format.
        prompts: text embeddings, [P, tokens, width]; slots refer to them by index.
        compile_mode: mode of torch.compile, or "off".
    """

    def __init__(
        self, unet: nn.Module, controlnet: nn.Module, prompts: Tensor, *, compile_mode: str = "off"
    ) -> None:
        parameter = next(unet.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._prompts = prompts.to(self.device, self.dtype)
        self._choice = _Choice()
        self._rows: dict[int, Tensor] = {}
        self._embedding = _child(controlnet, "controlnet_cond_embedding")
        self._unet = replace_modules(unet, self._lookups(unet))
        self._controlnet = replace_modules(
            controlnet,
            {**self._lookups(controlnet), "controlnet_cond_embedding": nn.Identity()},
        )
        self._eager = (self._unet, self._controlnet)
        self._is_compiled = compile_mode != "off"
        if self._is_compiled:
            mode = None if compile_mode == "default" else compile_mode
            self._unet = torch.compile(self._unet, mode=mode, dynamic=False)
            self._controlnet = torch.compile(self._controlnet, mode=mode, dynamic=False)

    def embed_condition(self, image01: Tensor) -> Tensor:
        """Map conditions, float [R, 3, 8h, 8w] in [0, 1], to embeddings [R, C, h, w].

        One image at a time, so that an embedding does not depend on its neighbours.
        """
        rows = image01.to(self.device, self.dtype).split(1)
        return torch.cat([self._embedding(row) for row in rows])

    def predict(self, latent: Tensor, timesteps: Tensor, inputs: SlotInputs) -> Tensor:
        """Predict the guided network output.

        Args:
            latent: noisy latents, float32 [R, C, h, w].
            timesteps: training timestep of each row, int64 [R].
            inputs: the rows' constants.
        Returns:
            uncond + guidance * (cond - uncond), float32 [R, C, h, w].
        """
        twice = SlotInputs(
            _twice(inputs.condition),
            torch.cat([inputs.negative, inputs.prompt]),
            inputs.negative,
            inputs.guidance,
            _twice(inputs.scale),
        )
        output = self._call(_twice(latent), _twice(timesteps), twice)
        uncond, cond = output.chunk(2)
        return uncond + inputs.guidance * (cond - uncond)

    def predict_unguided(self, latent: Tensor, timesteps: Tensor, inputs: SlotInputs) -> Tensor:
        """Predict with the positive prompt only: exactly `predict` where guidance is 1."""
        return self._call(latent, timesteps, inputs).clone()

    def count_flops(self, latent: Tensor, timesteps: Tensor, inputs: SlotInputs) -> int:
        """Count the floating-point operations of one call without guidance, eagerly."""
        with self.eager(), FlopCounterMode(display=False) as counter:
            self.predict_unguided(latent, timesteps, inputs)
        return int(counter.get_total_flops())

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Use the nets as they were before torch.compile, within the block."""
        nets = (self._unet, self._controlnet)
        self._unet, self._controlnet = self._eager
        try:
            yield
        finally:
            self._unet, self._controlnet = nets

    def free_memory(self) -> None:
        """Give the device's memory back that is kept for later calls, recorded graphs too."""
        if self._is_compiled:
            torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _call(self, latent: Tensor, timesteps: Tensor, inputs: SlotInputs) -> Tensor:
        self._choose(inputs.prompt)
        if self._is_compiled:  # a CUDA graph's outputs live until here
            torch.compiler.cudagraph_mark_step_begin()
        sample = latent.to(self.dtype)
        # only its shape is read: the lookups hold the projected text
        text = self._prompts[:1].expand(len(sample), -1, -1)
        down, mid = self._controlnet(
            sample,
            timesteps,
            encoder_hidden_states=text,
            controlnet_cond=inputs.condition,
            conditioning_scale=inputs.scale,
            return_dict=False,
        )
        output: Tensor = self._unet(
            sample,
            timesteps,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return output.float()

    def _choose(self, prompt: Tensor) -> None:
        """Tell the lookups each row's prompt, always at the same address: graphs record it."""
        if len(prompt) not in self._rows:
            self._rows[len(prompt)] = torch.empty_like(prompt)
        self._choice.rows = self._rows[len(prompt)].copy_(prompt)

    def _lookups(self, net: nn.Module) -> dict[str, nn.Module]:
        """Tables for the key and value projections of every text attention of `net`."""
        return {
            name: _Lookup(torch.cat([layer(p) for p in self._prompts.split(1)]), self._choice)
            for name, layer in _text_projections(net)
        }


def _text_projections(net: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Key and value projections that read the text (pixel attentions read the ControlNet)."""
    for name, layer in net.named_modules():
        if name.endswith((".attn2.to_k", ".attn2.to_v")) and ".pixel_attentions." not in name:
            yield name, layer


def replace_modules(net: nn.Module, replacements: Mapping[str, nn.Module]) -> Any:
    """Copy a module tree with some of its modules replaced; parameters are shared.

    Args:
        net: the tree; not modified.
        replacements: dotted name below `net` to the module that takes its place.
    """
    clone = copy.copy(net)
    clone._modules = dict(net._modules)
    below: dict[str, dict[str, nn.Module]] = {}
    for name, module in replacements.items():
        head, _, rest = name.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = module
        else:
            clone._modules[head] = module
    for head, inner in below.items():
        child = clone._modules[head]
        assert child is not None, f"no module {head} to replace in"
        clone._modules[head] = replace_modules(child, inner)
    return clone


def _child(net: nn.Module, name: str) -> nn.Module:
    return net.get_submodule(name)


def _twice(value: Tensor) -> Tensor:
    return torch.cat([value, value])


def stack_prompts(embeddings: Sequence[Tensor]) -> Tensor:
    """Put text embeddings, each [tokens, width] or [1, tokens, width], into one table."""
    return torch.stack([item.reshape(item.shape[-2:]) for item in embeddings])
