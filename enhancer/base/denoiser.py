"""The base model's denoising UNet: a small one of Stable Diffusion 1.x's kind.

Trained on epsilon prediction with the SD1.5 noise schedule; parts of the training items carry
the run's prompt, the others the empty one, so that guidance has both sides.
"""

from diffusers import DDPMScheduler, UNet2DConditionModel

from enhancer.config import BaseUnetConfig

# scheduler_config.json of Stable Diffusion 1.5
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "steps_offset": 1,
}


def build_noise_schedule() -> DDPMScheduler:
    """Build the noise schedule of Stable Diffusion 1.5."""
    return DDPMScheduler(**NOISE_SCHEDULE)


def build_unet(
    config: BaseUnetConfig, *, latent_channels: int, latent_px: int, text_width: int
) -> UNet2DConditionModel:
    """Build the UNet: text attention in every level but the coarsest, as in SD1.5."""
    levels = len(config.block_channels)
    return UNet2DConditionModel(
        sample_size=latent_px,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.block_channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        cross_attention_dim=text_width,
        attention_head_dim=config.attention_heads,
        norm_num_groups=config.norm_groups,
    )
