"""The flags of LLaMA-Factory's API server (0.9.5): their types and defaults, and which of them mean nothing here.

A test compares this table with the names, types and defaults that its own classes have.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

Sort = Literal["text", "whole", "number", "switch", "json"]
NEAREST: Final = 3


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `default`: LLaMA-Factory's. `choices`: the words it takes, empty for any.

    `unused`: why it has no meaning for a server here; None where it decides something.
    """

    name: str
    sort: Sort
    default: Any = None
    choices: tuple[str, ...] = ()
    unused: str | None = None


def _used() -> Iterable[Flag]:
    yield Flag("model_name_or_path", "text")
    yield Flag("adapter_name_or_path", "text")
    yield Flag("adapter_folder", "text")
    yield Flag("cache_dir", "text")
    yield Flag("model_revision", "text", "main")
    yield Flag("trust_remote_code", "switch", False)
    yield Flag("hf_hub_token", "text")
    yield Flag("infer_backend", "text", "huggingface", ("huggingface", "vllm", "sglang", "llama_cpp"))
    yield Flag("infer_dtype", "text", "auto", ("auto", "float16", "bfloat16", "float32"))
    yield Flag("vllm_maxlen", "whole", 4096)
    yield Flag("vllm_gpu_util", "number", 0.7)
    yield Flag("vllm_enforce_eager", "switch", False)
    yield Flag("vllm_max_lora_rank", "whole", 32)
    yield Flag("vllm_config", "json")
    yield Flag("sglang_maxlen", "whole", 4096)
    yield Flag("sglang_mem_fraction", "number", 0.7)
    yield Flag("sglang_tp_size", "whole", -1)
    yield Flag("quantization_bit", "whole")
    yield Flag("rope_scaling", "text", None, ("linear", "dynamic", "yarn", "llama3"))
    yield Flag("template", "text")
    yield Flag("default_system", "text")
    yield Flag("tool_format", "text")
    yield Flag("enable_thinking", "switch", True)
    yield Flag("preserve_thinking", "switch", False)
    yield Flag("stage", "text", "sft", ("pt", "sft", "rm", "ppo", "dpo", "kto"))
    yield Flag("finetuning_type", "text", "lora", ("lora", "oft", "freeze", "full"))
    yield Flag("do_sample", "switch", True)
    yield Flag("temperature", "number", 0.95)
    yield Flag("top_p", "number", 0.7)
    yield Flag("top_k", "whole", 50)
    yield Flag("num_beams", "whole", 1)
    yield Flag("max_length", "whole", 1024)
    yield Flag("max_new_tokens", "whole", 1024)
    yield Flag("repetition_penalty", "number", 1.0)
    yield Flag("length_penalty", "number", 1.0)
    yield Flag("skip_special_tokens", "switch", True)


_TRAINING: Final = "it is for training"
_EXPORT: Final = "it is for `llamafactory-cli export`; here `modelport convert` and `modelport register` do that"
_LOADING: Final = "the engine here loads models in its own way"
_MEDIA: Final = "the engine has limits of its own for pictures and sounds: set its arguments in --vllm_config"
_VOCABULARY: Final = "the engine takes the tokenizer as it is in the folder: export the model with these tokens"
_HUBS: Final = "models come from the Hugging Face hub or a folder here"
_SGLANG: Final = "SGLang is not run here: vLLM has --vllm_config"
# Why → the switches, and the flags with a value.
_UNUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        _TRAINING: (
            """shift_attn use_unsloth use_unsloth_gc enable_liger_kernel disable_gradient_checkpointing use_reentrant_gc
            upcast_layernorm upcast_lmhead_output train_from_scratch use_v1_kernels print_param_status use_kt
            kt_use_lora_experts train_on_prompt mask_history streaming overwrite_cache ignore_pad_token_for_loss
            eval_on_each_dataset packing neat_packing data_shared_file_system use_rslora use_dora pissa_init
            pissa_convert create_new_adapter ppo_score_norm ppo_whiten_rewards use_galore galore_layerwise use_apollo
            apollo_layerwise apollo_scale_front use_badam use_swanlab pure_bf16 use_llama_pro use_adam_mini use_mca
            use_hyper_parallel use_muon use_dft_loss use_asft_loss use_eaft_loss freeze_vision_tower
            freeze_multi_modal_projector freeze_language_model compute_accuracy disable_shuffling plot_loss
            include_effective_tokens_per_second""",
            """moe_aux_loss_coef kt_weight_path kt_expert_checkpoint_path kt_lora_expert_num
            kt_lora_expert_intermediate_size dataset eval_dataset dataset_dir media_dir cutoff_len buffer_size
            mix_strategy interleave_probs preprocessing_batch_size preprocessing_num_workers max_samples eval_num_beams
            val_size tokenized_path freeze_trainable_layers freeze_trainable_modules freeze_extra_modules
            additional_target lora_alpha lora_dropout lora_rank lora_target loraplus_lr_ratio loraplus_lr_embedding
            pissa_iter module_dropout oft_rank oft_block_size oft_target pref_beta pref_ftx pref_bco_weight pref_loss
            dpo_label_smoothing kto_chosen_weight kto_rejected_weight simpo_gamma ppo_buffer_size ppo_epochs ppo_target
            ref_model ref_model_adapters ref_model_quantization_bit reward_model reward_model_adapters
            reward_model_quantization_bit reward_model_type ld_alpha galore_target galore_rank galore_update_interval
            galore_scale galore_proj_type apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj
            apollo_proj_type apollo_scale_type badam_mode badam_start_block badam_switch_mode badam_switch_interval
            badam_update_ratio badam_mask_mode badam_verbose swanlab_project swanlab_workspace swanlab_run_name
            swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret hyper_parallel_args
            asft_alpha eaft_alpha early_stopping_steps""",
        ),
        _EXPORT: (
            "export_legacy_format",
            """export_dir export_size export_device export_quantization_bit export_quantization_dataset
            export_quantization_nsamples export_quantization_maxlen export_hub_model_id""",
        ),
        _LOADING: (
            "use_fast_tokenizer low_cpu_mem_usage use_kv_cache double_quantization split_special_tokens",
            """flash_attn mixture_of_depths offload_folder quantization_method quantization_type
            quantization_device_map""",
        ),
        _MEDIA: (
            "image_do_pan_and_scan crop_to_patches use_audio_in_video",
            """image_max_pixels image_min_pixels video_max_pixels video_min_pixels video_fps video_maxlen
            audio_sampling_rate""",
        ),
        _VOCABULARY: (
            "resize_vocab",
            "add_tokens add_special_tokens new_special_tokens_config init_special_tokens",
        ),
        _HUBS: ("", "ms_hub_token om_hub_token"),
        _SGLANG: ("", "sglang_config sglang_lora_backend"),
    }
)


def _all() -> dict[str, Flag]:
    flags = {flag.name: flag for flag in _used()}
    for why, (switches, others) in _UNUSED.items():
        flags |= {name: Flag(name, "switch", unused=why) for name in switches.split()}
        flags |= {name: Flag(name, "text", unused=why) for name in others.split()}
    return flags


FLAGS: Final[Mapping[str, Flag]] = MappingProxyType(_all())


def nearest(name: str) -> list[str]:
    """The flags whose names are most like this one, best first: those that decide something before the others."""
    close = difflib.get_close_matches(name, FLAGS, n=NEAREST * 2, cutoff=0.5)
    return sorted(close, key=lambda each: FLAGS[each].unused is not None)[:NEAREST]
